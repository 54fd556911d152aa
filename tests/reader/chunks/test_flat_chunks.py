"""Foreign columns decoded by our own loops hold what pyarrow reads, piece after piece, or are left to it."""

import itertools
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recd_dist.reader.chunks.flat_chunks import FlatFile, FlatRows

TYPES = (pa.int8(), pa.uint16(), pa.int32(), pa.int64(), pa.float32(), pa.float64())
LISTS = (
    pa.list_,
    pa.large_list,
    lambda element: pa.list_(element, 3),
)


def column_of(rng: np.random.Generator, kind: pa.DataType, form: object, size: int, nulls: str) -> pa.Array:
    """A column in which values of one kind are missing, or none."""

    def missing(part: str) -> float:
        return 0.1 if nulls == part else 0.0

    def number() -> object:
        low, high = (0, 60) if pa.types.is_unsigned_integer(kind) else (-60, 60)
        value = int(rng.integers(low, high))
        return None if rng.random() < missing("values") else float(value) / 8 if pa.types.is_floating(kind) else value

    if form is None:
        return pa.array([number() for _ in range(size)], kind)
    is_fixed = form is LISTS[2]
    rows = [
        None if rng.random() < missing("lists") else [number() for _ in range(3 if is_fixed else rng.integers(0, 9))]
        for _ in range(size)
    ]
    return pa.array(rows, form(pa.field("element", kind)))


def check(found: object, wanted: pa.ChunkedArray) -> None:
    array = pa.concat_arrays(wanted.chunks)
    values = found.values
    if found.offsets is not None:
        assert np.diff(found.offsets).tolist() == [len(row) for row in array.to_pylist()]
        values = values[found.offsets[0] : found.offsets[-1]]
        array = array.flatten()
    assert values.tolist() == array.to_pylist()


@settings(max_examples=7, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    size=st.sampled_from([1, 9, 300]),
    codec=st.sampled_from(["none", "snappy", "gzip", "brotli", "lz4", "zstd"]),
    page=st.sampled_from([64, 1000, 1 << 20]),
    dictionary=st.booleans(),
    nullable=st.booleans(),
)
def test_what_is_decoded_is_what_pyarrow_reads(
    tmp_path_factory, seed: int, size: int, codec: str, page: int, dictionary: bool, nullable: bool
) -> None:
    rng, columns, whole = np.random.default_rng(seed), {}, set()
    for kind, form in itertools.product(TYPES, (None, *LISTS)):
        nulls, name = str(rng.choice(["", "values", "lists"])), f"{kind}_{LISTS.index(form) if form else 'single'}"
        array = column_of(rng, kind, form, size, nulls if nullable else "")
        columns[name] = array
        if not array.null_count and not (form and array.flatten().null_count):
            whole.add(name)
    fields = [pa.field(name, array.type, nullable=nullable) for name, array in columns.items()]
    table = pa.Table.from_arrays(list(columns.values()), schema=pa.schema(fields))
    path = tmp_path_factory.mktemp("flat") / "x.parquet"
    options = {"data_page_size": page, "write_batch_size": 16, "use_dictionary": dictionary, "compression": codec}
    pq.write_table(table, path, row_group_size=200, **options)
    file = FlatFile(path, opened := pq.ParquetFile(path), list(columns))
    assert set(file.leaves) == set(columns)
    spaces = {}
    for row_group in range(opened.num_row_groups):
        stored = opened.read_row_group(row_group)
        rows, cuts = FlatRows(file, row_group, list(columns), spaces), sorted(rng.integers(0, len(stored) + 1, 3))
        for start, end in itertools.pairwise([*cuts, len(stored)]):
            found = rows.read(int(start), int(end))
            assert whole <= set(found)
            for name, column in found.items():
                if end > start:
                    check(column, stored[name].slice(start, end - start))


def test_columns_of_other_kinds_are_passed_over(tmp_path: Path) -> None:
    table = pa.table(
        {
            "text": ["a", "b"],
            "flag": [True, False],
            "day": pa.array([1, 2], pa.date32()),
            "wide": pa.array([1, 2], pa.uint32()),
            "pair": [{"x": 1}, {"x": 2}],
            "nested": [[[1]], [[2]]],
            "texts": [["a"], ["b"]],
            "item": [1, 2],
        }
    )
    pq.write_table(table, path := tmp_path / "x.parquet")
    assert set(FlatFile(path, pq.ParquetFile(path), table.column_names).leaves) == {"item"}


@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_pages_of_the_second_kind_are_left_to_pyarrow(tmp_path: Path, version: str) -> None:
    pq.write_table(pa.table({"x": [1, 2, 3]}), path := tmp_path / "x.parquet", data_page_version=version)
    file = FlatFile(path, pq.ParquetFile(path), ["x"])
    if version == "1.0":
        assert FlatRows(file, 0, ["x"], {}).read(1, 3)["x"].values.tolist() == [2, 3]
        return
    with pytest.raises(ValueError, match="another kind"):
        FlatRows(file, 0, ["x"], {})


@pytest.mark.parametrize("codec", ["none", "snappy"])
@pytest.mark.parametrize("dictionary", [True, False])
def test_damaged_bytes_are_no_more_than_wrong_numbers(tmp_path: Path, codec: str, dictionary: bool) -> None:
    rng = np.random.default_rng(0)
    lists = pa.array([rng.integers(0, 99, n).tolist() for n in rng.integers(0, 9, 200)], pa.list_(pa.int64()))
    table = pa.table({"x": lists, "y": pa.array(rng.integers(0, 9, 200))})
    path = tmp_path / "x.parquet"
    pq.write_table(table, path, compression=codec, use_dictionary=dictionary, data_page_size=200)
    whole, opened = path.read_bytes(), pq.ParquetFile(path)
    end = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    refused = 0
    for _ in range(300):
        data = bytearray(whole)
        for place in rng.integers(4, end, 3):
            data[place] = rng.integers(0, 256)
        path.write_bytes(data)
        file = FlatFile(path, opened, ["x", "y"])
        try:
            rows = FlatRows(file, 0, ["x", "y"], {})
            found = rows.read(0, 50) and rows.read(50, 200)
            refused += len(rows.failed)
            for column in found.values():
                assert len(column) == 150
                if column.offsets is not None:
                    assert 0 <= column.offsets.min() <= column.offsets.max() <= len(column.values)
        except (ValueError, OSError):
            refused += 1
        finally:
            file.close()
    assert refused > 3
