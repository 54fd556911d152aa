"""Columns as flat arrays: rows gathered and joined, in literals."""

from itertools import pairwise

import numpy as np
import pytest

from recd_dist.table.column import Column, gather_slices, join_columns, offsets_of
from recd_dist.table.loops import jit

#                      [5 6 7]  []  [9 9]
LISTS = Column(np.array([5, 6, 7, 9, 9]), np.array([0, 3, 3, 5]), np.array([1, 1, 0.5, 1, 2], np.float32))
SINGLE = Column(np.array([4, 8]))


def rows(column: Column) -> list[list[int]]:
    offsets = np.arange(len(column) + 1) if column.offsets is None else column.offsets
    return [column.values[a:b].tolist() for a, b in pairwise(offsets)]


def test_rows_and_their_lengths() -> None:
    assert (len(LISTS), len(SINGLE)) == (3, 2)
    assert LISTS.lengths.tolist() == [3, 0, 2]
    assert SINGLE.lengths.tolist() == [1, 1]
    assert [LISTS.row_of(place) for place in range(5)] == [0, 0, 0, 2, 2]
    assert SINGLE.row_of(1) == 1
    assert offsets_of(np.array([3, 0, 2], np.int32)).tolist() == [0, 3, 3, 5]


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.float32])
def test_slices_of_the_values(dtype: type) -> None:
    values = LISTS.values.astype(dtype)
    values.setflags(write=False)  # as Arrow gives it
    cut = gather_slices(Column(values, LISTS.offsets, LISTS.weights), np.array([3, 0, 1]), np.array([2, 0, 3]))
    assert rows(cut) == [[9, 9], [], [6, 7, 9]]
    assert (cut.values.dtype, cut.offsets.dtype) == (dtype, np.int64)
    assert cut.weights.tolist() == [1, 2, 1, 0.5, 1]
    assert gather_slices(SINGLE, np.array([1]), np.array([1])).weights is None


def test_columns_joined() -> None:
    joined = join_columns([LISTS, LISTS])
    assert rows(joined) == rows(LISTS) * 2
    assert joined.weights.tolist() == LISTS.weights.tolist() * 2
    assert rows(join_columns([SINGLE, Column(LISTS.values, LISTS.offsets)])) == [[4], [8], *rows(LISTS)]
    assert join_columns([SINGLE, SINGLE]).offsets is None


def test_a_column_without_rows_adds_no_values() -> None:
    nothing = Column(LISTS.values, np.array([0]), LISTS.weights)
    joined = join_columns([nothing, LISTS])
    assert rows(joined) == rows(LISTS)
    assert joined.values.tolist() == LISTS.values.tolist()
    assert joined.weights.tolist() == LISTS.weights.tolist()


def test_joined_columns_are_new_memory() -> None:
    assert not np.shares_memory(join_columns([LISTS]).values, LISTS.values)


def test_a_loop_is_compiled_where_nothing_can_be_cached() -> None:
    names: dict = {}
    exec("def double(x):\n    return 2 * x\n", names)  # no file, so no place for a cache
    assert jit(names["double"])(21) == 42
