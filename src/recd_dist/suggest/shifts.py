"""Histories that shift: what is new in each list, and the stream of all new ids.

::

    lists         1 2 3    2 3 4    2 3 4    3 4 5 6        one session, the newest id last
    new ids       3        1        0        2
    stream        1 2 3 4 5 6                               append-only; each list is a window of it

Lists may grow at either end. The end at which less is new counts for the whole column.
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recd_dist.table.loops import jit

Flags = npt.NDArray[np.bool_]
I64 = npt.NDArray[np.int64]


def count_shifts(column: pa.Array, same_session: Flags) -> tuple[int, int]:
    """Counts the lists that only append to the list before, and the ids that are new.

    Args:
        column: [U] lists, neighbours in clustered order.
        same_session: bool [U], whether the row before belongs to the same session.

    Returns:
        The number of changes that only append, and the number of new ids in all rows.
    """
    _, num_shifts, num_new = _find_new_ids(column, same_session)
    return num_shifts, int(num_new.sum())


def append_only_stream(column: pa.Array, same_session: Flags) -> tuple[pa.Array, I64]:
    """The ids that an append-only stream would store.

    Args:
        column: [U] lists, neighbours in clustered order.
        same_session: bool [U], whether the row before belongs to the same session.

    Returns:
        The ids of the stream, and int64 [U]: how many of them each row adds.
    """
    at_front, _, num_new = _find_new_ids(column, same_session)
    offsets = column.offsets.to_numpy()
    first = offsets[:-1].astype(np.int64) if at_front else offsets[1:] - num_new
    index = np.repeat(first - (np.cumsum(num_new) - num_new), num_new) + np.arange(int(num_new.sum()))
    return pa.array(column.values.to_numpy(zero_copy_only=False)[index]), num_new


def _find_new_ids(column: pa.Array, same_session: Flags) -> tuple[bool, int, I64]:
    """Whether lists grow at the front, how many changes only append there, and the number of new ids, int64 [U]."""
    offsets = column.offsets.to_numpy()
    values = column.values.to_numpy(zero_copy_only=False)
    ends: list[tuple[bool, int, I64]] = []
    for at_front in (False, True):
        num_new = np.empty(len(column), np.int64)
        ends.append((at_front, _count_new_ids(offsets, values, same_session, at_front, num_new), num_new))
    return min(ends, key=lambda end: int(end[2].sum()))


@jit
def _count_new_ids(
    offsets: npt.NDArray[np.int32],
    values: npt.NDArray[np.int64],
    same_session: Flags,
    at_front: bool,
    num_new: I64,
) -> int:
    """Fills in how many ids of each row are new; returns how many changes only append.

    A list overlaps the list before by the longest suffix of that list which it begins with. Where lists grow at the
    front, it is the longest prefix which it ends with. Lists of a few values, each many times, would take long to
    compare: beyond a budget of comparisons all their ids count as new.
    """
    num_shifts = 0
    for row in range(len(offsets) - 1):
        start, length = offsets[row], offsets[row + 1] - offsets[row]
        num_new[row] = length
        if row == 0 or not same_session[row]:
            continue
        before = offsets[row - 1]
        length_before = start - before
        overlap = min(length, length_before)
        budget = 16 * length + 64
        while overlap > 0:
            old = before if at_front else start - overlap
            new = start + length - overlap if at_front else start
            i = 0
            while i < overlap and values[old + i] == values[new + i]:
                i += 1
            if i == overlap:
                break
            budget -= i + 1
            overlap = overlap - 1 if budget > 0 else 0
        num_new[row] = length - overlap
        if overlap < length_before or overlap < length:  # it changed
            num_shifts += 2 * overlap >= length_before and length > 0
    return num_shifts
