"""Files are looked into once, and opened again as often as that takes."""

import os
from pathlib import Path

import pytest
from tests.reader.test_windows_to_reader import logs, source

from recd_dist.errors import DataError
from recd_dist.etl.flow import etl
from recd_dist.reader import chunked_row_groups, table_files
from recd_dist.reader.order import RowGroup
from recd_dist.reader.table_files import TableFiles
from recd_dist.table.clustered import ClusteredTable


@pytest.fixture
def table(tmp_path) -> ClusteredTable:
    """A table as the ETL writes one, of several parts with several row groups each."""
    etl(source(tmp_path, logs(120)), tmp_path / "table", row_group_samples=20, shard_bytes=20_000, progress=False)
    return ClusteredTable.load(tmp_path / "table/train")


@pytest.fixture
def opened(monkeypatch) -> list[str]:
    """The files that are looked into, in a reader that keeps few of them open."""
    seen: list[str] = []
    row_group_file = table_files.RowGroupFile

    def look(path: Path) -> table_files.RowGroupFile:
        seen.append(str(path))
        return row_group_file(path)

    monkeypatch.setattr(table_files, "RowGroupFile", look)
    for module in (table_files, chunked_row_groups):
        monkeypatch.setattr(module, "_MAX_OPEN_FILES", 1)
    return seen


def read_all(files: TableFiles) -> list[int]:
    """The samples of all row groups, read by turns from all parts."""
    sizes = {n: part.samples.row_groups for n, part in enumerate(files.table.manifest.parts)}
    places = sorted((index, part) for part, groups in sizes.items() for index in range(len(groups)))
    read = [files.read(RowGroup(part, index, sizes[part][index])) for index, part in places]
    return sorted(number for row_group in read for number in row_group.sample_ids.tolist())


def test_a_table_of_many_parts_is_looked_into_once(table, opened) -> None:
    files = TableFiles(table)
    every = list(range(table.manifest.num_samples))
    assert read_all(files) == read_all(files) == every
    assert len(opened) == len(set(opened)) > 5
    left = [path for path in Path("/proc/self/fd").iterdir() if str(table.path) in os.path.realpath(path)]
    assert 0 < len(left) < 8


def test_few_parts_are_known(table, opened, monkeypatch) -> None:
    monkeypatch.setattr(chunked_row_groups, "_MAX_PARTS", 2)
    files = TableFiles(table)
    assert read_all(files) == read_all(files) == list(range(table.manifest.num_samples))
    assert len(opened) > len(set(opened))


def test_a_file_that_was_written_anew_is_looked_into_anew(table, opened) -> None:
    files = TableFiles(table)
    every = read_all(files)
    path, known = table.path / "samples/part-00000.parquet", len(opened)
    path.write_bytes(path.read_bytes())
    os.utime(path, (1, 1))
    assert read_all(files) == every
    assert str(path) in opened[known:]
    path.write_bytes((table.path / "samples/part-00001.parquet").read_bytes())
    with pytest.raises(DataError, match="part-00000"):
        read_all(files)
    path.unlink()
    with pytest.raises(DataError, match="part-00000"):
        read_all(files)
