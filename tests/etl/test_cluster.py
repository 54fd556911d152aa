"""Order, row groups and neighbours: literals in, literals out."""

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recd_dist.etl.cluster import changed, clustered_order, row_group_bounds
from recd_dist.etl.columns import REQUEST, SESSION, TIMESTAMP
from recd_dist.etl.shard import ORDER


def test_order_is_session_then_time_then_request_then_as_it_came():
    shard = pa.table(
        {SESSION: [2, 1, 1, 1, 1], TIMESTAMP: [0, 9, 5, 5, 5], REQUEST: [0, 0, 8, 7, 7], ORDER: [0, 1, 2, 4, 3]}
    )
    assert clustered_order(shard, np.ones(5, bool)).tolist() == [4, 3, 2, 1, 0]
    assert clustered_order(shard, np.array([1, 1, 0, 0, 1], bool)).tolist() == [4, 1, 0]


@pytest.mark.parametrize(
    ("sessions", "num_samples", "bounds"),
    [
        ([1, 1, 2, 2, 3], 2, [0, 2, 4, 5]),
        ([1, 1, 2, 2, 3], 3, [0, 2, 5]),
        ([1, 1, 1, 1, 2], 2, [0, 4, 5]),  # a huge session makes a larger row group
        ([1], 8192, [0, 1]),
        ([], 8192, [0]),
    ],
)
def test_row_groups_end_where_sessions_end(sessions, num_samples, bounds):
    assert row_group_bounds(np.array(sessions, np.int64), num_samples).tolist() == bounds


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
def test_changed_compares_lengths_and_values(rows, type_, flags):
    assert changed(pa.array(rows, type_)).tolist() == [bool(flag) for flag in flags]


@given(st.lists(st.lists(st.integers(0, 2), max_size=3), min_size=1, max_size=30))
def test_changed_is_inequality_of_neighbours(rows):
    expected = [True, *(a != b for a, b in pairwise(rows))]
    assert changed(pa.array(rows, pa.list_(pa.int64()))).tolist() == expected
