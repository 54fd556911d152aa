"""Hashes of rows: the same for what means the same, another for anything else, and as the slow definition says."""

import math
import struct
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recd_dist.errors import DataError
from recd_dist.etl.checksum.row_hashes import column_checksum, combine_hashes, row_hashes
from recd_dist.table.schema import Kind

MASK = 2**64 - 1
PLACE, LENGTH = 0x9E3779B97F4A7C15, 0xD1B54A32D192ED03


def mixed(x: int, extra: int = 0) -> int:
    x = (x ^ (x >> 32)) * 0xFF51AFD7ED558CCD & MASK
    x = (x ^ (x >> 29)) + extra
    x = x * 0xC4CEB9FE1A85EC53 & MASK
    return x ^ (x >> 32)


def bits(number: float | None) -> int:
    return struct.unpack("<I", struct.pack("<f", number))[0] if number is not None and math.isfinite(number) else 0


def slow(value: Any, weights: list[float | None] | None = None) -> int:
    """The definition, one value at a time."""
    if isinstance(value, float):
        ids: list[int | None] = [bits(value)]
    else:
        ids = value if isinstance(value, list) else [value]
    pairs = zip(ids, weights if weights is not None else [None] * len(ids), strict=True)
    kept = [(i, w) for i, w in pairs if i is not None]
    extra = [bits(w) * LENGTH + 1 if weights is not None else 0 for _, w in kept]
    total = sum(mixed((i + (n + 1) * PLACE) & MASK, e) for n, ((i, _), e) in enumerate(zip(kept, extra, strict=True)))
    return mixed((total + (len(kept) + 1) * LENGTH) & MASK)


ids = st.one_of(st.integers(0, 3), st.integers(-(2**63), 2**63 - 1), st.none())
lists = st.lists(st.one_of(st.none(), st.lists(ids, max_size=4)), max_size=12)
cuts = st.tuples(st.integers(0, 12), st.integers(0, 12))


@given(lists, cuts)
def test_lists_are_hashed_as_defined_whatever_slice_they_come_from(rows, cut):
    array = pa.array(rows, pa.list_(pa.int64())).slice(*cut)
    kept = [[] if row is None else row for row in rows][cut[0] :][: cut[1]]
    assert row_hashes(array, Kind.ids).tolist() == [slow(row) for row in kept]
    assert row_hashes(array.cast(pa.large_list(pa.int64())), Kind.ids).tolist() == [slow(row) for row in kept]


@given(st.lists(ids, max_size=12), cuts)
def test_one_id_is_a_list_of_it_and_a_missing_one_is_an_empty_list(rows, cut):
    array = pa.array(rows, pa.int64()).slice(*cut)
    kept = rows[cut[0] :][: cut[1]]
    as_lists = pa.array([[] if row is None else [row] for row in kept], pa.list_(pa.int64()))
    assert row_hashes(array, Kind.id).tolist() == row_hashes(as_lists, Kind.ids).tolist() == [slow(i) for i in kept]


@given(st.lists(st.one_of(st.none(), st.floats(width=32)), max_size=12), cuts)
def test_numbers_are_hashed_by_bits_and_what_is_missing_is_zero(rows, cut):
    array = pa.array(rows, pa.float32()).slice(*cut)
    kept = [0.0 if row is None else row for row in rows[cut[0] :][: cut[1]]]
    assert row_hashes(array, Kind.dense).tolist() == [slow(row) for row in kept]


weighted = st.lists(
    st.one_of(st.none(), st.lists(st.tuples(ids, st.one_of(st.none(), st.floats(width=32))), max_size=4)), max_size=8
)


@given(weighted, cuts)
def test_weights_are_mixed_with_their_ids(rows, cut):
    values = pa.array([None if r is None else [i for i, _ in r] for r in rows], pa.list_(pa.int64())).slice(*cut)
    weights = pa.array([None if r is None else [w for _, w in r] for r in rows], pa.list_(pa.float32())).slice(*cut)
    kept = [[] if row is None else row for row in rows][cut[0] :][: cut[1]]
    expected = [slow([i for i, _ in row], [w for _, w in row]) for row in kept]
    assert row_hashes(values, Kind.ids, weights).tolist() == expected


def test_what_is_hidden_below_a_missing_row_does_not_count():
    values = pa.ListArray.from_arrays(pa.array([0, 2, 4]), pa.array([1, 2, 3, 4]), mask=pa.array([True, False]))
    weights = pa.ListArray.from_arrays(pa.array([0, 0, 2]), pa.array([0.5, 0.25], pa.float32()))
    assert row_hashes(values, Kind.ids).tolist() == [slow([]), slow([3, 4])]
    assert row_hashes(values, Kind.ids, weights).tolist() == [slow([], []), slow([3, 4], [0.5, 0.25])]


def test_the_width_of_an_integer_and_the_chunks_do_not_matter():
    rows = [[5, -1], [], [2**31 - 1], [-(2**31)]]
    wide, narrow = (pa.array(rows, pa.list_(t)) for t in (pa.int64(), pa.int32()))
    chunked = pa.chunked_array([narrow[:1], narrow[1:]])
    expected = [slow(row) for row in rows]
    assert [row_hashes(column, Kind.ids).tolist() for column in (wide, narrow, chunked)] == [expected] * 3
    assert row_hashes(pa.chunked_array([], pa.int64()), Kind.id).tolist() == []
    assert row_hashes(pa.array([True, False]).cast(pa.int8()), Kind.id).tolist() == [slow(1), slow(0)]


def test_what_differs_is_told_apart():
    rows = [[], [0], [0, 0], [1, 2], [2, 1], [1], [2], [1, 2, 0], [0, 1, 2], [-1], [2**32 - 1]]
    hashes = row_hashes(pa.array(rows, pa.list_(pa.int64())), Kind.ids)
    assert len(set(hashes.tolist())) == len(rows)
    numbers = row_hashes(pa.array([0.0, -0.0, 1.0, 1.0000001], pa.float32()), Kind.dense)
    assert len(set(numbers.tolist())) == 4
    values = pa.array([[1, 2]] * 4, pa.list_(pa.int64()))
    weights = pa.array([[0.0, 0.0], [0.5, 1.0], [1.0, 0.5], [-0.0, 0.0]], pa.list_(pa.float32()))
    found = [*row_hashes(values, Kind.ids, weights).tolist(), *row_hashes(values[:1], Kind.ids).tolist()]
    assert len(set(found)) == 5  # weights of zero are not the same as no weights


def test_a_million_small_lists_have_a_million_hashes():
    values = np.arange(2_000_000, dtype=np.int64) // 2  # pairs [i, i], all different
    lists = pa.ListArray.from_arrays(pa.array(np.arange(0, 2_000_001, 2, dtype=np.int32)), pa.array(values))
    assert len(np.unique(row_hashes(lists, Kind.ids))) == 1_000_000


def test_checksums_add_up_and_subtract_in_any_order():
    hashes = row_hashes(pa.array([7, 8, 9, 9], pa.int64()), Kind.id)
    whole = column_checksum(hashes)
    assert whole == (slow(7) + slow(8) + 2 * slow(9)) & MASK
    assert whole == column_checksum(hashes[[3, 1, 0, 2]])
    assert whole == column_checksum(hashes[:3], np.array([1, 1, 2]))
    assert (whole - column_checksum(hashes[:1])) & MASK == column_checksum(hashes[1:])
    assert column_checksum(hashes[:0]) == 0


def test_combined_hashes_see_a_swap_that_sums_of_columns_cannot():
    left, right = (row_hashes(pa.array(rows, pa.int64()), Kind.id) for rows in ([1, 2], [3, 4]))
    swapped = right[::-1].copy()
    assert column_checksum(right) == column_checksum(swapped)
    assert column_checksum(combine_hashes([left, right])) != column_checksum(combine_hashes([left, swapped]))
    assert (combine_hashes([left, right]) != combine_hashes([right, left])).all()  # columns have an order
    expected = [mixed((mixed(slow(a), 1) * LENGTH + slow(b)) & MASK, 1) for a, b in ((1, 3), (2, 4))]
    assert combine_hashes([left, right]).tolist() == expected
    assert combine_hashes(iter([left])).tolist() == [mixed(slow(1), 1), mixed(slow(2), 1)]


@pytest.mark.parametrize(
    ("column", "kind", "weights", "message"),
    [
        (pa.array(["a"]), Kind.id, None, "the column holds string; cast it to bigint"),
        (pa.array([1]), Kind.dense, None, "the column holds int64; cast it to float"),
        (pa.array([1]), Kind.id, pa.array([[1.0]]), "expected two lists, found int64"),
        (pa.array([[1, 2]]), Kind.ids, pa.array([[1.0]]), "ids and weights differ in length"),
        (pa.array([[1, 2]]), Kind.ids, pa.array([], pa.list_(pa.float32())), "ids and weights differ in length"),
    ],
)
def test_what_cannot_be_hashed_is_refused(column, kind, weights, message):
    with pytest.raises(DataError, match=message):
        row_hashes(column, kind, weights)
    with pytest.raises(DataError, match="at least one column"):
        combine_hashes([])
