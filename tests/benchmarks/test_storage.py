"""The benchmark of sizes, on logs too small to claim anything about sizes, and its parts on literals."""

import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recd_dist.table.schema import Feature, Kind, Schema

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def beside_the_scripts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The scripts import each other by name; after a test these names are free again."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if Path(getattr(sys.modules[name], "__file__", None) or "/").parent == BENCHMARKS:
            del sys.modules[name]


def script(name: str) -> ModuleType:
    return importlib.import_module(name)


def test_every_claim_is_measured_and_every_form_holds_the_same_samples(tmp_path: Path) -> None:
    json_file, data = tmp_path / "found.json", tmp_path / "data"
    command = [sys.executable, str(BENCHMARKS / "storage.py"), "--data", "tiny", "--samples", "3000"]

    shown = subprocess.run(
        [*command, "--dir", str(data), "--json", str(json_file), "--markdown"],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )

    assert shown.returncode == 0, shown.stderr
    found = {result["claim"]: result for result in json.loads(json_file.read_text())}
    sizes = {
        "storage.zstd",
        "storage.lz4",
        "storage.history",
        "storage.lists",
        "storage.defaults",
        "storage.defaults.duckdb",
    }
    assert set(found) == {*sizes, "storage.logs"}
    for claim in sizes:
        one = found[claim]
        assert one["low"] == one["value"] == one["high"]
        assert one["value"] == pytest.approx(one["baseline_MB"] / one["ours_MB"], rel=0.2)
    assert found["storage.lz4"]["baseline_MB"] == found["storage.zstd"]["baseline_MB"]
    assert found["storage.defaults"]["value"] > found["storage.zstd"]["value"]
    assert found["storage.logs"]["low"] > 1
    assert "| flat, in time order, each column's best of four | " in shown.stdout
    assert "| json | 16 | 1 | " in shown.stdout
    assert [path.name for path in data.iterdir()] == ["raw"]  # tables and flat files are gone, the logs stay


SCHEMA = Schema((Feature("item", Kind.id, table="item"), Feature("ids", Kind.ids, table="item")), ("label",))


def rows(start: int, num: int) -> pa.Table:
    numbers = np.arange(start, start + num)
    table = {"session_id": numbers, "label": numbers.astype(np.float32), "item": numbers.astype(np.int32)}
    return pa.table(table | {"ids": pa.array([[int(n)] * 3 for n in numbers], pa.list_(pa.int32()))})


def test_a_flat_file_is_measured_and_what_is_in_it_is_read_back(tmp_path: Path) -> None:
    flat = script("storage_flat")
    whole = flat.write_flat(iter([rows(0, 100), rows(100, 20)]), SCHEMA, tmp_path)
    assert whole.num_rows == 120
    assert set(whole.columns) == {"session_id", "label", "item", "ids"}
    assert sum(whole.columns.values()) < whole.num_bytes
    assert list(tmp_path.iterdir()) == []

    turned = flat.write_flat(iter([rows(100, 20), rows(0, 100)]), SCHEMA, tmp_path, encoding="DELTA_BINARY_PACKED")
    assert turned.checksums == whole.checksums  # in any order, encoding and row groups
    other = flat.write_flat(iter([rows(0, 100), rows(101, 20)]), SCHEMA, tmp_path)
    assert all(other.checksums[name] != value for name, value in whole.checksums.items())


def test_a_form_that_is_not_the_source_ends_the_run(tmp_path: Path) -> None:
    flat, storage = script("storage_flat"), script("storage")
    one = flat.write_flat(iter([rows(0, 10)]), SCHEMA, tmp_path)
    storage.check({"flat": one}, one.checksums, 10)
    with pytest.raises(SystemExit, match=r"flat: not the source: 10 rows, columns \['item'\]"):
        storage.check({"flat": one}, one.checksums | {"item": 0}, 10)
    with pytest.raises(SystemExit, match="10 rows"):
        storage.check({"flat": one}, one.checksums, 11)


def test_logs_out_of_order_are_refused(tmp_path: Path) -> None:
    flat, rm1 = script("storage_flat"), script("rm1")
    times = pa.array([3, 2, 5], pa.timestamp("us"))
    pq.write_table(pa.table({"session_id": [1, 2, 3], "timestamp": times}), tmp_path / "part-00000.parquet")
    raw = rm1.Raw([], None, tmp_path, 3, 0, 0)
    with pytest.raises(SystemExit, match="not in time order"):
        list(flat.in_time_order(raw))


def test_messages_keep_their_order_in_a_shard_and_none_is_lost() -> None:
    logs = script("storage_logs")
    lines = pa.record_batch([pa.array([f"{i}\n" for i in range(10)])], ["line"])
    blocks: list[bytes] = []

    class Codec:
        def compress(self, block: pa.Buffer) -> bytes:
            blocks.append(block.to_pybytes())
            return b"x"

    logs.CODEC = Codec()
    shards = logs.Shards(2, 1 << 20)
    shard = np.array([0, 1, 0, 1, 0, 0, 0, 1, 1, 1])
    order = np.argsort(shard, kind="stable")
    shards.add(lines.take(pa.array(order)), np.array([0, 5, 10]))
    shards.close()
    assert blocks == [b"0\n2\n4\n5\n6\n", b"1\n3\n7\n8\n9\n"]
    assert (shards.num_bytes, shards.plain_bytes) == (2, 20)

    small = logs.Shards(1, 16)  # blocks are closed when full
    small.add(lines, np.array([0, 10]))
    small.close()
    assert b"".join(blocks[2:]) == b"".join(f"{i}\n".encode() for i in range(10))
    assert len(blocks) > 4


def test_a_session_has_one_shard_and_shards_are_alike() -> None:
    logs = script("storage_logs")
    sessions = np.arange(10_000, dtype=np.int64)
    shard = logs.by_session(sessions, 16)
    assert (shard == logs.by_session(sessions, 16)).all()
    counts = np.bincount(shard, minlength=16)
    assert len(counts) == 16
    assert counts.min() > 500
