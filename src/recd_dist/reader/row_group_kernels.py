"""Compiled loops that put the files of a row group together: numbers of rows, and windows over streams.

Each takes all groups, or all features, of a row group in one call, by the addresses of their arrays.
"""

from recd_dist.table.column import Array
from recd_dist.table.loops import jit, load_int32, load_int64, store_int32


@jit
def count_from_first(numbers: Array, sizes: Array, stored: Array, num_stored: Array, out: Array) -> int:
    """Counts numbers that refer to stored rows from the first of these.

    Args:
        numbers: int64 [K], addresses of int64 numbers.
        sizes: int64 [K], how many there are.
        stored: int64 [K], addresses of the numbers of the stored rows, int64, one after the other.
        num_stored: int64 [K], how many there are.
        out: int64 [K], addresses that receive int32 in [0, num_stored).

    Returns:
        -1; or the first K whose numbers refer to other rows.
    """
    for k in range(len(numbers)):
        size = num_stored[k]
        first = load_int64(stored[k], 0) if size else 0
        if size and sizes[k] and load_int64(stored[k], size - 1) - first != size - 1:
            return k
        are_there = True
        for i in range(sizes[k]):
            number = load_int64(numbers[k], i) - first
            are_there &= (number >= 0) & (number < size)
            store_int32(out[k], i, number)
        if not are_there:
            return k
    return -1


@jit
def place_windows(windows: Array, num_rows: Array, out: Array) -> int:
    """Finds where windows over single streams begin in the values of all streams.

    Args:
        windows: int64 [K, 4], addresses of what each feature has: starts and lengths of windows, int32 [rows]; the
            stream of each row, int32 [rows]; and the offsets of streams, int32 [streams + 1].
        num_rows: int64 [K].
        out: int64 [K], addresses that receive int32 [rows].

    Returns:
        -1; or the first K with a window that leaves its stream.
    """
    for k in range(len(windows)):
        starts, lengths, streams, offsets = windows[k]
        are_fine = True
        for i in range(num_rows[k]):
            stream, start, length = load_int32(streams, i), load_int32(starts, i), load_int32(lengths, i)
            first, end = load_int32(offsets, stream), load_int32(offsets, stream + 1)
            are_fine &= (start >= 0) & (length >= 0) & (length <= end - first - start)
            store_int32(out[k], i, first + start)
        if not are_fine:
            return k
    return -1
