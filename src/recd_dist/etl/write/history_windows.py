"""Histories that shift, stored as windows over a stream of ids that only grows.

::

    unique rows    [1 2 3 4]  [2 3 4 5]  [3 4 5 6]  |  [9 8]  [9 8 7]
    streams         1 2 3 4 5 6                     |   9 8 7            one list each, in <group>.stream
    stream             0          0          0             1      1
    start, length    0, 4       1, 4       2, 4           0, 2   0, 3

The next row is looked for in the tail of the stream, from where the row before begins: at the first place where both
agree as far as both go. What lies beyond is appended; a row that agrees nowhere is appended whole. A new stream begins
where no feature of the group shares an id with what came before. Lists that grow at the front (newest first) are found
by running through the rows backwards. Every row group takes, per feature, the direction that gives the shorter stream.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from recd_dist.etl.write.flat_columns import Flags, Numbers, Order, bits, slice_of
from recd_dist.table.column import Column, gather_slices, join_columns
from recd_dist.table.loops import jit

Places = npt.NDArray[np.int32]
_NO_PLACES = np.zeros(0, np.int32)
_NO_WEIGHTS = np.zeros(0, np.int32)


@dataclass(frozen=True)
class _Run:
    """One feature's rows laid over an endless stream, in one direction.

    Attributes:
        values, weights: the stream; weights as bits, empty for unweighted ids.
        starts: int64 [rows], where each row begins.
        alone: bool [rows], nothing is shared with the rows that were laid before.
        backwards: the last row was laid first.
    """

    values: Numbers
    weights: npt.NDArray[np.int32]
    starts: Order
    alone: Flags
    backwards: bool
    weighted: bool

    @property
    def cuts(self) -> Flags:
        """Bool [rows]: a stream may begin with this row."""
        return np.append(True, self.alone[:-1]) if self.backwards else self.alone


@dataclass(frozen=True)
class Windows:
    """Rows as windows, one row group.

    Attributes:
        stream: int64 [rows], the stream of each row, from 0, never decreasing.
        starts: per feature int32 [rows], where its window begins in the stream's list.
        streams: per feature the streams' lists.
    """

    stream: Order
    starts: tuple[Places, ...]
    streams: tuple[Column, ...]


def windows(columns: tuple[Column, ...]) -> Windows:
    """Unique rows of one row group as windows over streams.

    Args:
        columns: of the windowed features of a group, lists [rows] each, at least one row.
    """
    runs = [_shorter(column) for column in columns]
    begins = np.logical_and.reduce([run.cuts for run in runs])
    begins[0] = True
    stream = np.cumsum(begins) - 1
    pieces = [_cut(run, begins, stream) for run in runs]
    return Windows(stream, tuple(starts for starts, _ in pieces), tuple(lists for _, lists in pieces))


@dataclass(frozen=True)
class Streams:
    """A part's windows.

    Attributes:
        stream: int64 [rows], the stream of each row, counted in the part.
        starts: per feature int32 [rows].
        lists: per feature the streams' lists.
        bounds: int64 [row groups + 1], streams of each row group.
    """

    stream: Order
    starts: dict[str, Places]
    lists: dict[str, Column]
    bounds: Order


def streamed(columns: dict[str, Column], bounds: Order) -> Streams:
    """Unique rows of a part as windows; no stream reaches from one row group into the next.

    Args:
        columns: of the windowed features of a group, lists [rows].
        bounds: int64 [row groups + 1], rows of each row group, at least one.
    """
    found = [windows(tuple(slice_of(c, a, b) for c in columns.values())) for a, b in pairwise(bounds.tolist())]
    sizes = [len(one.streams[0]) for one in found]
    ends = np.cumsum([0, *sizes])
    lists = {n: [slice_of(c, 0, 0), *(one.streams[i] for one in found)] for i, (n, c) in enumerate(columns.items())}
    return Streams(
        np.concatenate([np.empty(0, np.int64), *(one.stream + end for one, end in zip(found, ends, strict=False))]),
        {n: np.concatenate([_NO_PLACES, *(one.starts[i] for one in found)]) for i, n in enumerate(columns)},
        {name: join_columns(pieces) for name, pieces in lists.items()},
        ends,
    )


def num_streamed(column: Column, bounds: Order) -> int:
    """Values of the streams that these rows need.

    Args:
        column: lists [rows].
        bounds: int64 [row groups + 1], rows of each row group.
    """
    return sum(len(_shorter(slice_of(column, a, b)).values) for a, b in pairwise(bounds.tolist()))


def _shorter(column: Column) -> _Run:
    forwards, backwards = _laid(column, False), _laid(column, True)
    return backwards if len(backwards.values) < len(forwards.values) else forwards


def _laid(column: Column, backwards: bool) -> _Run:
    offsets = np.asarray(column.offsets)
    weights = _NO_WEIGHTS if column.weights is None else bits(column.weights)
    num_rows, num_values = len(column), int(offsets[-1] - offsets[0])
    out = np.empty(num_values, column.values.dtype)
    out_weights = np.empty(num_values if len(weights) else 0, np.int32)
    starts, alone = np.empty(num_rows, np.int64), np.empty(num_rows, np.bool_)
    end = _lay(column.values, weights, offsets, backwards, out, out_weights, starts, alone)
    return _Run(out[:end], out_weights[:end], starts, alone, backwards, column.weights is not None)


def _cut(run: _Run, begins: Flags, stream: Order) -> tuple[Places, Column]:
    """The endless stream cut where streams begin: starts within each piece, and the pieces in order."""
    first = np.flatnonzero(begins)
    if run.backwards:
        last = np.append(first[1:], len(begins)) - 1
        piece = run.starts[last]
        ends = np.append(len(run.values), piece[:-1])
    else:
        piece = run.starts[first]
        ends = np.append(piece[1:], len(run.values))
    endless = Column(run.values, None, run.weights.view(np.float32) if run.weighted else None)
    return (run.starts - piece[stream]).astype(np.int32), gather_slices(endless, piece, ends - piece)


@jit
def _lay(
    values: npt.NDArray[np.integer],
    weights: npt.NDArray[np.integer],
    offsets: npt.NDArray[np.int64],
    backwards: bool,
    out: npt.NDArray[np.integer],
    out_weights: npt.NDArray[np.int32],
    starts: Order,
    alone: Flags,
) -> int:
    """Lays rows over a stream; returns its length."""
    num_rows, begin, end = len(offsets) - 1, 0, 0
    weighted = len(weights) > 0
    for j in range(num_rows):
        row = num_rows - 1 - j if backwards else j
        first, length = offsets[row], offsets[row + 1] - offsets[row]
        place, budget = begin, 8 * (length + end - begin) + 64
        while place < end:
            num, same = min(end - place, length), 0
            while same < num and out[place + same] == values[first + same]:
                if weighted and out_weights[place + same] != weights[first + same]:
                    break
                same += 1
            if same == num:
                break
            place += 1
            budget -= same + 1
            if budget < 0:  # few distinct ids: the search must not become quadratic; the row is appended whole
                place = end
        starts[row], alone[row] = place, place == end
        shared = min(end - place, length)
        for i in range(shared, length):
            out[end] = values[first + i]
            if weighted:
                out_weights[end] = weights[first + i]
            end += 1
        begin = place
    return end
