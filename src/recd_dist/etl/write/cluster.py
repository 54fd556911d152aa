"""Clustering: the order of samples, the row groups, and which rows repeat the row before.

::

    session   a  a  a  b  b          one session's samples lie together, in order of time
    history   x  x  y  y  z
    changed   1  0  1  0  1          compared with the neighbour, by value, within one row group
    rows      x     y     z          what is stored
    inverse   0  0  1  1  2

Comparing neighbours finds what hashing finds on clustered data (6.262 of 6.263 measured) at memory speed.
"""

import math

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recd_dist.etl.write.flat_columns import Flags
from recd_dist.etl.write.flat_columns import changed as changed_rows
from recd_dist.table.column import Column

Rows = npt.NDArray[np.int64]

MAX_ROW_GROUPS = 8
"""A session longer than so many row groups is cut."""


def row_group_bounds(session: npt.NDArray[np.int64], num_samples: int) -> tuple[Rows, int]:
    """Where row groups begin and end: about equally large, sessions whole unless they are very long.

    A session of more than ``MAX_ROW_GROUPS * num_samples`` samples is cut into pieces of that size, each of which is
    then dealt like a session: one session of a million samples must not make one row group of a million.

    Args:
        session: int64 [N], clustered.
        num_samples: the most samples of a row group, unless one session has more.

    Returns:
        int64 [row groups + 1], from 0 to N; and the number of sessions that were cut.
    """
    ends = np.append(np.flatnonzero(session[1:] != session[:-1]) + 1, len(session))
    ends, num_cut = _cut(ends, MAX_ROW_GROUPS * num_samples)
    bounds = [0]
    while bounds[-1] < len(session):
        start = bounds[-1]
        left = len(session) - start
        aim = start + left / math.ceil(left / num_samples)
        last = int(np.searchsorted(ends, aim))  # the first session that ends there or later
        choices = [int(end) for end in ends[max(last - 1, 0) : last + 1] if start < end <= start + num_samples]
        if not choices:
            choices = [int(ends[np.searchsorted(ends, start, side="right")])]
        bounds.append(min(choices, key=lambda end: abs(end - aim)))
    return np.asarray(bounds, np.int64), num_cut


def _cut(ends: Rows, limit: int) -> tuple[Rows, int]:
    """Adds ends inside sessions that are longer than the limit."""
    starts = np.append(0, ends[:-1])
    long = np.flatnonzero(ends - starts > limit)
    inner = [np.arange(starts[i] + limit, ends[i], limit) for i in long]
    return np.sort(np.concatenate([ends, *inner])), len(long)


def changed(column: pa.Array) -> Flags:
    """Which rows of a stored column differ from the row before, lengths and values; the first always does.

    Args:
        column: [N] numbers or lists of numbers, without nulls.

    Returns:
        bool [N].
    """
    is_list = pa.types.is_list(column.type)
    values = (column.values if is_list else column).to_numpy(zero_copy_only=False)
    rows = Column(values, column.offsets.to_numpy() if is_list else None)
    return changed_rows(rows, np.arange(len(column)))


def changed_numbers(numbers: npt.NDArray[np.generic]) -> Flags:
    """:func:`changed` for plain numbers [N]."""
    flags = np.ones(len(numbers), np.bool_)
    np.not_equal(numbers[1:], numbers[:-1], out=flags[1:])
    return flags
