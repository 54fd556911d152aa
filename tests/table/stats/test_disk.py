"""Bytes on disk, and files that are missing or cut off."""

from pathlib import Path

import pytest

from recd_dist.errors import DataError
from recd_dist.table.manifest import Manifest
from recd_dist.table.stats.table_stats import measure_table


def test_raw_files_and_other_splits_are_weighed(table: Path) -> None:
    assert measure_table(table).num_raw_bytes is None
    raw = table.parents[1] / "raw"
    raw.mkdir()
    (raw / "a.parquet").write_bytes(b"x" * 1000)
    (raw / "notes.txt").write_bytes(b"x" * 5)
    stats = measure_table(table)
    assert stats.num_raw_bytes == 1000
    assert stats.num_table_bytes == stats.num_bytes == Manifest.load(table).num_bytes


def test_a_missing_and_a_cut_file_are_named(table: Path) -> None:
    path = table / "history" / "part-00001.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"part-00001\.parquet: not readable as Parquet .*make the table again"):
        measure_table(table)
    path.unlink()
    with pytest.raises(DataError, match=r"part-00001\.parquet: missing"):
        measure_table(table)
