"""What is missing is filled and counted: literals in, literals out."""

import math

import pyarrow as pa
import pytest

from recd_dist.errors import DataError
from recd_dist.etl.write.stored_types import convert_column, list_type
from recd_dist.table.fill_nulls import fill_nulls
from recd_dist.table.schema import Feature, Kind

LISTS, WEIGHTS = pa.list_(pa.int64()), pa.list_(pa.float32())


@pytest.mark.parametrize(
    ("kind", "raw", "stored", "rows", "num_missing"),
    [
        (Kind.ids, pa.array([[1, None, 2], None, [], [3]], LISTS), list_type(pa.int32()), [[1, 2], [], [], [3]], 2),
        (Kind.ids, pa.array([7, None, 9], pa.int64()), list_type(pa.int64()), [[7], [], [9]], 1),
        (Kind.ids, pa.array([[9], [1, 2], [3]], LISTS).slice(1), list_type(pa.int64()), [[1, 2], [3]], 0),
        (Kind.id, pa.array([7, 9], pa.int64()), pa.int32(), [7, 9], 0),
        (Kind.dense, pa.array([0.5, None, math.nan, math.inf], pa.float32()), pa.float32(), [0.5, 0.0, 0.0, 0.0], 3),
    ],
)
def test_raw_columns_become_stored_ones(kind, raw, stored, rows, num_missing):
    for column in (raw, pa.chunked_array([raw.slice(0, 1), raw.slice(1)])):
        array, num = convert_column(column, kind, stored)
        assert array.type == stored
        assert (array.to_pylist(), num) == (rows, num_missing)


def test_weights_go_with_their_ids():
    table = pa.table(
        {
            "items": pa.array([[1, None, 2], None, [3, 4]], LISTS),
            "heat": pa.array([[0.5, 0.25, math.nan], None, [1.0, None]], WEIGHTS),
        }
    )
    filled = fill_nulls(table, Feature("items", Kind.ids, table="item", weights="heat"), str)
    assert filled.column.values.tolist() == [1, 2, 3, 4]
    assert filled.column.weights.tolist() == [0.5, 0.0, 1.0, 0.0]
    assert filled.column.offsets.tolist() == [0, 2, 2, 4]
    assert filled.missing.tolist() == [2, 1, 1]


def test_weights_of_another_length_are_refused():
    table = pa.table({"items": pa.array([[1], [1, 2]], LISTS), "heat": pa.array([[0.5], [0.5]], WEIGHTS)})
    feature = Feature("items", Kind.ids, table="item", weights="heat")
    with pytest.raises(DataError, match="row 1: feature 'items' has 2 ids and 1 weights in 'heat'"):
        fill_nulls(table, feature, lambda row: f"row {row}")
