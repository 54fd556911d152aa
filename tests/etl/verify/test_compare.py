"""The comparison finds nothing in what the ETL wrote, and names the column when one value of one file differs."""

import json
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from rich.console import Console

from recd_dist.errors import ConfigError, DataError
from recd_dist.etl.checksum.row_hashes import row_hashes
from recd_dist.etl.checksum.sample_sums import ROW, sample_checksums
from recd_dist.etl.flow import etl
from recd_dist.etl.place.new_manifests import DROPPED_CHECKSUMS
from recd_dist.etl.source.source import Source
from recd_dist.etl.verify.compare import verify
from recd_dist.etl.verify.verification import Verification
from recd_dist.job.config import load
from recd_dist.synthetic.logs import generate
from recd_dist.synthetic.spec import SyntheticSpec
from recd_dist.table.manifest import Manifest
from recd_dist.table.schema import Kind

ROOT = Path(__file__).parents[3]
SHARED = Path(os.environ.get("RECD_SHARED", ROOT.parent / "shared")) / "data"
ROWS: dict[str, Any] = {
    "session": [2, 1, 2, 1, 1, 3],
    "t": [10, 20, 30, 15, 40, 35],
    "history": [[7, 8], [5], [7, 8, 9], [5], [], [1, None, 2]],
    "device": [1, 0, 1, 0, None, 0],
    "item": [100, 101, 102, 103, 104, 105],
    "price": [0.5, None, 2.5, float("nan"), 4.5, -0.0],
    "user": [5, 6, 5, 6, 6, 7],
    "clicked": [1, 0, 0, 1, 0, 0],
}
USERS = "select * from (values (5, [50, 51], 0.5), (6, null, 1.5)) as t(user, follows, age)"
GROUPS = {"history": ["history"], "request": ["device"], "user": {"sql": USERS, "key": "user"}}


def literal_source(path: Path, rows: dict[str, Any] = ROWS, **options: Any) -> Source:
    pq.write_table(pa.table(rows), path / "raw.parquet")
    described = {"path": str(path / "raw.parquet"), "keys": {"session": "session", "timestamp": "t"}}
    return Source.from_dict(described | {"labels": ["clicked"], "groups": GROUPS} | options)


def render(found: Verification) -> str:
    console = Console(width=200)
    with console.capture() as capture:
        console.print(found.render())
    return capture.get()


def write_table(path: Path, **options: Any) -> Source:
    source = literal_source(path, **options)
    etl(source, path / "out", progress=False, shard_bytes=150)
    return source


def test_a_table_of_literals_is_its_source(tmp_path: Path) -> None:
    found = verify(write_table(tmp_path), tmp_path / "out", progress=False)

    assert found.equal
    assert found.num_samples == {"train": (6, 6)}
    # session, time, label; history, device, item, price; the user's two
    assert render(found) == "9 columns of 6 samples equal\n"
    columns = {c.column: c for c in found.columns}
    assert set(columns) == {"session_id", "timestamp", "clicked", "follows", "age", "history", "device", *REST}
    items = row_hashes(pa.array(ROWS["item"]), Kind.id)
    assert columns["item"].source == columns["item"].table == int(items.sum(dtype=np.uint64))
    follows = row_hashes(pa.array([[50, 51], [], [50, 51], [], [], []]), Kind.ids)  # user 7 has no row
    assert columns["follows"].source == int(follows.sum(dtype=np.uint64))
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".verify")]


REST = ("item", "price", ROW)


@pytest.mark.parametrize("split", ["t > 30", 0.5])
def test_splits_are_compared_one_by_one(tmp_path: Path, split: Any) -> None:
    found = verify(write_table(tmp_path, split=split), tmp_path / "out", progress=False)
    assert found.equal
    assert set(found.num_samples) == {"train", "test"}
    assert sum(count for _, count in found.num_samples.values()) == 6

    if split == 0.5:  # the table says which sessions are the test split's
        return
    other = verify(literal_source(tmp_path, split="t > 20"), tmp_path / "out", progress=False)
    assert not other.equal
    assert "4 samples instead of 3 in train, 2 samples instead of 3 in test" in render(other)
    assert other.example == "samples lie in another split than the source says"


def test_automatic_groups_and_a_source_without_keys(tmp_path: Path) -> None:
    source = write_table(tmp_path, keys={}, groups=None, drop=["user", "session"])
    found = verify(source, tmp_path / "out", progress=False)
    assert found.equal
    assert {c.column for c in found.columns} == {"t", "history", "device", "item", "price", "clicked", ROW}


Change = Callable[[pa.Table], pa.Table]


def rewrite(table: Path, directory: str, change: Change) -> None:
    """Writes one file of a table again with other contents, like a damaged or stale file."""
    file = sorted((table / directory).glob("*.parquet"))[0]
    rows = change(pq.read_table(file))
    pq.write_table(rows, file)


def set_value(column: str, row: int, value: Any) -> Change:
    def change(rows: pa.Table) -> pa.Table:
        values = rows[column].to_pylist()
        values[row] = value(values[row])
        place = rows.column_names.index(column)
        return rows.set_column(place, rows.schema.field(place), pa.array(values, rows.schema.field(place).type))

    return change


@pytest.mark.parametrize(
    ("directory", "column", "value", "example"),
    [
        ("samples", "item", lambda v: v + 1, "session_id 1, timestamp 15: item is 103 in the source, 104 in the table"),
        ("samples", "price", lambda v: -0.0, "price is nan in the source, -0.0 in the table"),
        ("samples", "clicked", lambda v: 0.0, "clicked is 1.0 in the source, 0.0 in the table"),
        ("samples", "timestamp", lambda v: v - 1, "session_id 1, timestamp 15 (clicked 1.0): only in the source"),
        ("samples", "session_id", lambda v: 9, ", timestamp 15 (clicked 1.0): only in the "),
        ("history", "history", lambda v: [4], "history is [5] in the source, [4] in the table"),
        ("request", "device", lambda v: [], "device is 0 in the source, [] in the table"),
        ("user", "follows", lambda v: [6], "follows is None in the source, [6] in the table"),
    ],
)
def test_one_altered_value_is_found_and_named(
    tmp_path: Path, directory: str, column: str, value: Any, example: str
) -> None:
    source = literal_source(tmp_path)
    etl(source, tmp_path / "out", progress=False)
    rewrite(tmp_path / "out" / "train", directory, set_value(column, 0, value))

    found = verify(source, tmp_path / "out", progress=False)

    assert not found.equal
    assert found.differing_columns == (column,)
    assert example in found.example
    assert "table and source differ: 1 of 9 columns\n" in render(found)
    assert example in render(found)
    plain = json.loads(json.dumps(found.to_json()))
    assert [c["column"] for c in plain["columns"] if not c["equal"]] == [column, ROW]
    assert plain["num_samples"] == {"train": {"source": 6, "table": 6}}


@pytest.mark.parametrize("directory", ["samples", "history"])
def test_a_missing_row_is_found(tmp_path: Path, directory: str) -> None:
    source = literal_source(tmp_path)
    etl(source, tmp_path / "out", progress=False)
    rewrite(tmp_path / "out" / "train", directory, lambda rows: rows.slice(1))

    found = verify(source, tmp_path / "out", progress=False)

    missing = {"samples": 1, "history": 2}[directory]  # two samples share the first history
    assert not found.equal
    assert found.num_samples == {"train": (6, 6 - missing)}
    assert f"{6 - missing} samples instead of 6 in train" in render(found)
    assert "for example session_id 1, timestamp" in found.example
    assert found.example.endswith("only in the source")


def test_a_repeated_row_is_found(tmp_path: Path) -> None:
    source = literal_source(tmp_path)
    etl(source, tmp_path / "out", progress=False)
    rewrite(tmp_path / "out" / "train", "samples", lambda rows: pa.concat_tables([rows, rows.slice(5)]))

    found = verify(source, tmp_path / "out", progress=False)

    assert found.num_samples == {"train": (6, 7)}
    assert "session_id 3, timestamp 35 (clicked 0.0): only in the table" in render(found)


def test_two_swapped_values_are_found_though_every_column_has_the_same_ones(tmp_path: Path) -> None:
    source = literal_source(tmp_path)
    etl(source, tmp_path / "out", progress=False)

    def swap(rows: pa.Table) -> pa.Table:
        place = rows.column_names.index("item")
        values = rows["item"].to_pylist()
        values[0], values[5] = values[5], values[0]  # of sessions 1 and 3
        return rows.set_column(place, rows.schema.field(place), pa.array(values, pa.int32()))

    rewrite(tmp_path / "out" / "train", "samples", swap)

    found = verify(source, tmp_path / "out", progress=False)

    assert not found.equal
    assert found.differing_columns == ()
    text = render(found)
    assert "table and source differ: every column holds the same values, but not in the same samples" in text
    assert "item is 103 in the source, 105 in the table" in text or "item is 105 in the source" in text


def dropped_checksums(rows: list[int]) -> dict[str, int]:
    """The checksums that the ETL notes of some of the literal rows."""
    taken = {name: [values[row] for row in rows] for name, values in ROWS.items()}
    hashes = {"session_id": row_hashes(pa.array(taken["session"]), Kind.id)}
    hashes["timestamp"] = row_hashes(pa.array(taken["t"]), Kind.id)
    hashes["clicked"] = row_hashes(pa.array(taken["clicked"], pa.float32()), Kind.dense)
    hashes["price"] = row_hashes(pa.array(taken["price"], pa.float32()), Kind.dense)
    for name in ("history", "device", "item"):
        hashes[name] = row_hashes(pa.array(taken[name]), Kind.ids)
    users = {5: ([50, 51], 0.5), 6: ([], 1.5), 7: ([], 0.0)}
    hashes["follows"] = row_hashes(pa.array([users[u][0] for u in taken["user"]], pa.list_(pa.int64())), Kind.ids)
    hashes["age"] = row_hashes(pa.array([users[u][1] for u in taken["user"]], pa.float32()), Kind.dense)
    return sample_checksums(hashes, {"user": ("follows", "age")})


def note_dropped(table: Path, dropped: dict[str, int], checksums: dict[str, dict[str, int]]) -> None:
    manifest = Manifest.load(table)
    replace(manifest, dropped=dropped, source=manifest.source | {DROPPED_CHECKSUMS: checksums}).save(table)


def test_what_policies_left_out_is_added_to_the_table(tmp_path: Path) -> None:
    write_table(tmp_path, samples="select * from '{path}' where t not in (20, 30)", split="t = 40")
    whole = literal_source(tmp_path, split="t = 40")
    table = tmp_path / "out" / "train"
    counts = {"duplicate": 1, "time": 1, "late_kept": 3, "session_cut": 1}

    assert verify(whole, tmp_path / "out", progress=False).num_samples["train"] == (5, 3)
    note_dropped(table, counts, {"duplicate": dropped_checksums([1]), "time": dropped_checksums([2])})
    found = verify(whole, tmp_path / "out", progress=False)
    assert found.equal
    assert found.num_samples == {"": (4, 4)}  # of both splits together
    assert render(found) == "9 columns of 4 samples equal; 2 left out, as noted in the manifest\n"

    another = {"duplicate": dropped_checksums([1]), "time": dropped_checksums([0])}  # row 2 was left out, not row 0
    note_dropped(table, counts, another)
    wrong = verify(whole, tmp_path / "out", progress=False)
    assert not wrong.equal
    assert {"item", "timestamp"} <= set(wrong.differing_columns)

    only_labels = {
        reason: {"clicked": dropped_checksums([row])["clicked"]} for reason, row in (("duplicate", 1), ("time", 2))
    }
    note_dropped(table, counts, only_labels)
    part = verify(whole, tmp_path / "out", progress=False)
    assert part.equal
    assert [c.column for c in part.columns] == ["clicked"]
    assert "not compared: session_id, timestamp, history" in render(part)

    note_dropped(table, counts, {"duplicate": dropped_checksums([1])})
    with pytest.raises(DataError, match=r"leaves out 1 samples \(time\) and has no checksums"):
        verify(whole, tmp_path / "out", progress=False)


def test_another_description_is_refused_by_name(tmp_path: Path) -> None:
    write_table(tmp_path)
    changed = literal_source(tmp_path, samples="select * exclude item, item as itme from '{path}'")
    with pytest.raises(DataError) as caught:
        verify(changed, tmp_path / "out", progress=False)
    assert "feature 'item' is in the table, not in the source; did you mean 'itme'?" in str(caught.value)
    assert "feature 'itme' is in the source, not in the table" in str(caught.value)
    dense = literal_source(tmp_path, features={"item": {"kind": "dense"}})
    with pytest.raises(DataError, match="feature 'item' is dense in the source and id in the table"):
        verify(dense, tmp_path / "out", progress=False)
    with pytest.raises(DataError, match="no clustered table here"):
        verify(dense, tmp_path / "nothing", progress=False)


def test_a_file_that_is_cut_off_is_named(tmp_path: Path) -> None:
    source = write_table(tmp_path)
    file = sorted((tmp_path / "out" / "train" / "samples").glob("*.parquet"))[0]
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(DataError, match="part-00000"):
        verify(source, tmp_path / "out", progress=False)


def shipped_source(name: str, path: Path, **options: Any) -> Source:
    described = yaml.safe_load((ROOT / "configs" / "data" / f"{name}.yaml").read_text())
    return Source.from_dict(described | {"path": str(path)} | options)


def test_a_synthetic_source_passes(tmp_path: Path) -> None:
    data = load("etl", ["data=tiny", "data.synthetic.num_samples=2000"]).data
    generate(SyntheticSpec.from_dict(data.synthetic), tmp_path / "raw", progress=False)
    source = Source.from_dict(asdict(data) | {"path": str(tmp_path / "raw")})
    etl(source, tmp_path / "out", progress=False, shard_bytes=100_000, row_group_samples=200)
    assert len(Manifest.load(tmp_path / "out" / "train").parts) > 2
    found = verify(source, tmp_path / "out", progress=False)
    assert found.equal
    assert sum(count for _, count in found.num_samples.values()) == 2000


@pytest.mark.skipif(not (SHARED / "ebnerd_small").is_dir(), reason="no shared data")
def test_ebnerd_with_groups_of_their_own_passes(tmp_path: Path) -> None:
    source = shipped_source("ebnerd", SHARED / "ebnerd_small")
    etl(source, tmp_path / "out", progress=False)
    found = verify(source, tmp_path / "out", progress=False)
    assert found.equal
    assert sum(count for _, count in found.num_samples.values()) == 10_848
    rewrite(tmp_path / "out" / "test", "history", set_value("history_scroll", 1, lambda ids: ids[::-1]))
    changed = verify(source, tmp_path / "out", progress=False)
    assert changed.differing_columns == ("history_scroll",)
    assert {c.split for c in changed.columns if not c.equal} == {"test"}


@pytest.mark.skipif(not (SHARED / "expedia").is_dir(), reason="no shared data")
def test_expedia_passes(tmp_path: Path) -> None:
    source = shipped_source("expedia", SHARED / "expedia" / "train.csv")
    etl(source, tmp_path / "out", progress=False)
    found = verify(source, tmp_path / "out", progress=False)
    assert found.equal
    assert sum(count for _, count in found.num_samples.values()) == 5058


def test_the_bar_is_on_stderr_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    verify(write_table(tmp_path), tmp_path / "out")
    assert capsys.readouterr().out == ""


def test_memory_that_is_no_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="memory_limit=much"):
        verify(write_table(tmp_path), tmp_path / "out", memory_limit="much", progress=False)


def test_duckdb_reads_the_same_part_as_the_whole(tmp_path: Path) -> None:
    from recd_dist.table.flat import flat_view

    write_table(tmp_path)
    table = tmp_path / "out" / "train"
    parts = Manifest.load(table).parts
    assert len(parts) > 1
    pieces = [row for part in parts for row in duckdb.sql(flat_view(table, parts=[part])).fetchall()]
    assert sorted(pieces) == sorted(duckdb.sql(flat_view(table)).fetchall())
