"""Chosen rows of columns, copied into one block."""

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from recd_dist.reader.row_group_columns import DecodedColumns
from recd_dist.reader.taken_rows import take_columns
from recd_dist.table.column import Column, offsets_of


def rows_of(column: Column) -> list[list[float]]:
    offsets = range(len(column) + 1) if column.offsets is None else column.offsets.tolist()
    return [column.values[a:b].tolist() for a, b in itertools.pairwise(offsets)]


@given(
    st.lists(st.lists(st.integers(-(2**40), 2**40) | st.integers(0, 9), max_size=4), min_size=1, max_size=20),
    st.randoms(),
)
def test_the_rows_that_were_chosen(lists, random):
    """Numbers and lists of all types, offsets from 0 or not, rows side by side or not; wide ids stay wide."""
    chosen = np.array(sorted(random.sample(range(len(lists)), random.randint(0, len(lists)))), np.int64)
    flat = np.array([0, 0, *(value for row in lists for value in row)], np.int64)
    offsets = offsets_of(np.array([len(row) for row in lists])) + 2
    columns = {
        "ids": Column(flat, offsets),
        "small": Column((flat % 1000).astype(np.int32), offsets.astype(np.int32)),
        "weighted": Column(flat % 7, offsets, (flat % 5).astype(np.float32)),
        "number": Column(np.arange(len(lists), dtype=np.float32)),
        "id": Column(np.arange(len(lists)) + 2**33 * random.randint(0, 1)),
    }
    taken = DecodedColumns.of(*take_columns(columns, chosen))
    for name, column in columns.items():
        every = rows_of(column)
        assert rows_of(taken[name]) == [every[row] for row in chosen]
    assert {"small", "number"} <= set(taken.numbers)
    weights = Column(columns["weighted"].weights, offsets)
    of_rows = rows_of(weights)
    assert rows_of(Column(taken["weighted"].weights, taken["weighted"].offsets)) == [of_rows[row] for row in chosen]


def test_ids_become_narrow_where_all_fit():
    edge = 2**31
    for value, dtype in ((edge - 1, np.int32), (-edge, np.int32), (edge, np.int64), (-edge - 1, np.int64)):
        taken = DecodedColumns.of(*take_columns({"id": Column(np.array([7, value]))}, np.array([1])))
        found = taken["id"].values
        assert (found.tolist(), found.dtype) == ([value], dtype)
