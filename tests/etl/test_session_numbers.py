"""Session numbers that begin anew for each user: told apart where a user is named, announced where none is."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recd_dist.errors import DataError
from recd_dist.etl.flow import etl
from recd_dist.etl.source.source import Source
from recd_dist.etl.verify.compare import verify
from recd_dist.table.manifest import Manifest

START, HOUR = 1_795_000_000_000_000, 3_600_000_000
KEYS = {"session": "session", "timestamp": "t"}


def source(path: Path, name: str = "raw", first_user: int = 0, user: str = "user_id", **options: object) -> Source:
    """Users with sessions 1 and 2 of 5 samples each; the users come 9 hours apart."""
    rows = [(u, s, START + 9 * u * HOUR + s * 10_000_000 + i) for u in range(4) for s in (1, 2) for i in range(5)]
    columns = {
        user: [f"u{first_user + u}" for u, _, _ in rows],
        "session": [s for _, s, _ in rows],
        "t": pa.array([t for _, _, t in rows], pa.timestamp("us")),
        "y": [t % 2 for _, _, t in rows],
        "item": [t % 7 for _, _, t in rows],
    }
    pq.write_table(pa.table(columns), path / f"{name}.parquet")
    named = {"name": "shop", "path": str(path / f"{name}.parquet"), "keys": KEYS, "labels": ["y"], "groups": {}}
    return Source.from_dict(named | options)


def test_a_session_is_a_users(tmp_path):
    logs = source(tmp_path, keys=KEYS | {"user": "user_id"})
    manifest = etl(logs, tmp_path / "out", progress=False)["train"]
    assert manifest.num_sessions == 8
    assert manifest.sessions == "samples of one session (keys.session) of one user_id (keys.user)"
    assert not manifest.announcements
    assert verify(logs, tmp_path / "out", progress=False).equal


@pytest.mark.parametrize(
    ("user", "says"),
    [
        ("user_id", "2 of 2 sessions in the first rows have several 'user_id', .*data.keys.user=user_id"),
        ("who", "2 of 2 sessions in the first rows last more than 6 hours, .*data.keys.user=USER_COLUMN"),
    ],
)
def test_without_a_user_it_is_announced(tmp_path, user, says):
    logs = source(tmp_path, user=user)
    assert etl(logs, tmp_path / "out", progress=False)["train"].num_sessions == 2
    with pytest.raises(DataError, match=says):
        etl(logs, tmp_path / "strict", progress=False, strict=True)


def test_a_table_of_an_older_release_keeps_its_rule(tmp_path):
    keys = KEYS | {"user": "user_id"}
    old = replace(source(tmp_path, keys=keys), users_apart=False)
    before = etl(old, tmp_path / "out", progress=False)["train"]
    assert before.sessions == "samples of one session (keys.session)"
    new = source(tmp_path, "more", first_user=100, keys=keys)
    etl(new, tmp_path / "out", progress=False, append=True)
    after = Manifest.load(tmp_path / "out" / "train")
    assert after.sessions == before.sessions
    sessions = pq.read_table(tmp_path / "out" / "train" / "samples")["session_id"].to_pylist()
    assert (len(sessions), set(sessions)) == (80, {1, 2})


def test_a_session_without_its_user_is_refused(tmp_path):
    logs = source(tmp_path, keys=KEYS | {"user": "user_id"})
    table = pq.read_table(logs.path)
    users = ["", *table["user_id"].to_pylist()[1:]]
    pq.write_table(table.set_column(0, "user_id", pa.array(users)), logs.path)
    with pytest.raises(DataError, match=r"row 0 .* has no session id"):
        etl(logs, tmp_path / "out", progress=False)
