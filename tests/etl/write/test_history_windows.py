"""Windows over streams: whatever the rows were, they come back, and histories that shift take little room."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from recd_dist.etl.write.history_windows import build_streams, lay_windows, num_stream_values
from recd_dist.table.column import Column

ITEM = np.int32


def lists(rows: list[list[int]], weights: list[list[float]] | None = None) -> Column:
    offsets = np.cumsum([0, *map(len, rows)])
    flat = None if weights is None else np.array([w for row in weights for w in row], np.float32)
    return Column(np.array([i for row in rows for i in row], ITEM), offsets, flat)


def pieces(column: Column) -> list[list[int]]:
    return [column.values[a:b].tolist() for a, b in zip(column.offsets[:-1], column.offsets[1:], strict=True)]


def read(stream, starts, streams: Column, lengths) -> list[list[int]]:
    """Rows as a query would slice them."""
    parts = pieces(streams)
    return [parts[s][a : a + n] for s, a, n in zip(stream, starts, lengths, strict=True)]


def test_a_history_that_grows_and_shifts():
    found = lay_windows((lists([[1, 2, 3, 4], [2, 3, 4, 5], [3, 4, 5, 6], [9, 8], [9, 8, 7]]),))
    assert pieces(found.streams[0]) == [[1, 2, 3, 4, 5, 6], [9, 8, 7]]
    assert found.stream.tolist() == [0, 0, 0, 1, 1]
    assert found.starts[0].tolist() == [0, 1, 2, 0, 0]


def test_newest_first_is_found_backwards():
    found = lay_windows((lists([[2, 1], [3, 2, 1], [4, 3, 2], [8, 9], [7, 8, 9]]),))
    assert pieces(found.streams[0]) == [[4, 3, 2, 1], [7, 8, 9]]
    assert found.stream.tolist() == [0, 0, 0, 1, 1]
    assert found.starts[0].tolist() == [2, 1, 0, 1, 0]


def test_features_of_a_group_share_their_streams_whatever_their_directions():
    older_first = [[1, 2], [1, 2, 3], [5], [5, 6]]
    newer_first = [[2, 1], [3, 2, 1], [5], [6, 5]]
    found = lay_windows((lists(older_first), lists(newer_first)))
    assert found.stream.tolist() == [0, 0, 1, 1]
    assert pieces(found.streams[0]) == [[1, 2, 3], [5, 6]]
    assert pieces(found.streams[1]) == [[3, 2, 1], [6, 5]]


def test_a_stream_goes_on_while_one_feature_goes_on():
    found = lay_windows((lists([[1, 2], [7, 8]]), lists([[1, 2], [2, 3]])))
    assert found.stream.tolist() == [0, 0]
    assert pieces(found.streams[0]) == [[1, 2, 7, 8]]


def test_equal_ids_of_other_weights_are_no_overlap():
    rows = [[1, 2], [1, 2], [1, 2]]
    found = lay_windows((lists(rows, [[0.5, 1], [0.5, 1], [0.5, 2]]),))
    assert pieces(found.streams[0]) == [[1, 2], [1, 2]]
    assert found.streams[0].weights.tolist() == [0.5, 1, 0.5, 2]


def test_few_distinct_ids_do_not_search_for_ever():
    rows = [[0] * i + [1] * 300 + [0] * (300 - i) for i in range(300)]
    found = lay_windows((lists(rows),))
    assert read(found.stream, found.starts[0], found.streams[0], map(len, rows)) == rows


few = st.lists(st.integers(0, 2), max_size=6)


@st.composite
def histories(draw) -> list[list[int]]:
    """Rows that shift, to the left or to the right, repeat, jump and are empty."""
    newest_first, rows, row = draw(st.booleans()), [], []
    for _ in range(draw(st.integers(1, 12))):
        what = draw(st.sampled_from(["shift", "same", "new", "empty"]))
        if what == "shift":
            row = (row + draw(few))[-draw(st.integers(1, 6)) :]
        elif what != "same":
            row = [] if what == "empty" else draw(few)
        rows.append(row[::-1] if newest_first else row)
    return rows


@given(st.lists(histories(), min_size=1, max_size=3), st.lists(st.integers(1, 12), max_size=3), st.booleans())
@example([[[]]], [], False)
@example([[[], [1], [], [1, 2]]], [], True)
def test_rows_come_back(columns, sizes, is_weighted):
    num_rows = min(map(len, columns))
    columns = [rows[:num_rows] for rows in columns]
    bounds = np.unique([0, *(min(b, num_rows) for b in np.cumsum(sizes)), num_rows])
    weights = [[[float(i % 3) for i in range(len(row))] for row in rows] for rows in columns] if is_weighted else None
    given = {str(i): lists(rows, weights[i] if weights else None) for i, rows in enumerate(columns)}
    found = build_streams(given, bounds)
    assert (np.diff(found.stream) >= 0).all()
    for number, (start, end) in enumerate(pairwise(bounds)):  # no stream is shared by two row groups
        assert found.stream[start] == found.bounds[number]
        assert found.stream[end - 1] == found.bounds[number + 1] - 1
    for i, rows in enumerate(columns):
        streams = found.lists[str(i)]
        assert len(streams) == found.bounds[-1]
        assert read(found.stream, found.starts[str(i)], streams, map(len, rows)) == rows
        assert len(streams.values) == num_stream_values(given[str(i)], bounds) <= sum(map(len, rows))
        if weights:
            heavy = Column(streams.weights, streams.offsets)
            assert read(found.stream, found.starts[str(i)], heavy, map(len, rows)) == weights[i]


@pytest.mark.parametrize("newest_first", [False, True])
def test_a_session_of_shifts_is_stored_about_once(newest_first):
    ids = np.random.default_rng(0).permutation(10_000)
    rows = [ids[i : i + 100][:: -1 if newest_first else 1].tolist() for i in range(200)]
    assert num_stream_values(lists(rows), np.array([0, 200])) == 299
