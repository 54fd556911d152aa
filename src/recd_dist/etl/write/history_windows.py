"""Histories that shift, stored as windows over streams of ids.

::

    rows           [1 2 3 4]  [2 3 4 5]  [3 4 5 6]  |  [9 8]  [9 8 7]
    streams         1 2 3 4 5 6                     |   9 8 7            one list each, in <group>.stream
    stream             0          0          0             1      1
    start, length    0, 4       1, 4       2, 4           0, 2   0, 3

A stream only grows. Each row is searched for in the stream's tail, from where the row before it begins: the first
position counts at which row and tail have the same ids as far as both go. The ids of the row that lie beyond the tail
are appended; a row that is not found is appended whole. A new stream begins where no feature of the group shares an id
with the rows before. Lists that grow at the front (newest first) are found when the rows are taken from last to first.
In every row group, each feature takes the direction that gives the shorter stream.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from recd_dist.table.column import Column, gather_slices, join_columns
from recd_dist.table.flat_columns import Flags, Numbers, Order, bits, slice_of
from recd_dist.table.loops import jit

Starts = npt.NDArray[np.int32]
_NO_STARTS = np.zeros(0, np.int32)
_NO_WEIGHTS = np.zeros(0, np.int32)


@dataclass(frozen=True)
class _LaidRows:
    """The rows of one feature, laid over one endless stream in one direction.

    Attributes:
        values: the ids of the stream.
        weights: the bits of the ids' weights; empty for unweighted ids.
        starts: int64 [rows], where each row begins in the stream.
        alone: bool [rows], the row shares no id with the rows that were laid before it.
        backwards: the rows were laid from last to first.
        weighted: the ids have weights.
    """

    values: Numbers
    weights: npt.NDArray[np.int32]
    starts: Order
    alone: Flags
    backwards: bool
    weighted: bool

    @property
    def cuts(self) -> Flags:
        """Bool [rows]: the endless stream may be cut so that a stream begins with this row."""
        return np.append(True, self.alone[:-1]) if self.backwards else self.alone


@dataclass(frozen=True)
class Windows:
    """The rows of one row group as windows.

    Attributes:
        stream: int64 [rows], the number of each row's stream, from 0 and never decreasing.
        starts: for each feature int32 [rows], where each row's window begins in its stream.
        streams: the lists of the streams of each feature.
    """

    stream: Order
    starts: tuple[Starts, ...]
    streams: tuple[Column, ...]


def lay_windows(columns: tuple[Column, ...]) -> Windows:
    """Lays the rows of one row group over streams.

    Args:
        columns: the lists [rows] of each windowed feature of a group, at least one row.
    """
    laid = [_lay_rows(column) for column in columns]
    begins = np.logical_and.reduce([rows.cuts for rows in laid])
    begins[0] = True
    stream = np.cumsum(begins) - 1
    pieces = [_cut_streams(rows, begins, stream) for rows in laid]
    return Windows(stream, tuple(starts for starts, _ in pieces), tuple(lists for _, lists in pieces))


@dataclass(frozen=True)
class Streams:
    """The rows of some row groups as windows.

    Attributes:
        stream: int64 [rows], the number of each row's stream, counted over all row groups.
        starts: for each feature int32 [rows], where each row's window begins in its stream.
        lists: the lists of the streams of each feature.
        bounds: int64 [row groups + 1], where the streams of each row group begin and end.
    """

    stream: Order
    starts: dict[str, Starts]
    lists: dict[str, Column]
    bounds: Order


def build_streams(columns: dict[str, Column], bounds: Order) -> Streams:
    """Lays the rows of some row groups over streams; no stream reaches from one row group into the next.

    Args:
        columns: the lists [rows] of each windowed feature of a group.
        bounds: int64 [row groups + 1], where the rows of each row group begin and end; none is empty.
    """
    laid = [lay_windows(tuple(slice_of(c, a, b) for c in columns.values())) for a, b in pairwise(bounds.tolist())]
    ends = np.cumsum([0, *(len(windows.streams[0]) for windows in laid)])
    stream = [windows.stream + end for windows, end in zip(laid, ends, strict=False)]
    starts, lists = {}, {}
    for i, (name, column) in enumerate(columns.items()):
        starts[name] = np.concatenate([_NO_STARTS, *(windows.starts[i] for windows in laid)])
        lists[name] = join_columns([slice_of(column, 0, 0), *(windows.streams[i] for windows in laid)])
    return Streams(np.concatenate([np.empty(0, np.int64), *stream]), starts, lists, ends)


def num_stream_values(column: Column, bounds: Order) -> int:
    """Counts the ids of the streams that some rows need.

    Args:
        column: lists [rows].
        bounds: int64 [row groups + 1], where the rows of each row group begin and end.
    """
    return sum(len(_lay_rows(slice_of(column, a, b)).values) for a, b in pairwise(bounds.tolist()))


def _lay_rows(column: Column) -> _LaidRows:
    """Lays rows over an endless stream, in the direction that makes it shorter."""
    forwards, backwards = _lay_in_direction(column, False), _lay_in_direction(column, True)
    return backwards if len(backwards.values) < len(forwards.values) else forwards


def _lay_in_direction(column: Column, backwards: bool) -> _LaidRows:
    offsets = np.asarray(column.offsets)
    weights = _NO_WEIGHTS if column.weights is None else bits(column.weights)
    num_rows, num_values = len(column), int(offsets[-1] - offsets[0])
    out = np.empty(num_values, column.values.dtype)
    out_weights = np.empty(num_values if len(weights) else 0, np.int32)
    starts, alone = np.empty(num_rows, np.int64), np.empty(num_rows, np.bool_)
    end = _fill_stream(column.values, weights, offsets, backwards, out, out_weights, starts, alone)
    return _LaidRows(out[:end], out_weights[:end], starts, alone, backwards, column.weights is not None)


def _cut_streams(rows: _LaidRows, begins: Flags, stream: Order) -> tuple[Starts, Column]:
    """Cuts the endless stream into streams.

    Args:
        rows: the rows as they lie over the endless stream.
        begins: bool [rows], a stream begins with this row.
        stream: int64 [rows], the number of each row's stream.

    Returns:
        int32 [rows], where each row begins in its stream; and the lists of the streams.
    """
    first = np.flatnonzero(begins)
    if rows.backwards:
        last = np.append(first[1:], len(begins)) - 1
        cuts = rows.starts[last]
        ends = np.append(len(rows.values), cuts[:-1])
    else:
        cuts = rows.starts[first]
        ends = np.append(cuts[1:], len(rows.values))
    endless = Column(rows.values, None, rows.weights.view(np.float32) if rows.weighted else None)
    return (rows.starts - cuts[stream]).astype(np.int32), gather_slices(endless, cuts, ends - cuts)


@jit
def _fill_stream(
    values: npt.NDArray[np.integer],
    weights: npt.NDArray[np.integer],
    offsets: npt.NDArray[np.int64],
    backwards: bool,
    out: npt.NDArray[np.integer],
    out_weights: npt.NDArray[np.int32],
    starts: Order,
    alone: Flags,
) -> int:
    """Lays rows over one endless stream.

    Args:
        values: the ids of all rows.
        weights: int32, the bits of their weights; empty for unweighted ids.
        offsets: int64 [rows + 1], where each row begins in ``values``.
        backwards: take the rows from last to first.
        out: receives the ids of the stream; has room for those of all rows.
        out_weights: receives the bits of their weights.
        starts: int64 [rows], receives where each row begins in the stream.
        alone: bool [rows], receives whether the row shares no id with the rows before it.

    Returns:
        The length of the stream.
    """
    num_rows, begin, end = len(offsets) - 1, 0, 0
    weighted = len(weights) > 0
    for j in range(num_rows):
        row = num_rows - 1 - j if backwards else j
        first, length = offsets[row], offsets[row + 1] - offsets[row]
        position, budget = begin, 8 * (length + end - begin) + 64
        while position < end:
            num, same = min(end - position, length), 0
            while same < num and out[position + same] == values[first + same]:
                if weighted and out_weights[position + same] != weights[first + same]:
                    break
                same += 1
            if same == num:
                break
            position += 1
            budget -= same + 1
            if budget < 0:  # with few distinct ids the search would become quadratic: the row is appended whole
                position = end
        starts[row], alone[row] = position, position == end
        shared = min(end - position, length)
        for i in range(shared, length):
            out[end] = values[first + i]
            if weighted:
                out_weights[end] = weights[first + i]
            end += 1
        begin = position
    return end
