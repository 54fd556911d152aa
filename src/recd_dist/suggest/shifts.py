"""Histories that shift: how many lists only append to the list before.

::

    lists         1 2 3    2 3 4    2 3 4    3 4 5 6    8 9        one session, the newest id last
    appends                  yes      -        yes       no

Lists may grow at either end. The end at which more of them grow counts for the whole column.
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recd_dist.table.loops import jit

Flags = npt.NDArray[np.bool_]


def count_shifts(column: pa.Array, same_session: Flags) -> int:
    """Counts the lists that differ from the list before, and only append to it.

    Args:
        column: [U] lists, neighbours in clustered order.
        same_session: bool [U], whether the row before belongs to the same session.
    """
    offsets = column.offsets.to_numpy()
    values = column.values.to_numpy(zero_copy_only=False)
    return max(int(_count_appending(offsets, values, same_session, at_front)) for at_front in (False, True))


@jit
def _count_appending(
    offsets: npt.NDArray[np.int32], values: npt.NDArray[np.int64], same_session: Flags, at_front: bool
) -> int:
    """Counts the lists that append to the list before: at least half of that list stays, at the other end.

    A list overlaps the list before by the longest suffix of that list which it begins with. Where lists grow at the
    front, it is the longest prefix which it ends with. Lists of a few values, each many times, would take long to
    compare: beyond a budget of comparisons they do not count.
    """
    num_appending = 0
    for row in range(1, len(offsets) - 1):
        if not same_session[row]:
            continue
        start, length = offsets[row], offsets[row + 1] - offsets[row]
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
        if overlap < length_before or overlap < length:  # it changed
            num_appending += 2 * overlap >= length_before and length > 0
    return num_appending
