"""Columns of a row group: windows over streams are the lists that they stand for, or an error."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from recd_dist.errors import DataError
from recd_dist.reader.row_group_columns import Origin, read_column, read_windows
from recd_dist.table.column import Column
from recd_dist.table.schema import Feature, Kind

HISTORY = Feature("history", Kind.ids, "user", "item", weights="heat", window=True)
ORIGIN, STREAMS = Origin(Path("user/part-00000.parquet"), 0), Origin(Path("user.stream/part-00000.parquet"), 0)
LISTS = Column(np.array([5, 6, 7, 8, 9, 9]), np.array([0, 4, 6]), np.array([0.5, 0.6, 0.7, 0.8, 0.9, 1.0], np.float32))


def rows(starts: list[int], lengths: list[int], type_: str = "int32") -> pa.Table:
    return pa.table({"history_start": pa.array(starts, type_), "history_length": pa.array(lengths, type_)})


def test_windows_become_lists():
    windows = read_windows(rows([0, 1, 0, 2], [3, 3, 2, 0]), np.array([0, 0, 1, 1]), HISTORY, ORIGIN, LISTS, STREAMS)
    assert np.shares_memory(windows.values, LISTS.values)
    found = windows.to_lists()
    assert found.values.tolist() == [5, 6, 7, 6, 7, 8, 9, 9]
    assert found.offsets.tolist() == [0, 3, 6, 8, 8]
    assert found.weights.tolist() == np.float32([0.5, 0.6, 0.7, 0.6, 0.7, 0.8, 0.9, 1.0]).tolist()
    nothing = read_windows(rows([], []), np.array([], int), HISTORY, ORIGIN, LISTS, STREAMS)
    assert nothing.to_lists().offsets.tolist() == [0]


@pytest.mark.parametrize(
    ("starts", "lengths", "message"),
    [
        ([0, 2], [4, 3], r"row group 0, row 1: the window of 'history' is 3 ids from 2, its stream in .* holds 4"),
        ([-1, 0], [2, 2], r"row 0: the window of 'history' is 2 ids from -1"),
        ([0, 3], [4, -1], r"row 1: the window of 'history' is -1 ids from 3"),
    ],
)
def test_windows_that_leave_their_stream(starts, lengths, message):
    with pytest.raises(DataError, match=message):
        read_windows(rows(starts, lengths), np.array([0, 0]), HISTORY, ORIGIN, LISTS, STREAMS)


def test_starts_of_another_type():
    with pytest.raises(DataError, match="column 'history_start' is int64, wanted int32; make the table again"):
        read_windows(rows([0], [1], "int64"), np.array([0]), HISTORY, ORIGIN, LISTS, STREAMS)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (pa.array([[0.5], []], pa.list_(pa.float32())), "row 0: 'history' and its weights 'heat' differ in length"),
        (pa.array([[0.5, 1], []], pa.list_(pa.float64())), "column 'heat' is list.*, weights are lists of float32"),
        (pa.array([[0.5, None], []], pa.list_(pa.float32())), "lists of 'heat' hold 1 nulls"),
    ],
)
def test_weights_that_do_not_fit(weights, message):
    table = pa.table({"history": pa.array([[1, 2], []], pa.list_(pa.int32())), "heat": weights})
    with pytest.raises(DataError, match=message):
        read_column(table, HISTORY, ORIGIN)
