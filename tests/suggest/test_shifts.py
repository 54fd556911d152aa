"""Histories that shift: lists in, new ids out."""

import numpy as np
import pyarrow as pa
import pytest

from recd_dist.suggest.shifts import append_only_stream


@pytest.mark.parametrize(
    ("rows", "new", "ids"),
    [
        ([[1, 2, 3], [2, 3, 4], [3, 4, 5, 6]], [3, 1, 2], [1, 2, 3, 4, 5, 6]),  # newest last
        ([[3, 2, 1], [4, 3, 2], [6, 5, 4, 3]], [3, 1, 2], [3, 2, 1, 4, 6, 5]),  # newest first
        ([[1, 2], [7, 8], [7, 8]], [2, 2, 0], [1, 2, 7, 8]),
        ([[], [5], [5, 6], []], [0, 1, 1, 0], [5, 6]),
    ],
)
def test_a_stream_holds_what_is_new(rows: list[list[int]], new: list[int], ids: list[int]) -> None:
    column = pa.array(rows, pa.list_(pa.int64()))
    values, counts = append_only_stream(column, np.array([False, *[True] * (len(rows) - 1)]))
    assert (counts.tolist(), values.to_pylist()) == (new, ids)


def test_a_new_session_begins_its_own_stream() -> None:
    column = pa.array([[1, 2], [1, 2]], pa.list_(pa.int64()))
    assert append_only_stream(column, np.array([False, False]))[1].tolist() == [2, 2]
