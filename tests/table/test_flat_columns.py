"""Rows that differ from the row before: literals in, literals out."""

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recd_dist.table.column import Column
from recd_dist.table.flat_columns import flag_array_changes, flag_changes


@pytest.mark.parametrize(
    ("rows", "type_", "flags"),
    [
        ([[7, 8], [7, 8], [7], [7, 8], [], []], pa.list_(pa.int64()), [1, 0, 1, 1, 1, 0]),
        ([[1, 2], [2, 1], [2, 1]], pa.list_(pa.int32()), [1, 1, 0]),
        ([[1], [1 + 2**40]], pa.list_(pa.int64()), [1, 1]),
        ([3, 3, 4], pa.int64(), [1, 0, 1]),
        ([0.0, -0.0, -0.0], pa.float32(), [1, 1, 0]),  # by bits: nothing is lost
        ([[]], pa.list_(pa.int32()), [1]),
        ([], pa.int64(), []),
    ],
)
def test_a_change_is_one_of_length_or_value(rows, type_, flags):
    assert flag_array_changes(pa.array(rows, type_)).tolist() == [bool(flag) for flag in flags]


@given(st.lists(st.lists(st.integers(0, 2), max_size=3), min_size=1, max_size=30))
def test_a_change_is_inequality_of_neighbours(rows):
    expected = [True, *(a != b for a, b in pairwise(rows))]
    assert flag_array_changes(pa.array(rows, pa.list_(pa.int64()))).tolist() == expected


def test_weights_are_compared_and_the_order_is_followed():
    column = Column(np.array([7, 7, 8, 7]), np.array([0, 1, 2, 3, 4]), np.array([0.5, 0.5, 0.5, 1.0], np.float32))
    assert flag_changes(column, np.array([0, 1, 3])).tolist() == [True, False, True]
    assert flag_changes(column, np.array([2, 0, 1])).tolist() == [True, True, False]
    assert flag_changes(column, np.array([], np.int64)).tolist() == []
