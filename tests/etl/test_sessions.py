"""Logs without session ids, sampled sessions, duplicates and wrong clocks, through the whole ETL."""

from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recd_dist.errors import ConfigError, DataError
from recd_dist.etl.deal import prepare
from recd_dist.etl.flow import etl
from recd_dist.etl.source.source import Source
from recd_dist.table.flat import flat_view
from recd_dist.table.manifest import Manifest

MINUTE = 60_000_000
NOON = 1_700_000_000_000_000


def source(path: Path, rows: dict[str, object], keys: dict[str, str], **options: object) -> Source:
    pq.write_table(pa.table(rows), path / "raw.parquet")
    given = {"name": "shop", "path": str(path / "raw.parquet"), "keys": keys, "labels": ["clicked"], "groups": {}}
    return Source.from_dict(given | {"features": {"n": {}}} | options)


def visits(minutes: list[int], **more: object) -> dict[str, object]:
    times = pa.array([NOON + m * MINUTE for m in minutes], pa.timestamp("us"))
    return (
        {"member": ["ann", "bob"] * (len(minutes) // 2), "at": times, "n": list(range(len(minutes)))}
        | {"clicked": [0.0] * len(minutes)}
        | more
    )


def table(out: Path, columns: str) -> list[tuple[object, ...]]:
    return duckdb.sql(f"select {columns} from ({flat_view(out / 'train')}) order by sample_id").fetchall()


def sessions(out: Path) -> list[list[int]]:
    """Values of `n`, session by session."""
    values: dict[int, list[int]] = {}
    for session, n in table(out, "session_id, n"):
        values.setdefault(session, []).append(n)
    return sorted(values.values())


def test_sessions_of_a_user_end_with_a_gap(tmp_path):
    rows = visits([0, 0, 20, 31, 45, 40, 90, 41])
    made = etl(source(tmp_path, rows, {"user": "member", "timestamp": "at"}), tmp_path / "out", progress=False)["train"]
    # ann at 0, 20, 45, 90 minutes; bob at 0, 31, 40, 41
    assert sessions(tmp_path / "out") == [[0, 2, 4], [1], [3, 5, 7], [6]]
    assert made.sessions == "samples of one member with at most 1800 s between neighbours"
    assert made.num_sessions == 4
    wider = source(tmp_path, rows, {"user": "member", "timestamp": "at"}, sessions={"gap": "1h"})
    etl(wider, tmp_path / "wider", progress=False)
    assert sessions(tmp_path / "wider") == [[0, 2, 4, 6], [1, 3, 5, 7]]


def test_sessions_by_request_and_by_user(tmp_path):
    rows = visits([0, 0, 20, 31], page=[7, 7, 8, 9])
    keys = {"user": "member", "request": "page", "timestamp": "at", "order": "n"}
    by_request = etl(source(tmp_path, rows, keys, sessions="request"), tmp_path / "page", progress=False)["train"]
    assert sessions(tmp_path / "page") == [[0, 1], [2], [3]]
    assert by_request.sessions == "samples of one page (keys.request)"
    etl(source(tmp_path, rows, keys, sessions={"by": "user"}), tmp_path / "user", progress=False)
    assert sessions(tmp_path / "user") == [[0, 2], [1, 3]]
    etl(source(tmp_path, rows, {"timestamp": "at"}), tmp_path / "none", progress=False)
    assert sessions(tmp_path / "none") == [[0], [1], [2], [3]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sessions": {"by": "column"}}, "sessions.by=column needs keys.session"),
        ({"sessions": {"by": "gpa"}}, "sessions.by=gpa: no such way; did you mean 'gap'?"),
        ({"sessions": {"gap": "soon"}}, "sessions.gap=soon: write a time above 0 as 30m, 1800s or 0.5h"),
        ({"sample": 2.0}, "sample=2.0: must be a share of the sessions"),
        ({"policy": {"late": "ignore"}}, "policy.late=ignore: no such policy"),
        ({"policy": {"earliest": "now"}}, "policy.earliest=now: write a time as 2026-11-25"),
        ({"partition": "week"}, "partition=week: no such partition"),
    ],
)
def test_mistakes_in_the_description(tmp_path, options, message):
    with pytest.raises(ConfigError) as caught:
        source(tmp_path, visits([0, 1]), {"user": "member", "timestamp": "at"}, **options)
    assert message in str(caught.value)


def test_gaps_and_partitions_need_times(tmp_path):
    rows = {"member": [1], "at": [5], "clicked": [0.0], "n": [0]}
    for options in ({}, {"sessions": "user", "partition": "day"}):
        bad = source(tmp_path, rows, {"user": "member", "timestamp": "at"}, **options)
        with pytest.raises(DataError, match=r"'at' is BIGINT; sessions by gap and partitions need a TIMESTAMP"):
            etl(bad, tmp_path / "out", progress=False)


@pytest.mark.parametrize("by", ["column", "gap"])
def test_a_sample_of_the_sessions(tmp_path, by):
    num = 4000
    rows = {
        "who": np.arange(num) // 4,
        "at": pa.array(NOON + np.arange(num) * MINUTE // 4, pa.timestamp("us")),
        "n": np.arange(num),
        "clicked": np.zeros(num),
    }
    keys = {"session" if by == "column" else "user": "who", "timestamp": "at"}
    made = etl(source(tmp_path, rows, keys, sample=0.25), tmp_path / "out", progress=False)["train"]
    taken = sessions(tmp_path / "out")
    assert {len(session) for session in taken} == {4}  # whole or not at all
    assert len(taken) == pytest.approx(250, abs=45)
    assert made.dropped == {"sampled": num - made.num_samples}


def test_duplicates(tmp_path):
    rows = visits([0, 1, 0, 1], event=["x", "y", "x", "z"], n=[1, 2, 1, 2])
    keys = {"user": "member", "timestamp": "at", "sample": "event"}
    made = etl(source(tmp_path, rows, keys), tmp_path / "out", progress=False)["train"]
    assert (made.num_samples, made.dropped) == (3, {"duplicate": 1})
    kept = etl(source(tmp_path, rows, keys, policy={"duplicates": "keep"}), tmp_path / "kept", progress=False)["train"]
    assert (kept.num_samples, kept.dropped) == (4, {"duplicate_kept": 1})
    with pytest.raises(DataError, match=r"1 duplicates in one shard, .* data.policy.duplicates=drop leaves them out"):
        etl(source(tmp_path, rows, keys, policy={"duplicates": "error"}), tmp_path / "no", progress=False)
    without = {"user": "member", "timestamp": "at"}
    made = etl(source(tmp_path, rows, without, drop=["event"]), tmp_path / "equal", progress=False)["train"]
    assert (made.num_samples, made.dropped) == (4, {"duplicate_kept": 2})  # n=1 twice and n=2 twice


def test_duplicates_are_compared_not_only_hashed(tmp_path, monkeypatch):
    rows = visits([0, 0, 0, 0], member=["ann"] * 4, n=[1, 1, 1, 1])
    keys = {"user": "member", "timestamp": "at"}
    drop = {"duplicates": "drop"}
    made = etl(source(tmp_path, rows, keys, policy=drop), tmp_path / "equal", progress=False)["train"]
    assert (made.num_samples, made.dropped) == (1, {"duplicate": 3})
    monkeypatch.setattr(prepare, "order_hash", lambda hashes, content, *_: np.zeros(len(content), np.int64))
    rows["n"] = [1, 1, 1, 2]
    with pytest.raises(DataError, match="two samples of one session and time differ in 'n'"):
        etl(source(tmp_path, rows, keys, policy=drop), tmp_path / "out", progress=False)


def test_clocks_that_are_wrong(tmp_path):
    rows = visits([0, 1, 2, 3])
    rows["at"] = pa.array([0, NOON, NOON + MINUTE, 4_000_000_000_000_000], pa.timestamp("us"))
    keys = {"user": "member", "timestamp": "at"}
    with pytest.raises(
        DataError, match=r"row 0 .* has the time 1970-01-01T00:00:00, outside 1990-01-01T00:00:00 to 20"
    ):
        etl(source(tmp_path, rows, keys), tmp_path / "out", progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["raw.parquet"]
    made = etl(source(tmp_path, rows, keys, policy={"time": "drop"}), tmp_path / "out", progress=False)["train"]
    assert (made.num_samples, made.dropped) == (2, {"time": 2})
    kept = source(tmp_path, rows, keys, policy={"time": "keep", "latest": "2024-01-01"})
    assert etl(kept, tmp_path / "kept", progress=False)["train"].dropped == {"time_kept": 2}
    moved = source(tmp_path, rows, keys, policy={"earliest": "1970-01-01", "latest": "2100-01-01"})
    assert etl(moved, tmp_path / "moved", progress=False)["train"].dropped == {}


def test_a_session_of_very_many_samples_is_cut_and_memory_stays_bounded(tmp_path):
    num = 5000
    rows = {"who": np.zeros(num, np.int64), "at": np.arange(num), "n": np.arange(num), "clicked": np.zeros(num)}
    logs = source(tmp_path, rows, {"session": "who", "timestamp": "at"})
    made = etl(logs, tmp_path / "out", row_group_samples=100, shard_bytes=40_000, progress=False)["train"]
    assert made.dropped == {"session_cut": 1}
    assert max(max(part.samples.row_groups) for part in made.parts) <= 800
    assert len(made.parts) > 3
    assert [n for (n,) in table(tmp_path / "out", "n")] == list(range(num))
    assert Manifest.load(tmp_path / "out" / "train") == made


def test_one_session_per_sample_and_one_sample(tmp_path):
    rows = {"who": np.arange(1000), "at": np.arange(1000), "n": np.arange(1000) % 7, "clicked": np.zeros(1000)}
    logs = source(tmp_path, rows, {"session": "who", "timestamp": "at"}, groups={"g": ["n"]})
    made = etl(logs, tmp_path / "out", progress=False)["train"]
    assert (made.num_sessions, made.features["n"].num_pairs) == (1000, 0)
    one = {name: values[:1] for name, values in rows.items()}
    made = etl(source(tmp_path, one, {"session": "who"}), tmp_path / "one", progress=False)["train"]
    assert (made.num_samples, made.num_sessions) == (1, 1)
