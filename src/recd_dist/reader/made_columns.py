"""Columns that are made from others, once for each stored row.

::

    country   5  7  7        country x device    h(5,1)  h(7,1)  h(7,2)      one id, hashed into [0, n)
    device    1  1  2        device_is_1         1       1       0           one number, 0 or 1
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from recd_dist.reader.list_transforms import pair_places, starts_of
from recd_dist.table.column import Column, Rows, offsets_of
from recd_dist.table.hash import GOLDEN, scramble


def copy(inputs: Sequence[Rows]) -> Rows:
    """The same rows under another name, for transforms of their own; without weights."""
    (rows,) = inputs
    return replace(rows, weights=None)


def cross(inputs: Sequence[Rows], n: int) -> Column:
    """One id for each combination of the values of a row, hashed into [0, n).

    Of lists every combination counts: a list of 2 and one of 3 make 6 ids, an empty list makes none. The order of the
    inputs matters. Distinct combinations may share an id.

    Args:
        inputs: single ids, lists, or numbers that are whole (buckets), with as many rows each.
        n: the ids are less.
    """
    values, sizes = [rows.values for rows in inputs], None
    if not all(is_single(rows) for rows in inputs):
        sizes, places = pair_places([rows.lengths for rows in inputs])
        starts = [np.repeat(starts_of(rows), sizes) for rows in inputs]
        values = [v[s + p] for v, s, p in zip(values, starts, places, strict=True)]
    state = np.full(len(values[0]), GOLDEN)
    for of_input in values:
        state = scramble(state ^ of_input.astype(np.int64).view(np.uint64)) + GOLDEN
    ids = (scramble(state) % np.uint64(n)).astype(np.int64)
    return Column(ids, None if sizes is None else offsets_of(sizes))


def one_hot(inputs: Sequence[Rows], value: int) -> Column:
    """1.0 for each row that holds a value, also among others in a list; 0.0 for the rest.

    Args:
        inputs: ids, lists, or numbers that are whole (buckets).
        value: the value.
    """
    (rows,) = inputs
    found = rows.values == value
    if not is_single(rows):
        before, starts = np.concatenate([[0], np.cumsum(found)]), starts_of(rows)
        found = before[starts + rows.lengths] > before[starts]
    return Column(found.astype(np.float32))


def is_single(rows: Rows) -> bool:
    """Whether every row holds one value."""
    return isinstance(rows, Column) and rows.offsets is None
