"""Yambda's samples look only backwards, lose nothing of the past, and each event is stored once."""

from collections import defaultdict
from dataclasses import asdict
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recd_dist.etl.flow import etl
from recd_dist.etl.source.source import Source
from recd_dist.job.config import EtlConfig, load
from recd_dist.synthetic.event_spec import EventSpec
from recd_dist.synthetic.events import EVENT_TYPES, EVENTS_FILE, generate_events
from recd_dist.table.flat import flat_view
from recd_dist.table.manifest import Manifest

DAY = 86_400
KINDS = {"like": 3, "dislike": 4, "unlike": 5, "undislike": 6}
LISTS = ("item", "action", "time")

Event = tuple[int, int, int]
"""Second, item and action."""


def run_etl(config: str, raw: Path, out: Path, *overrides: str) -> dict[str, Manifest]:
    loaded: EtlConfig = load("etl", [f"data={config}", f"data.path={raw}", "data.source=sql", *overrides])
    return etl(Source.from_dict(asdict(loaded.data)), out, progress=False)


def past_of_users(raw: Path) -> dict[int, list[Event]]:
    """Every event of each user in the order of a history, made without SQL."""
    events = defaultdict(list)
    for row in pq.read_table(raw / EVENTS_FILE).to_pylist():
        kind = KINDS.get(row["event_type"]) or 1 + (row["played_ratio_pct"] >= 50)
        events[row["uid"]].append((row["timestamp"], row["item_id"], kind + 6 * row["is_organic"]))
    return {uid: sorted(of_user) for uid, of_user in events.items()}


def samples(out: Path, lists: tuple[str, ...]) -> list[dict[str, object]]:
    columns = ["uid", "item_id", "is_organic", "timestamp", "listened", *(f"{n}_{x}" for n in lists for x in LISTS)]
    found = []
    for split in ("train", "test"):
        rows = duckdb.sql(f"select {', '.join(columns)} from ({flat_view(out / split)})").fetchall()
        found += [dict(zip(columns, row, strict=True)) | {"split": split} for row in rows]
    return found


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = EventSpec(num_users=4, num_days=4, num_items=40, sessions_per_day=3)
    return generate_events(spec, tmp_path_factory.mktemp("yambda") / "raw")


@pytest.fixture(scope="module", params=["yambda", "yambda_moving"])
def table(request: pytest.FixtureRequest, logs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    out = tmp_path_factory.mktemp("table") / "out"
    run_etl(request.param, logs, out)
    return request.param, out


def test_the_past_of_a_sample_is_every_event_at_an_earlier_second(table: tuple[str, Path], logs: Path) -> None:
    config, out = table
    lists = ("history", "recent") if config == "yambda" else ("history",)
    past, last = past_of_users(logs), max(e[0] for of_user in past_of_users(logs).values() for e in of_user)
    offset = 1_735_689_599 - last  # 2024-12-31 23:59:59
    found = samples(out, lists)
    assert len(found) == sum(e[2] % 6 in (1, 2) for of_user in past.values() for e in of_user)
    ties = 0
    for sample in found:
        second = sample["timestamp"] // 1_000_000 - offset
        before = [e for e in past[sample["uid"]] if e[0] < second]
        ties += sum(e[0] == second for e in past[sample["uid"]]) > 1
        joined = [[x for name in lists for x in sample[f"{name}_{column}"]] for column in LISTS]
        own = [[e[1] for e in before], [e[2] for e in before], [e[0] // 60 for e in before]]
        if config == "yambda":
            assert joined == own
        else:
            assert joined == [column[-500:] for column in own]
        assert sample["split"] == ("test" if second > last - DAY else "train")
    assert ties > 5


def test_equal_times_are_no_past(tmp_path: Path) -> None:
    # a skip, the next track in the same 5 seconds, a like of it there; an hour later another session
    rows = [(10, 0, 1, 1, "listen", 0, 200), (10, 0, 2, 1, "listen", 100, 200), (10, 0, 2, 1, "like", None, None)]
    rows += [
        (10, 205, 3, 0, "listen", 49, 100),
        (10, 4000, 1, 0, "listen", 50, 200),
        (20, 205, 2, 1, "listen", 99, 200),
    ]
    names = ["uid", "timestamp", "item_id", "is_organic", "event_type", "played_ratio_pct", "track_length_seconds"]
    columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
    types = [pa.uint32()] * 3 + [pa.uint8(), pa.string(), pa.uint16(), pa.uint32()]
    arrays = {name: pa.array(columns[name], kind) for name, kind in zip(names, types, strict=True)}
    kind_of = pa.array([EVENT_TYPES.index(kind) for kind in columns["event_type"]], pa.int8())
    arrays["event_type"] = pa.DictionaryArray.from_arrays(kind_of, pa.array(EVENT_TYPES))
    pq.write_table(pa.table(arrays), tmp_path / EVENTS_FILE)
    run_etl("yambda", tmp_path, tmp_path / "out", "data.split=null")
    found = duckdb.sql(
        "select uid, item_id, listened, liked, history_item, recent_item, recent_action, num_plays, num_plays_by_user "
        f"from ({flat_view(tmp_path / 'out' / 'train')}) order by uid, timestamp, item_id"
    ).fetchall()
    assert found == [
        (10, 1, 0, 0, [], [], [], 0, 0),
        (10, 2, 1, 1, [], [], [], 0, 0),
        (10, 3, 0, 0, [], [1, 2, 2], [7, 8, 9], 0, 0),
        (10, 1, 1, 0, [1, 2, 2, 3], [], [], 1, 1),
        (20, 2, 1, 0, [], [], [], 1, 0),
    ]


@pytest.mark.parametrize("config", ["yambda", "yambda_moving"])
def test_each_event_is_stored_once(config: str, logs: Path, tmp_path: Path) -> None:
    made = run_etl(config, logs, tmp_path / "out", "data.partition=null", "data.split=null")["train"]
    num_events = pq.read_metadata(logs / EVENTS_FILE).num_rows
    streams = {}
    for name in ("history", "recent") if config == "yambda" else ("history",):
        files = f"{tmp_path}/out/train/{name}.stream/*.parquet"
        streams[name] = duckdb.sql(
            f"select {', '.join(f'sum(len({name}_{x}))' for x in LISTS)} from '{files}'"
        ).fetchall()[0]
    assert made.features["history_item"].num_values_expanded > 10 * num_events
    for items, actions, times in streams.values():  # equal neighbours may share even more
        assert 0.7 * num_events < items <= num_events
        assert max(actions, times) <= num_events


def test_days_are_partitions_in_order(table: tuple[str, Path]) -> None:
    _, out = table
    days = [part.partition for part in Manifest.load(out / "train").parts]
    assert days == sorted(days)
    assert len(set(days)) >= 3
    assert {part.partition for part in Manifest.load(out / "test").parts} <= {"2024-12-30", "2024-12-31"}
