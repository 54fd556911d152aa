"""Compiled loops that put rows into a batch as windows, over values that they share.

::

    stored     5 6 7 8 9 9 2 2          windows of the rows that a batch takes: 5 6 7 | 6 7 8 | 2 2
    segments   5 6 7 8 | 2 2            windows that meet, one after the other, share a segment
    starts     0 1 4

Every value of a segment lies in a row, so that a batch holds none that nobody looks at.
"""

from recd_dist.reader.kernels import LENGTHS, STARTS
from recd_dist.table.column import Array
from recd_dist.table.loops import copy_bytes, int32s_at, jit


@jit
def share_windows(
    places: Array,
    features: Array,
    homes: Array,
    chosen: Array,
    num_runs: Array,
    starts: Array,
    segments: Array,
    num_values: Array,
) -> int:
    """Finds what to copy of features whose rows stay windows: windows that meet share a segment of values.

    Args:
        places: see ``kernels``.
        features: int64 [W], the features, by their number.
        homes: int64 [F], for each feature which of the chosen rows it has.
        chosen: int32 [homes, 3, capacity], runs of rows.
        num_runs: int64 [homes].
        starts: int32 [rows of these features], receives where each row begins in the values of its feature.
        segments: int64 [4, at least as many], receives for each segment its feature, its row group, and where in the
            values of that it begins and ends.
        num_values: int64 [F], receives the number of values of these features.

    Returns:
        The number of segments.
    """
    last, place = -1, 0
    for f in features:
        runs, first_segment = chosen[homes[f]], last + 1
        for k in range(num_runs[homes[f]]):
            row_group, first, size = runs[0, k], runs[1, k], runs[2, k]
            begins = int32s_at(places[row_group, f, STARTS] + 4 * first, size)
            sizes = int32s_at(places[row_group, f, LENGTHS] + 4 * first, size)
            for i in range(size):
                begin, end = int(begins[i]), int(begins[i]) + sizes[i]
                meets = (
                    last >= first_segment
                    and segments[1, last] == row_group
                    and begin <= segments[3, last]
                    and end >= segments[2, last]
                )
                if sizes[i] and meets:
                    segments[2, last] = min(segments[2, last], begin)
                    segments[3, last] = max(segments[3, last], end)
                elif sizes[i]:
                    last += 1
                    segments[0, last], segments[1, last], segments[2, last], segments[3, last] = (
                        f,
                        row_group,
                        begin,
                        end,
                    )
        num_values[f] = _place_windows(
            places, runs[:, : num_runs[homes[f]]], segments[:, first_segment : last + 1], f, starts[place:]
        )
        for k in range(num_runs[homes[f]]):
            place += runs[2, k]
    return last + 1


@jit
def _place_windows(places: Array, runs: Array, segments: Array, feature: int, starts: Array) -> int:
    """Writes where the windows of a feature begin in its segments, laid side by side, and returns their length."""
    number, before, place = 0, 0, 0
    for k in range(runs.shape[1]):
        row_group, first, size = runs[0, k], runs[1, k], runs[2, k]
        begins = int32s_at(places[row_group, feature, STARTS] + 4 * first, size)
        sizes = int32s_at(places[row_group, feature, LENGTHS] + 4 * first, size)
        for i in range(size):
            starts[place + i] = 0
            if sizes[i]:
                # Rows come in the order in which they were put into segments.
                while not (
                    segments[1, number] == row_group
                    and segments[2, number] <= begins[i]
                    and begins[i] + sizes[i] <= segments[3, number]
                ):
                    before += segments[3, number] - segments[2, number]
                    number += 1
                starts[place + i] = before + begins[i] - segments[2, number]
        place += size
    for k in range(number, segments.shape[1]):
        before += segments[3, k] - segments[2, k]
    return before


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
