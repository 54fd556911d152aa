"""A table opened once: its partitions, and files that are not as they were written."""

import zlib
from pathlib import Path

import pytest

from recd_dist.errors import ConfigError, DataError
from recd_dist.table.clustered import REMEDY, ClusteredTable
from recd_dist.table.manifest import FileEntry, Manifest, Part
from recd_dist.table.schema import Feature, Kind, Schema

SCHEMA = Schema((Feature("history", Kind.ids, "user", "item"),))
DAYS = ("2026-11-20", "2026-11-21")


@pytest.fixture
def table(tmp_path: Path) -> ClusteredTable:
    """Two parts of two files each, a day each; the bytes of a file are its name."""

    def entry(name: str, rows: int) -> FileEntry:
        path, data = tmp_path / name, name.encode()
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        return FileEntry(name, (rows,), len(data), zlib.crc32(data))

    parts = tuple(
        Part(entry(f"samples/{n}", 8), {"user": entry(f"user/{n}", 2)}, partition=day, number=n)
        for n, day in enumerate(DAYS)
    )
    Manifest("t", "train", SCHEMA, 16, 4, 8, {"user": 4}, {}, {}, parts).save(tmp_path)
    return ClusteredTable.load(tmp_path)


def test_some_partitions_of_a_table(table: ClusteredTable) -> None:
    second = table.of_partitions([DAYS[1]])
    assert second.manifest.num_samples == 8
    assert [entry.path for entry in second.files] == ["samples/1", "user/1"]
    assert second.whole is table
    assert second.of_partitions([DAYS[1]]).whole is table
    assert table.of_partitions(None) is table is table.whole
    with pytest.raises(ConfigError, match=r"t/train has no partition '2026-11-22'; did you mean"):
        table.of_partitions(["2026-11-22"])


def test_files_as_they_were_written(table: ClusteredTable) -> None:
    read = []
    table.check_sizes()
    assert list(table.find_damage(read.append)) == []
    assert sum(read) == table.manifest.num_bytes


def test_a_file_that_was_cut_off(table: ClusteredTable) -> None:
    (table.path / "user/0").write_bytes(b"user")
    problem = "user/0: 4 bytes, 6 were written: the file was cut off or replaced"
    with pytest.raises(DataError, match=f"{problem}; {REMEDY}".replace("...", r"\.\.\.")):
        table.check_sizes()
    assert [str(damage) for damage in table.find_damage()] == [f"{table.path}/{problem}; {REMEDY}"]
    table.check_sizes(table.of_partitions([DAYS[1]]).files)


def test_a_file_that_is_missing(table: ClusteredTable) -> None:
    (table.path / "samples/1").unlink()
    with pytest.raises(DataError, match=r"samples/1: no such file, though the manifest names it; make the table again"):
        table.check_sizes()


def test_a_changed_byte_is_found_by_its_checksum_alone(table: ClusteredTable) -> None:
    (table.path / "user/1").write_bytes(b"user/2")
    table.check_sizes()
    assert [(d.path.name, d.problem.split(" is ")[0]) for d in table.find_damage()] == [("1", "its checksum")]
