"""A damaged file is read as pyarrow reads it, or left to pyarrow, which says what is wrong."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.reader.chunks.test_column_chunks import ENCODINGS, open_columns, required, write

from recd_dist.reader.chunks.column_chunks import ChunkReader

HARMLESS = ("thrift", "Unexpected end of stream")
"""What pyarrow says of damage in those parts of a page's header that decoding needs not."""


def decode(reader: ChunkReader, index: int) -> list[bytes] | None:
    """What our loops make of a row group: values, and offsets of lists; None where they leave it."""
    try:
        reader.fetch(index)
        column = reader.decode(index).column(0)
    except (ValueError, OSError):
        return None
    return [part.tobytes() for part in (column.values, column.offsets) if part is not None]


def read(path: Path, index: int) -> list[bytes] | str:
    """The same by pyarrow; or what it says of the damage."""
    try:
        array = pq.ParquetFile(path).read_row_group(index).column(0).combine_chunks()
    except (pa.ArrowException, OSError) as error:
        return str(error)
    is_list = pa.types.is_list(array.type)
    return [part.to_numpy().tobytes() for part in ((array.values, array.offsets) if is_list else (array,))]


def damaged(whole: bytes, rng: np.random.Generator) -> Iterator[bytes]:
    """A file with one byte of its pages changed, and again."""
    end = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    for place in rng.integers(4, end, 150):
        yield whole[:place] + rng.bytes(1) + whole[place + 1 :]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("is_list", [False, True])
def test_what_is_decoded_of_a_damaged_file_is_what_pyarrow_reads(tmp_path, encoding, is_list) -> None:
    rng, path = np.random.default_rng(0), tmp_path / "x.parquet"
    array = pa.array(np.repeat(rng.integers(0, 50, 100), 4), pa.int32())
    field = required("x", pa.int32(), is_list)
    if is_list:
        ends = np.cumsum(rng.integers(0, 4, 130))
        array = pa.ListArray.from_arrays(pa.array([0, *ends[ends < 400], 400], pa.int32()), array, type=field.type)
    write(path, {"x": (field, array, encoding)}, "none", data_page_size=300)
    reader, compared = open_columns(path, pq.ParquetFile(path), ["x"]), 0
    for data in damaged(path.read_bytes(), rng):
        path.write_bytes(data)
        for index in range(2):
            ours = decode(reader, index)
            theirs = read(path, index) if ours else ""
            if isinstance(theirs, list):
                assert ours == theirs
                compared += 1
            elif ours:
                assert any(reason in theirs for reason in HARMLESS)
    reader.close()
    assert compared > 100
