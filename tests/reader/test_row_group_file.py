"""The bytes of a row group are fetched before they are decoded: the same columns, and nothing left in memory."""

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from upath import UPath

from recd_dist.reader.row_group_file import RowGroupFile
from recd_dist.reader.stages import Stopwatch

NAMES = ("a", "b", "lists", "text")


@pytest.fixture(params=["none", "zstd", "lz4"])
def file(request, tmp_path) -> tuple[Path, pa.Table]:
    rng = np.random.default_rng(0)
    num = 30_000
    lists = [rng.integers(0, 99, rng.integers(0, 5)).tolist() for _ in range(num)]
    table = pa.table(
        {
            "a": pa.array(rng.integers(0, 2**40, num)),
            "b": pa.array(rng.random(num, np.float32)),
            "lists": pa.array(lists, pa.list_(pa.int32())),
            "text": pa.array([str(i % 7) for i in range(num)]),
        }
    )
    path = tmp_path / "x.parquet"
    pq.write_table(table, path, row_group_size=10_000, compression=request.param, use_dictionary=["text"])
    return path, table


@pytest.mark.parametrize("names", [NAMES, ("b",), ("a", "text"), ("text", "a"), ()])
def test_columns_are_those_of_pyarrow_also_after_their_bytes_are_gone(file, names) -> None:
    """pyarrow copies what it decodes; were it to refer to the bytes, zeros would stand here."""
    path, _ = file
    opened, wanted = RowGroupFile(path), pq.ParquetFile(path)
    found = [opened.read(index, names) for index in (2, 0, 1, 0)]
    assert found == [wanted.read_row_group(index, columns=list(names)) for index in (2, 0, 1, 0)]
    assert not np.frombuffer(opened._view, np.uint8).any()
    opened.close()


def test_a_store_is_read_in_the_same_way(file) -> None:
    path, table = file
    remote = UPath("memory://row_group_file/x.parquet")
    remote.write_bytes(path.read_bytes())
    opened = RowGroupFile(remote)
    assert opened.read(1, NAMES) == table.slice(10_000, 10_000)
    opened.close()


def test_bytes_and_decoding_are_told_apart(file) -> None:
    stopwatch = Stopwatch()
    opened = RowGroupFile(file[0])
    stopwatch.timed("convert", opened.read)(0, NAMES)
    spent_ns = stopwatch.take_ns()
    assert min(spent_ns["io"], spent_ns["decode"]) > 0


def test_a_file_that_is_cut_off_while_it_is_open_is_an_error(file) -> None:
    path, table = file
    opened = RowGroupFile(path)
    opened.read(0, NAMES)
    os.truncate(path, path.stat().st_size // 3)
    with pytest.raises(OSError, match=r"the file ends at byte \d+, its footer tells of more"):
        opened.read(2, NAMES)
    assert opened.read(0, ("a",)) == table.select(["a"]).slice(0, 10_000)


def test_a_file_that_is_replaced_or_removed_stays_what_it_was(file) -> None:
    path, table = file
    opened = RowGroupFile(path)
    path.unlink()
    path.write_bytes(b"something else")
    assert opened.read(1, NAMES) == table.slice(10_000, 10_000)


def test_a_column_of_other_rows_than_the_footer_tells_of_is_refused(tmp_path) -> None:
    """A damaged level joins two lists: pyarrow returns a row less, where it reads that column alone."""
    path = tmp_path / "x.parquet"
    lists = pa.array([[i, 2] for i in range(20)], pa.list_(pa.int32()))
    pq.write_table(pa.table({"x": lists}), path, compression="none", use_dictionary=False)
    whole, refused = path.read_bytes(), 0
    for place in range(4, len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        try:
            if len(pq.ParquetFile(path).read_row_group(0)) == 20:
                continue
        except (pa.ArrowException, OSError):
            continue
        with pytest.raises(pa.ArrowInvalid, match=r"rows, its footer tells of 20"):
            RowGroupFile(path).read(0, ["x"])
        refused += 1
    assert refused
