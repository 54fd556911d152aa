"""Transforms of lists: what becomes of a row depends on its length, or on all of its values."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from recd_dist.table.column import Array, Column, Rows, Windows, gather_slices, offsets_of


def first_x(rows: Rows, x: int) -> Rows:
    """Keeps the first x ids of each list. Lists stand as the SQL made them; histories by custom oldest first."""
    return _cut_lists(rows, lambda starts, lengths: (starts, np.minimum(lengths, x)))


def last_x(rows: Rows, x: int) -> Rows:
    """Keeps the last x ids of each list: the most recent ones of a history that is stored oldest first."""
    return _cut_lists(rows, lambda starts, lengths: (starts + np.maximum(lengths - x, 0), np.minimum(lengths, x)))


def _cut_lists(rows: Rows, cut: Callable[[Array, Array], tuple[Array, Array]]) -> Rows:
    """Keeps a piece of every list, each id with its weight. Windows get other bounds, and copy nothing.

    Args:
        rows: lists; single ids stay as they are.
        cut: computes the starts and lengths of the pieces from those of the lists, [rows].
    """
    if isinstance(rows, Windows):
        starts, lengths = cut(rows.starts, rows.lengths)
        return replace(rows, starts=starts.astype(np.int32), lengths=lengths.astype(np.int32))
    if rows.offsets is None:
        return rows
    starts, lengths = cut(rows.offsets[:-1], np.diff(rows.offsets))
    if lengths.sum() == len(rows.values):
        return rows
    return gather_slices(rows, starts, lengths)


def fill(rows: Rows, value: float) -> Rows:
    """Puts a value where there is none: into an empty list, with weight 1, or for a number that is not finite."""
    if isinstance(rows, Column) and rows.offsets is None:
        if not np.issubdtype(rows.values.dtype, np.floating):
            return rows
        return replace(rows, values=np.where(np.isfinite(rows.values), rows.values, np.float32(value)))
    is_empty = rows.lengths == 0
    if not is_empty.any():
        return rows
    values = np.append(rows.values, rows.values.dtype.type(value))
    weights = None if rows.weights is None else np.append(rows.weights, np.float32(1))
    starts = np.where(is_empty, len(rows.values), starts_of(rows))
    lengths = np.where(is_empty, 1, rows.lengths)
    if isinstance(rows, Windows):
        return Windows(values, starts.astype(np.int32), lengths.astype(np.int32), weights)
    return gather_slices(Column(values, None, weights), starts, lengths)


def normalize_weights(rows: Rows, by: str) -> Rows:
    """Divides the weights of each list by their length: the sum of their amounts, its root of squares, or the largest.

    A list whose weights are all 0 keeps them. With ``by=sum`` a pooled sum is a weighted mean.
    """
    column = rows.to_lists() if isinstance(rows, Windows) else rows
    if column.weights is None:
        return column
    weights, lengths = column.weights.astype(np.float64), column.lengths
    row_of = np.repeat(np.arange(len(column)), lengths)
    sizes: Array = np.zeros(len(column))
    if by == "max":
        np.maximum.at(sizes, row_of, np.abs(weights))
    elif by == "l2":
        sizes = np.sqrt(np.bincount(row_of, np.square(weights), len(column)))
    else:
        sizes = np.bincount(row_of, np.abs(weights), len(column))
    sizes[sizes == 0] = 1.0
    return replace(column, weights=(weights / sizes[row_of]).astype(np.float32))


def starts_of(rows: Rows) -> Array:
    """Where each row begins in the values, [rows]."""
    if isinstance(rows, Windows):
        return rows.starts
    return np.arange(len(rows)) if rows.offsets is None else rows.offsets[:-1]


def take_rows(rows: Rows, chosen: Array) -> Rows:
    """Some rows, each as often as it is asked for; as windows where they are lists, so that nothing is copied.

    Args:
        rows: any.
        chosen: int32 or int64 [R], the rows to take.
    """
    if isinstance(rows, Column) and rows.offsets is None:
        return Column(rows.values[chosen])
    starts, lengths = (of[chosen].astype(np.int32) for of in (starts_of(rows), rows.lengths))
    return Windows(rows.values, starts, lengths, rows.weights)


def pair_places(lengths: list[Array]) -> tuple[Array, list[Array]]:
    """The places of all combinations of the values of several lists, row by row.

    ::

        lists          [a b]  [x y z]         combinations   a x, a y, a z, b x, b y, b z
        places         of the first           0 0 0 1 1 1    of the second   0 1 2 0 1 2

    Args:
        lengths: for each column int64 [rows], the lengths of its lists.

    Returns:
        The number of combinations of each row, int64 [rows], and for each column the place of the value that a
        combination takes in its list, int64 [combinations].
    """
    sizes = np.prod(lengths, axis=0, dtype=np.int64)
    offsets = offsets_of(sizes)
    number = np.arange(offsets[-1]) - np.repeat(offsets[:-1], sizes)
    places: list[Array] = []
    for of_column in reversed(lengths):
        each = np.repeat(of_column, sizes)
        places.insert(0, number % np.maximum(each, 1))
        number = number // np.maximum(each, 1)
    return sizes, places
