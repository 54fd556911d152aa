"""Column chunks decoded by our own loops hold what pyarrow reads, or are left to it."""

import itertools
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recd_dist.reader.chunks.column_chunks import ChunkFile, ChunkReader, DecodedChunks, Scratch

NUMBERS = {"int32": pa.int32(), "int64": pa.int64(), "float32": pa.float32()}
ENCODINGS = ("PLAIN", "RLE_DICTIONARY", "BYTE_STREAM_SPLIT", "DELTA_BINARY_PACKED")


def required(name: str, kind: pa.DataType, is_list: bool) -> pa.Field:
    return pa.field(name, pa.list_(pa.field("element", kind, nullable=False)) if is_list else kind, nullable=False)


def numbers(rng: np.random.Generator, kind: pa.DataType, size: int, spread: int) -> pa.Array:
    """Numbers of few or of all bits, some of them in a row the same."""
    dtype = kind.to_pandas_dtype()
    if kind == pa.float32():
        return pa.array(rng.normal(size=size).astype(dtype))
    bits = min(spread, np.iinfo(dtype).bits - 1)
    values = rng.integers(-(2**bits) if spread > 3 else 0, 2**bits, size, dtype=np.int64).astype(dtype)
    return pa.array(np.repeat(values, rng.integers(1, 4, size))[:size])


def write(path: Path, columns: dict[str, tuple[pa.Field, pa.Array, str]], codec: str, **options: object) -> None:
    schema = pa.schema([field for field, _, _ in columns.values()])
    leaves = {n: f"{n}.list.element" if pa.types.is_list(f.type) else n for n, (f, _, _) in columns.items()}
    dictionary = [leaves[n] for n, (_, _, e) in columns.items() if e == "RLE_DICTIONARY"]
    encoding = {leaves[n]: e for n, (_, _, e) in columns.items() if e != "RLE_DICTIONARY"}
    options = {"use_dictionary": dictionary, "column_encoding": encoding, "compression": codec} | options
    with pq.ParquetWriter(path, schema, **options) as writer:
        table = pa.Table.from_arrays([array.cast(f.type) for f, array, _ in columns.values()], schema=schema)
        half = table.num_rows // 2
        if half:
            writer.write_table(table.slice(0, half))
        writer.write_table(table.slice(half))


def open_columns(path: Path, file: pq.ParquetFile, *names: list[str]) -> ChunkReader:
    """A reader of some columns of a file, or of several times the same file, which stays open whatever comes."""
    reader = ChunkReader([ChunkFile(path, file, columns) for columns in names], Scratch())
    reader.fetch(0)
    return reader


def decode(reader: ChunkReader, index: int) -> DecodedChunks:
    reader.fetch(index)
    return reader.decode(index)


def assert_equal_to_pyarrow(path: Path, *names: list[str]) -> None:
    file = pq.ParquetFile(path)
    reader = open_columns(path, file, *names)
    try:
        for index in range(file.num_row_groups):
            found, wanted = decode(reader, index), file.read_row_group(index)
            assert (found.num_rows == wanted.num_rows).all()
            for number, name in enumerate(name for columns in names for name in columns):
                column = found.column(number)
                chunks = wanted.column(name).combine_chunks()
                array = chunks.chunk(0) if isinstance(chunks, pa.ChunkedArray) else chunks
                if pa.types.is_list(array.type):
                    assert (column.offsets == array.offsets.to_numpy()).all()
                    array = array.values
                assert column.values.dtype == array.type.to_pandas_dtype()
                assert column.values.tobytes() == array.to_numpy().tobytes()
    finally:
        reader.close()


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    size=st.sampled_from([1, 2, 7, 33, 1000]),
    spread=st.sampled_from([0, 1, 3, 9, 17, 31, 62]),
    codec=st.sampled_from(["none", "lz4", "zstd"]),
    page=st.sampled_from([64, 1000, 1 << 20]),
    longest=st.sampled_from([0, 1, 5, 40]),
)
def test_every_encoding_type_and_codec(tmp_path_factory, seed, size, spread, codec, page, longest) -> None:
    rng, columns = np.random.default_rng(seed), {}
    for (name, kind), encoding, is_list in itertools.product(NUMBERS.items(), ENCODINGS, (False, True)):
        if kind == pa.float32() and encoding == "DELTA_BINARY_PACKED":
            continue
        lengths = rng.integers(0, longest + 1, size) * (rng.random(size) < 0.8)
        array = numbers(rng, kind, int(lengths.sum()) if is_list else size, spread)
        column = f"{name}_{encoding}_{'list' if is_list else 'single'}"
        field = required(column, kind, is_list)
        if is_list:
            offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
            array = pa.ListArray.from_arrays(offsets, array, type=field.type)
        columns[column] = field, array, encoding
    path = tmp_path_factory.mktemp("chunks") / "x.parquet"
    write(path, columns, codec, data_page_size=page, write_batch_size=16)
    assert_equal_to_pyarrow(path, list(columns))
    assert_equal_to_pyarrow(path, [*columns][::-3], [*columns][:4], [*columns][1:2])


def decode_first(path: Path) -> None:
    decode(open_columns(path, pq.ParquetFile(path), ["x"]), 0)


SINGLE = {"x": (required("x", pa.int32(), False), pa.array(range(100), pa.int32()), "PLAIN")}


@pytest.mark.parametrize(
    ("columns", "options"),
    [
        ({"x": (pa.field("x", pa.int32()), pa.array([1, None]), "PLAIN")}, {}),
        ({"x": (required("x", pa.string(), False), pa.array(["a", "b"]), "PLAIN")}, {}),
        ({"x": (required("x", pa.float64(), False), pa.array([0.5, 1.5]), "PLAIN")}, {}),
        (SINGLE, {"compression": "snappy"}),
        (SINGLE, {"data_page_version": "2.0"}),
    ],
)
def test_what_it_cannot_decode_is_left_to_pyarrow(tmp_path, columns, options) -> None:
    path = tmp_path / "x.parquet"
    write(path, columns, "lz4", **options)
    with pytest.raises(ValueError):  # noqa: PT011  (nobody reads the message)
        decode_first(path)


@pytest.mark.parametrize("codec", ["snappy", "gzip", "brotli"])
def test_a_codec_that_it_does_not_know_is_refused_before_anything_is_read(tmp_path, codec) -> None:
    path = tmp_path / "x.parquet"
    write(path, SINGLE, codec)
    with pytest.raises(ValueError, match="another codec"):
        ChunkFile(path, pq.ParquetFile(path), ["x"])


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("codec", ["none", "lz4"])
def test_damaged_bytes_are_no_more_than_wrong_numbers(tmp_path, encoding, codec) -> None:
    rng = np.random.default_rng(0)
    lists = pa.array([rng.integers(0, 99, n).tolist() for n in rng.integers(0, 9, 200)], pa.list_(pa.int64()))
    field = required("x", pa.int64(), True)
    path = tmp_path / "x.parquet"
    write(path, {"x": (field, lists, encoding)}, codec, data_page_size=200)
    whole, file = path.read_bytes(), pq.ParquetFile(path)
    end = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    refused = 0
    for _ in range(300):
        data = bytearray(whole)
        for place in rng.integers(4, end, 3):
            data[place] = rng.integers(0, 256)
        path.write_bytes(data)
        reader = open_columns(path, file, ["x"])
        try:
            for index in range(2):
                column = decode(reader, index).column(0)
                assert 0 <= column.offsets.min() <= column.offsets.max() <= len(column.values)
        except (ValueError, OSError):
            refused += 1
        finally:
            reader.close()
    assert refused > 3  # most bytes are numbers, and any number will do
