"""Values of a request: Arrow arrays of every layout give the same rows as Python lists, and what is wrong is said."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from recd_dist.exported.given_values import read_column
from recd_dist.exported.request_schema import RequestError, RequestFeature
from recd_dist.table.column import Column
from recd_dist.table.schema import Feature, Kind

TEXTS: list[Any] = [["a", "b"], [], None, ["c"], ["a", None]]
IDS: list[Any] = [[1, 2], [], None, [3], [1, None]]
WEIGHTS = [[0.5, 2.0], [], None, [1.0], [3.0, 1.0]]


def read(values: Any, size: int, kind: Kind = Kind.ids, weights: Any = None) -> Column:
    name = None if weights is None else "w"
    table = None if kind is Kind.dense else "t"
    feature = RequestFeature("f", kind, name, takes_text=True)
    return read_column(feature, values, weights, Feature("f", kind, table=table, weights=name), False, size)


def arrays(rows: list[Any], item: pa.DataType) -> list[pa.Array]:
    """The same lists in every layout of Arrow; and as part of a longer array, in one chunk and in two."""
    plain = pa.list_(item)
    longer = pa.array([rows[0], *rows, rows[0]], plain)[1:-1]
    layouts = [pa.large_list(item), pa.list_view(item), pa.large_list_view(item)]
    return [longer, pa.chunked_array([longer[:2], longer[2:]]), *(pa.array(rows, kind) for kind in layouts)]


def assert_equal(found: Column, wanted: Column) -> None:
    np.testing.assert_array_equal(found.values, wanted.values)
    np.testing.assert_array_equal(found.offsets, wanted.offsets)
    assert found.offsets is not None
    assert (int(found.offsets[0]), int(found.offsets[-1])) == (0, len(found.values))
    if wanted.weights is not None:
        np.testing.assert_array_equal(found.weights, wanted.weights)


@pytest.mark.parametrize(
    ("rows", "item"),
    [
        (IDS, pa.int64()),
        (IDS, pa.int8()),
        (IDS, pa.uint64()),
        (TEXTS, pa.string()),
        (TEXTS, pa.large_string()),
        (TEXTS, pa.string_view()),
        (TEXTS, pa.dictionary(pa.int32(), pa.string())),
    ],
)
def test_lists_of_every_layout_are_the_same_rows(rows: list[Any], item: pa.DataType) -> None:
    wanted = read(rows, len(rows))
    assert wanted.lengths.tolist() == [2, 0, 0, 1, 1]
    for array in arrays(rows, item) if not pa.types.is_dictionary(item) else [pa.array(rows, pa.list_(item))]:
        assert_equal(read(array, len(rows)), wanted)


def test_lists_without_gaps_and_of_one_length() -> None:
    rows = [[1, 2], [3, 4], [5, 6]]
    for array in (pa.array(rows, pa.list_(pa.int64(), 2)), pa.array([[9], *rows], pa.list_(pa.int64()))[1:]):
        assert_equal(read(array, 3), read(rows, 3))


def test_weights_of_every_layout_are_the_same_weights() -> None:
    wanted = read(IDS, len(IDS), weights=WEIGHTS)
    assert wanted.weights is not None
    assert wanted.weights.tolist() == [0.5, 2.0, 1.0, 3.0]
    for ids, weights in zip(arrays(IDS, pa.int64()), arrays(WEIGHTS, pa.float64()), strict=True):
        assert_equal(read(ids, len(IDS), weights=weights), wanted)


@pytest.mark.parametrize(
    ("values", "kind", "weights", "said"),
    [
        ([1.0, 1e39], Kind.dense, None, "row 1 is inf"),
        ([1e300], Kind.dense, None, "row 0 is inf"),
        ([1, None], Kind.id, None, "row 1 is missing; give an id"),
        ([True], Kind.id, None, "each row must be one id or text"),
        ([3.0], Kind.id, None, "each row must be one id or text"),
        ([[1, 2]], Kind.ids, [[1.0]], "has 2 ids and 1 weights in 'w'; give each id its weight"),
        ([[1], [2]], Kind.ids, [[1.0]], "'w': not for each row a list of weights"),
        ([[1]], Kind.ids, [["a"]], "'w': not for each row a list of numbers"),
        ([[1]], Kind.ids, [[True]], "'w': not for each row a list of numbers"),
    ],
)
def test_what_is_wrong_is_said(values: list[Any], kind: Kind, weights: Any, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        read(values, len(values), kind, weights)
