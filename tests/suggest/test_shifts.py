"""Lists that append to the list before are counted."""

import numpy as np
import pyarrow as pa
import pytest

from recd_dist.suggest.shifts import count_shifts


@pytest.mark.parametrize(
    ("rows", "num_shifts"),
    [
        ([[1, 2, 3], [2, 3, 4], [3, 4, 5, 6]], 2),  # newest last
        ([[3, 2, 1], [4, 3, 2], [6, 5, 4, 3]], 2),  # newest first
        ([[1, 2], [7, 8], [7, 8]], 0),
        ([[5], [5, 6], []], 1),
    ],
)
def test_lists_that_append_are_counted(rows: list[list[int]], num_shifts: int) -> None:
    column = pa.array(rows, pa.list_(pa.int64()))
    assert count_shifts(column, np.array([False, *[True] * (len(rows) - 1)])) == num_shifts


def test_a_new_session_appends_to_nothing() -> None:
    assert count_shifts(pa.array([[1, 2], [1, 2, 3]], pa.list_(pa.int64())), np.array([False, False])) == 0
