"""Footers and page headers, read by our own loops."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recd_dist.reader.chunks import thrift
from recd_dist.table.addresses import address_of


def footer_of(path) -> np.ndarray:
    data = np.fromfile(path, np.uint8)
    size = int.from_bytes(data[-8:-4].tobytes(), "little")
    return data[-8 - size : -8].copy()


def made(tmp_path, rows: int = 1000):
    path = tmp_path / "x.parquet"
    names = {"a": pa.array(range(rows)), "b": pa.array([[i, i] for i in range(rows)]), "c": pa.array(["x"] * rows)}
    pq.write_table(pa.table(names), path, row_group_size=300, write_page_index=True)
    return path, pq.read_metadata(path)


def test_a_footer_says_what_pyarrow_says(tmp_path) -> None:
    path, metadata = made(tmp_path)
    footer, found = footer_of(path), np.empty((metadata.num_row_groups, metadata.num_columns, 6), np.int64)
    assert thrift.read_footer(address_of(footer), len(footer), found)
    for row_group in range(metadata.num_row_groups):
        for number in range(metadata.num_columns):
            chunk, own = metadata.row_group(row_group).column(number), found[row_group, number]
            assert own[thrift.NUM_VALUES] == chunk.num_values
            assert own[thrift.BYTES] == chunk.total_compressed_size
            assert own[thrift.DATA_START] == chunk.data_page_offset
            assert own[thrift.DICTIONARY_START] == (chunk.dictionary_page_offset or -1)


def test_a_footer_of_another_file_is_refused(tmp_path) -> None:
    path, metadata = made(tmp_path)
    footer = footer_of(path)
    for shape in ((metadata.num_row_groups + 1, metadata.num_columns), (metadata.num_row_groups, 1)):
        assert not thrift.read_footer(address_of(footer), len(footer), np.empty((*shape, 6), np.int64))


def test_a_damaged_footer_is_read_to_its_end_at_most(tmp_path) -> None:
    path, metadata = made(tmp_path)
    footer, rng = footer_of(path), np.random.default_rng(0)
    found = np.empty((metadata.num_row_groups, metadata.num_columns, 6), np.int64)
    refused = 0
    for _ in range(500):
        damaged = footer.copy()
        damaged[rng.integers(0, len(footer), 4)] = rng.integers(0, 256, 4)
        refused += not thrift.read_footer(address_of(damaged), len(damaged), found)
        cut = footer[: rng.integers(0, len(footer) // 2)].copy()
        assert not thrift.read_footer(address_of(cut), len(cut), found)
    assert refused > 100
