"""Order, row groups and neighbours: literals in, literals out."""

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recd_dist.etl.write.row_groups import changed, row_group_bounds


@pytest.mark.parametrize(
    ("sessions", "num_samples", "bounds", "num_cut"),
    [
        ([1, 1, 2, 2, 3], 2, [0, 2, 4, 5], 0),
        ([1, 1, 2, 2, 3], 3, [0, 2, 5], 0),
        ([1, 2, 3, 4, 5, 6], 4, [0, 3, 6], 0),  # two of three, not four and a rest of two
        ([1, 1, 1, 1, 2], 2, [0, 4, 5], 0),  # a huge session makes a larger row group
        ([1] * 8 + [2], 1, [0, 8, 9], 0),
        ([1] * 17 + [2], 1, [0, 8, 16, 17, 18], 1),  # beyond eight row groups it is cut
        ([1] * 20 + [2] * 9, 2, [0, 16, 20, 29], 1),
        ([1], 8192, [0, 1], 0),
        ([], 8192, [0], 0),
    ],
)
def test_row_groups_end_where_sessions_end(sessions, num_samples, bounds, num_cut):
    found, cut = row_group_bounds(np.array(sessions, np.int64), num_samples)
    assert (found.tolist(), cut) == (bounds, num_cut)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=40), st.integers(1, 12))
def test_row_groups_are_about_equally_large(sizes, num_samples):
    session = np.repeat(np.arange(len(sizes)), sizes)
    bounds, num_cut = row_group_bounds(session, num_samples)
    assert bounds[0] == 0
    assert bounds[-1] == len(session)
    groups = np.diff(bounds)
    assert (groups > 0).all()
    assert num_cut == sum(size > 8 * num_samples for size in sizes)
    for start, end in pairwise(bounds.tolist()):
        whole = (
            start == 0 or session[start] != session[start - 1] or (session == session[start]).sum() > 8 * num_samples
        )
        assert whole
        assert end - start <= num_samples or len(set(session[start:end])) == 1
        assert end - start <= 8 * num_samples


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
