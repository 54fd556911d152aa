"""Rows get the number that they have among all rows, in whatever order the blocks of the files come."""

import pyarrow as pa

from recd_dist.etl.spark.sql.row_place import PLACE, change_points, number_batches

FIRST_ROWS = {("a", 0): 0, ("a", 128): 3, ("b", 0): 5}


def batch(*rows: tuple[str, int, int]) -> pa.RecordBatch:
    columns = zip(*rows, strict=True) if rows else ([], [], [])
    arrays = [pa.array(c, t) for c, t in zip(columns, (pa.string(), pa.int64(), pa.int64()), strict=True)]
    return pa.RecordBatch.from_arrays(arrays, names=[*PLACE, "x"])


def test_batches_are_cut_where_a_block_ends() -> None:
    batches = [batch(("b", 0, 50)), batch(("b", 0, 51), ("a", 0, 0), ("a", 0, 1)), batch(("a", 0, 2), ("a", 128, 3))]
    numbered = [(first, piece["x"].to_pylist()) for first, piece in number_batches(iter(batches), FIRST_ROWS)]
    assert numbered == [(5, [50]), (6, [51]), (0, [0, 1]), (2, [2]), (3, [3])]


def test_numbers_are_unknown_where_the_order_does_not_count() -> None:
    batches = [batch(("b", 0, 50), ("a", 0, 0)), batch()]
    assert [(first, piece.num_rows) for first, piece in number_batches(iter(batches), None)] == [(None, 2), (None, 0)]


def test_change_points_are_rows_that_differ_from_the_one_before() -> None:
    assert change_points(pa.array(["a", "a", "b", "b"]), pa.array([0, 1, 1, 1])) == [1, 2]
    assert change_points(pa.array(["a"])) == change_points(pa.array([], pa.string())) == []
