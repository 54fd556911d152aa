"""Compiled loops that put rows into a batch as windows, over values that they share.

::

    stored     5 6 7 8 9 9 2 2          windows of the rows that a batch takes: 5 6 7 | 6 7 8 | 2 2
    segments   5 6 7 8 | 2 2            windows that meet, one after the other, share a segment
    starts     0 1 4

Every value of a segment lies in a row, so that a batch holds none that nobody looks at.
"""

from recd_dist.reader.kernels import LENGTHS, STARTS
from recd_dist.table.column import Array
from recd_dist.table.loops import copy_bytes, jit, load_int32

Rows = tuple[Array, Array, Array]
"""homes, chosen and num_runs, as in ``kernels``."""


@jit
def share_windows(places: Array, features: Array, rows: Rows, starts: Array, segments: Array, num_values: Array) -> int:
    """Finds what to copy of features whose rows stay windows, and returns the number of segments.

    Args:
        places: as in ``kernels``.
        features: int64 [W], the features, by their number. Windows that meet share a segment of their values.
        rows: the rows that were chosen.
        starts: int32 [rows of these features], receives where each row begins in the values of its feature.
        segments: int64 [4, at least as many], receives for each segment its feature, its row group, and where in the
            values of that it begins and ends.
        num_values: int64 [F], receives the number of values of these features.
    """
    homes, chosen, num_runs = rows
    last, place = -1, 0
    for f in features:
        home, first_segment, first_place = homes[f], last + 1, place
        for k in range(num_runs[home]):
            row_group, first, size = chosen[home, 0, k], chosen[home, 1, k], chosen[home, 2, k]
            begins, sizes = places[row_group, f, STARTS], places[row_group, f, LENGTHS]
            for i in range(first, first + size):
                begin = int(load_int32(begins, i))
                end = begin + load_int32(sizes, i)
                starts[place] = 0
                place += 1
                if begin == end:
                    continue
                is_new = last < first_segment or segments[1, last] != row_group
                if is_new or begin > segments[3, last] or end < segments[2, last]:
                    last += 1
                    segments[0, last], segments[1, last] = f, row_group
                    segments[2, last], segments[3, last] = begin, end
                else:
                    segments[2, last] = min(segments[2, last], begin)
                    segments[3, last] = max(segments[3, last], end)
        num_values[f] = 0
        for k in range(first_segment, last + 1):
            num_values[f] += segments[3, k] - segments[2, k]
        # A segment may have grown at its beginning: only now it is known where its windows begin.
        segment, before, place = first_segment, 0, first_place
        for k in range(num_runs[home]):
            row_group, first, size = chosen[home, 0, k], chosen[home, 1, k], chosen[home, 2, k]
            begins, sizes = places[row_group, f, STARTS], places[row_group, f, LENGTHS]
            for i in range(first, first + size):
                begin = int(load_int32(begins, i))
                end = begin + load_int32(sizes, i)
                while begin < end and (
                    segments[1, segment] != row_group or begin < segments[2, segment] or end > segments[3, segment]
                ):
                    before += segments[3, segment] - segments[2, segment]
                    segment += 1
                if begin < end:
                    starts[place] = before + begin - segments[2, segment]
                place += 1
    return last + 1


@jit
def gather_segments(places: Array, column: int, segments: Array, item: int, out: int, offsets: Array) -> None:
    """Copies the segments that ``share_windows`` has found.

    Args:
        places: see ``kernels``.
        column: VALUES or WEIGHTS.
        segments: int64 [4, segments].
        item: bytes of a value.
        out: the address to which values are copied.
        offsets: int64 [F + 1], where the values of each feature begin there, in values.
    """
    feature, to = -1, out
    for k in range(segments.shape[1]):
        if segments[0, k] != feature:
            feature = segments[0, k]
            to = out + offsets[feature] * item
        values = places[segments[1, k], feature, column]
        num_bytes = (segments[3, k] - segments[2, k]) * item
        if values:
            copy_bytes(to, values + segments[2, k] * item, num_bytes)
        to += num_bytes
