"""Adding to a table: days come one after the other, late ones too; drift is refused; small parts are merged."""

from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recd_dist.errors import ConfigError, DataError
from recd_dist.etl.compaction import compact
from recd_dist.etl.etl_run import Options
from recd_dist.etl.flow import etl
from recd_dist.etl.source.source import Source
from recd_dist.table.flat import flat_view
from recd_dist.table.manifest import Manifest

DAY = 24 * 60 * 60 * 1_000_000
START = 20_000 * DAY  # 2024-10-04


def rows(days: list[int], first: int = 0, big: bool = False) -> dict[str, object]:
    """Ten samples of five sessions a day."""
    day = [d for d in days for _ in range(10)]
    number = list(range(first, first + len(day)))
    session = [d * 100 + n % 10 // 2 for d, n in zip(day, number, strict=True)]
    return {
        "session": session,
        "t": pa.array([START + d * DAY + n for d, n in zip(day, number, strict=True)], pa.timestamp("us")),
        "history": [[s, s + 1 + (2**40 if big else 0)] for s in session],
        "item": number,
        "price": [float(n) for n in number],
        "clicked": [n % 3 == 0 for n in number],
    }


def source(path: Path, days: list[int], first: int = 0, **options: object) -> Source:
    file = path / f"raw-{'-'.join(map(str, days))}-{first}.parquet"
    pq.write_table(pa.table(rows(days, first, bool(options.pop("big", False)))), file)
    keys = {"session": "session", "timestamp": "t"}
    given = {"name": "shop", "path": str(file), "keys": keys, "labels": ["clicked"], "partition": "day"}
    return Source.from_dict(given | {"groups": {"user": ["history"]}} | options)


def flat(out: Path, split: str = "train", columns: str = "*") -> list[tuple[object, ...]]:
    return duckdb.sql(f"select {columns} from ({flat_view(out / split)}) order by item").fetchall()


def names(path: Path) -> set[str]:
    return {p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file()}


def test_days_one_by_one_are_the_table_of_all_days(tmp_path):
    whole = etl(source(tmp_path, [0, 1, 2]), tmp_path / "whole", progress=False)["train"]
    etl(source(tmp_path, [0]), tmp_path / "out", append=True, progress=False)
    etl(source(tmp_path, [1], 10), tmp_path / "out", append=True, progress=False)
    made = etl(source(tmp_path, [2], 20), tmp_path / "out", append=True, progress=False)["train"]
    assert made.partitions == whole.partitions == ("2024-10-04", "2024-10-05", "2024-10-06")
    assert made == Manifest.load(tmp_path / "out" / "train")
    assert [(p.partition, p.number, p.first_sample) for p in made.parts] == [
        (p.partition, p.number, p.first_sample) for p in whole.parts
    ]
    named = "session_id, timestamp, clicked, history, item, price"
    assert flat(tmp_path / "out", columns=named) == flat(tmp_path / "whole", columns=named)
    for field in ("num_samples", "num_sessions", "num_requests", "group_rows", "ids", "features"):
        assert getattr(made, field) == getattr(whole, field), field
    assert made.features["price"].mean == 14.5
    assert len(made.runs) == 3
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_the_same_append_again_changes_nothing(tmp_path, caplog):
    caplog.set_level("INFO")
    logs = source(tmp_path, [0])
    made = etl(logs, tmp_path / "out", append=True, progress=False)
    again = etl(logs, tmp_path / "out", append=True, progress=False)
    assert made == again
    assert len(flat(tmp_path / "out")) == 10
    assert "this run is in the table already" in caplog.text


def test_late_samples(tmp_path):
    etl(source(tmp_path, [0, 1]), tmp_path / "out", progress=False)
    late = source(tmp_path, [1, 2], 100)
    with pytest.raises(DataError, match=r"partition 2024-10-05 is in the table already.*replace=\[2024-10-05\]"):
        etl(late, tmp_path / "out", append=True, progress=False)
    assert len(flat(tmp_path / "out")) == 20
    dropped = source(tmp_path, [1, 2], 100, policy={"late": "drop"})
    made = etl(dropped, tmp_path / "out", append=True, progress=False)["train"]
    assert (made.num_samples, made.dropped) == (30, {"late": 10})
    kept = source(tmp_path, [1], 200, policy={"late": "keep"})
    made = etl(kept, tmp_path / "out", append=True, progress=False)["train"]
    assert (made.num_samples, made.dropped) == (40, {"late": 10, "late_kept": 10})
    assert len([p for p in made.parts if p.partition == "2024-10-05"]) == 2


def test_a_partition_is_replaced(tmp_path):
    etl(source(tmp_path, [0, 1, 2]), tmp_path / "out", progress=False)
    before = names(tmp_path / "out")
    again = source(tmp_path, [1, 3], 500)
    made = etl(again, tmp_path / "out", append=True, replace=["2024-10-05"], progress=False)["train"]
    assert [p.partition for p in made.parts] == ["2024-10-04", "2024-10-06", "2024-10-05", "2024-10-07"]
    assert [p.number for p in made.parts] == [0, 2, 3, 4]  # numbers are never given twice
    assert [row[0] for row in flat(tmp_path / "out", columns="item")] == [
        *range(10),
        *range(20, 30),
        *range(500, 520),
    ]
    assert made.features["price"].mean == (sum(range(10)) + sum(range(20, 30)) + sum(range(500, 520))) / 40
    gone = before - names(tmp_path / "out")
    assert gone == {"train/samples/part-00001.parquet", "train/user/part-00001.parquet"}
    with pytest.raises(ConfigError, match=r"replace=\['x'\]: only partitions of a table that is added to"):
        etl(again, tmp_path / "out", replace=["x"], progress=False)


def test_wider_ids_of_a_later_day(tmp_path):
    etl(source(tmp_path, [0]), tmp_path / "out", progress=False)
    made = etl(source(tmp_path, [1], 10, big=True), tmp_path / "out", append=True, progress=False)["train"]
    types = [pq.read_schema(tmp_path / "out/train" / p.groups["user"].path).field("history").type for p in made.parts]
    assert [t.value_type for t in types] == [pa.int32(), pa.int64()]
    assert flat(tmp_path / "out", columns="history")[10] == ([100, 101 + 2**40],)
    assert made.ids["history"].max_id == 104 + 1 + 2**40


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": "select *, 1 as extra from '{path}'"}, "feature 'extra' is new"),
        ({"drop": ["item"]}, "feature 'item' is gone"),
        (
            {"samples": "select * replace (history[1] as history) from '{path}'"},
            "'history': its kind was ids, is now id",
        ),
        ({"features": {"item": {"table": "goods"}}}, "feature 'item': its table was item, is now goods"),
        ({"features": {"history": {"window": True}}}, "feature 'history': its window was False, is now True"),
        ({"groups": {}}, "feature 'history': its group was user, is now sample"),
        ({"partition": "hour"}, "data.partition was 'day', is now 'hour'"),
        ({"keys": {"user": "session", "timestamp": "t"}}, "a session was 'samples of one session"),
        (
            {"samples": "select * replace (nullif(item, 3) as item) from '{path}'"},
            "'item' is missing in some of the new",
        ),
    ],
)
def test_what_does_not_fit_the_table(tmp_path, options, message):
    etl(source(tmp_path, [0]), tmp_path / "out", progress=False)
    before = {name: (tmp_path / "out" / name).read_bytes() for name in names(tmp_path / "out")}
    first = 0 if "nullif" in str(options) else 10
    with pytest.raises(DataError, match=message):
        etl(source(tmp_path, [1], first, **options), tmp_path / "out", append=True, progress=False)
    assert {name: (tmp_path / "out" / name).read_bytes() for name in names(tmp_path / "out")} == before


def test_a_day_may_have_no_sample_in_a_split_but_must_have_some(tmp_path):
    split = {"split": "item % 2 = 1 and item < 10"}
    etl(source(tmp_path, [0], **split), tmp_path / "out", progress=False)
    made = etl(source(tmp_path, [1], 10, **split), tmp_path / "out", append=True, progress=False)
    assert (made["train"].num_samples, made["test"].num_samples) == (15, 5)
    late = source(tmp_path, [1], 20, policy={"late": "drop"}, **split)
    with pytest.raises(DataError, match="no sample is left: the policies leave out every one"):
        etl(late, tmp_path / "out", append=True, progress=False)


def test_splits_must_stay(tmp_path):
    etl(source(tmp_path, [0], split="item % 2 = 1"), tmp_path / "out", progress=False)
    with pytest.raises(ConfigError, match="holds train, test, the source now has train"):
        etl(source(tmp_path, [1], 10), tmp_path / "out", append=True, progress=False)
    etl(source(tmp_path, [1], 10, split="item % 2 = 1"), tmp_path / "out", append=True, progress=False)
    assert [row[0] for row in flat(tmp_path / "out", "test", "item")] == list(range(1, 20, 2))


def test_compaction_merges_small_parts_and_broken_sessions(tmp_path):
    out = tmp_path / "out"
    etl(source(tmp_path, [0], 0), out, progress=False)
    for first in (10, 20):
        etl(source(tmp_path, [0], first, policy={"late": "keep"}), out, append=True, progress=False)
    before = Manifest.load(out / "train")
    assert (before.num_sessions, before.group_rows) == (15, {"user": 15})  # five sessions, in three pieces each
    held = flat(out, columns="session_id, timestamp, clicked, history, item, price")
    now = compact(out, Options(), progress=False)["train"]
    assert (len(now.parts), now.num_sessions, now.group_rows) == (1, 5, {"user": 5})
    assert flat(out, columns="session_id, timestamp, clicked, history, item, price") == held
    assert (now.parts[0].number, now.next_part, now.dropped) == (3, 4, before.dropped)
    assert (now.source, now.sessions, now.ids) == (before.source, before.sessions, before.ids)
    assert names(out / "train" / "samples") == {"part-00003.parquet"}
    assert compact(out, Options(), progress=False)["train"] == now


def test_compaction_keeps_partitions_and_splits_apart(tmp_path):
    out = tmp_path / "out"
    split = {"split": "item % 2 = 1", "policy": {"late": "keep"}}
    etl(source(tmp_path, [0, 1], 0, **split), out, progress=False)
    etl(source(tmp_path, [1, 2], 20, **split), out, append=True, progress=False)
    held = {name: flat(out, name, "item, history") for name in ("train", "test")}
    made = compact(out, Options(), progress=False)
    for name, manifest in made.items():
        assert sorted(p.partition for p in manifest.parts) == ["2024-10-04", "2024-10-05", "2024-10-06"]
        assert flat(out, name, "item, history") == held[name]


def encodings(out: Path) -> set[str]:
    files = [pq.ParquetFile(path).metadata for path in out.rglob("part-*.parquet")]
    columns = [f.row_group(g).column(c) for f in files for g in range(f.num_row_groups) for c in range(f.num_columns)]
    return {encoding for column in columns for encoding in column.encodings}


def test_a_table_readable_by_any_never_has_the_encoding_that_old_engines_lack(tmp_path: Path) -> None:
    out, newest = tmp_path / "any", tmp_path / "newest"
    etl(source(tmp_path, [1]), newest, progress=False)
    assert "BYTE_STREAM_SPLIT" in encodings(newest)

    etl(source(tmp_path, [1], readable_by="any"), out, progress=False)
    late = {"policy": {"late": "keep"}}
    etl(source(tmp_path, [1], first=10, **late), out, append=True, progress=False)  # keeps to it
    assert len(list(out.rglob("samples/part-*.parquet"))) == 2
    assert "BYTE_STREAM_SPLIT" not in encodings(out)
    compact(out, Options(), progress=False)
    assert len(list(out.rglob("samples/part-*.parquet"))) == 1
    assert "BYTE_STREAM_SPLIT" not in encodings(out)

    with pytest.raises(DataError, match=r"data\.readable_by was 'newest', is now 'any'"):
        etl(source(tmp_path, [1], first=10, readable_by="any", **late), newest, append=True, progress=False)
