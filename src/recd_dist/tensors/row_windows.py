"""Rows that are windows: places in stored values which rows share, instead of lists one after the other.

A history that shifts by one id is nearly the row before::

    lists    [1, 2, 3, 4]  [2, 3, 4, 5]  [3, 4, 5, 6]  |  [9, 8]
    stored    1 2 3 4 5 6                              |   9 8          8 values for 14
    starts    0             1             2            |   6
    lengths   4             4             4            |   2

Every stored value lies in a row. So whoever looks up the stored values looks up what the lists hold, each value once,
and nothing that no row asks for.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from recd_dist.table.column import Array
from recd_dist.table.loops import jit
from recd_dist.tensors.host_side import is_on_host
from recd_dist.tensors.jagged import slice_index


class Stored(NamedTuple):
    """What is stored of a column.

    Attributes:
        values: [V], shared by rows that are windows, or row after row.
        starts: int32 [R], where each row begins in the values; None where rows stand one after the other.
        lengths: int32 [R], the rows' lengths.
        num_list_values: their sum.
    """

    values: Tensor
    starts: Tensor | None
    lengths: Tensor
    num_list_values: int


def lay_out(columns: Sequence[Stored]) -> Tensor:
    """The values of the rows of some columns, one after the other.

    Args:
        columns: columns of one dtype, at least one.

    Returns:
        [sum of the columns' num_list_values]; of one column without windows its own values, not a copy.
    """
    if len(columns) == 1 and columns[0].starts is None:
        return columns[0].values
    if not is_on_host(columns[0].values):
        return torch.cat([v if s is None else v[slice_index(s, n, size)] for v, s, n, size in columns])
    out = columns[0].values.new_empty(sum(column.num_list_values for column in columns))
    at = 0
    for values, starts, lengths, size in columns:
        own = out[at : at + size]
        if starts is None:
            own.copy_(values)
        else:
            copy_rows(values.numpy(), starts.numpy(), lengths.numpy(), own.numpy())
        at += size
    return out


@jit
def copy_rows(values: Array, starts: Array, lengths: Array, out: Array) -> None:
    """Writes the values of windows, row after row.

    Args:
        values: [V], what is stored.
        starts: int32 [R], where each row begins in it.
        lengths: int32 [R], the rows' lengths.
        out: [their sum], receives the values.
    """
    place = 0
    for row in range(len(starts)):
        start, length = starts[row], lengths[row]
        for j in range(length):
            out[place + j] = values[start + j]
        place += length


@jit
def _find_fault(starts: Array, lengths: Array, size: int) -> tuple[int, int]:
    """The first row that leaves ``size`` values, and the first value that lies in no row; -1 for none."""
    end, is_in_order = 0, True
    for row in range(len(starts)):
        start, length = starts[row], lengths[row]
        if start < 0 or length < 0 or start + length > size:
            return row, -1
        if length > 0:
            if start > end:
                is_in_order = False
            end = max(end, start + length)
    if is_in_order and end == size:
        return -1, -1
    depth = np.zeros(size + 1, np.int64)  # rows in any order: how many begin and end at each value
    for row in range(len(starts)):
        depth[starts[row]] += 1
        depth[starts[row] + lengths[row]] -= 1
    rows = 0
    for place in range(size):
        rows += depth[place]
        if rows == 0:
            return -1, place
    return -1, -1


@jit
def find_fault(starts: Array, lengths: Array, keys: Array) -> tuple[int, int, int]:
    """Finds a row that leaves the stored values of its key, or a stored value that lies in no row.

    Args:
        starts: int32, where the rows of keys with windows begin, key after key.
        lengths: int32, the rows' lengths, of other keys too.
        keys: int64 [keys with windows, 3], for each key where its lengths begin, its rows, and its stored values.

    Returns:
        The number of the key among those with windows, the row or -1, and the value or -1; three times -1 for no fault.
    """
    at = 0
    for key in range(len(keys)):
        first, num_rows, size = keys[key]
        row, place = _find_fault(starts[at : at + num_rows], lengths[first : first + num_rows], size)
        if row >= 0 or place >= 0:
            return key, row, place
        at += num_rows
    return -1, -1, -1
