"""Cuts an epoch into batches of nearly equal work: over the ranks of a step, and over the steps.

::

    work of the samples   9 1 1 1   5 1 1   30 1 1   2 2        4 batches of all ranks
    all work before       0 ............................ 55     cut where it is 1/4, 2/4, 3/4 of all
    batches               9 1 1 1 | 5 1 1 | 30 1 1 | 2 2

A batch that begins inside a session computes the rows that it shares with the batch before once more. So a cut moves to
where its distance from the exact place and that cost together are least: mostly to where a session begins.

There are as many batches as by samples, so that ``batch_size`` is their mean size; none holds more than LARGEST times
as many. Each rank reads the work of its part of the epoch, and tells the others where it cuts: they know the position
of all ranks. The cuts of an epoch are 8 bytes a batch.
"""

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from recd_dist.reader.intervals import Deal, Interval
from recd_dist.reader.order import ShuffleWindow
from recd_dist.reader.sample_work import SampleWork, WorkReader
from recd_dist.reader.work import Work
from recd_dist.table.column import Array

LARGEST = 2
"""Samples of the largest batch, in batch sizes."""

CHEAPEST = 1.5
"""Where samples of a shuffle window cost so many times less than the mean, all samples are charged somewhat more, so
that batches there need not be larger than LARGEST. It happens in tables that are read in order of time."""

Gather = Callable[[Any], list[Any]]
"""Hands what a rank has to all ranks, and returns what each has, in their order; a collective."""


@dataclass(frozen=True)
class Piece:
    """Samples of one shuffle window, side by side, that remain.

    Attributes:
        window: the shuffle window.
        start, end: the samples [start, end) of it, counted from its first.
        first: how many samples remain before them.
    """

    window: ShuffleWindow
    start: int
    end: int
    first: int

    @property
    def num_samples(self) -> int:
        """Samples of the piece."""
        return self.end - self.start


@dataclass(frozen=True)
class BatchCutter(ABC):
    """Cuts batches by a rule; ``Cutter`` by work, ``fill.Filler`` up to a number of ids or where sessions begin.

    Attributes:
        reader: tells the work of samples.
        rank, world_size: this rank and their number: each reads a part.
        gather: shows all ranks what each of them has read.
    """

    reader: WorkReader
    rank: int = 0
    world_size: int = 1
    gather: Gather = lambda value: [value]

    @property
    @abstractmethod
    def rule(self) -> dict[str, Any]:
        """What a deal says of how it was cut, JSON-ready."""

    def cut(self, epoch: int, deal: Deal) -> Deal:
        """The same samples for the same ranks, with as many batches for each of them; a collective.

        Args:
            epoch: the epoch whose samples were dealt.
            deal: the samples, dealt by their number.

        Returns:
            The deal with its cuts, the same on every rank.

        Raises:
            DataError: damaged files.
        """
        pieces = find_pieces(deal.remaining, self.reader.shuffle_windows(epoch))
        cuts = self._find_cuts(epoch, deal, pieces) if pieces else deal.cuts
        return replace(deal, rule=self.rule, cuts=cuts)

    @abstractmethod
    def _find_cuts(self, epoch: int, deal: Deal, pieces: Sequence[Piece]) -> Array:
        """Where batches begin, and where the last one ends, see ``Deal.cuts``; there is a piece at least."""


@dataclass(frozen=True)
class Cutter(BatchCutter):
    """Cuts what was dealt into as many batches as by samples, of nearly equal work; its attributes are as above."""

    @property
    def work(self) -> Work:
        """The costs by which it cuts."""
        return self.reader.work

    @property
    def rule(self) -> dict[str, Any]:
        """What a deal says of how it was cut, JSON-ready."""
        return {"work": self.work.to_json()}

    def _find_cuts(self, epoch: int, deal: Deal, pieces: Sequence[Piece]) -> Array:
        num_batches = deal.num_all_batches
        mine = range(self.rank, len(pieces), self.world_size)
        totals = self._join({n: self._total(epoch, pieces[n]) for n in mine})
        work, sizes = np.array(totals), np.array([piece.num_samples for piece in pieces])
        charge = _extra_charge(work, sizes, LARGEST * deal.batch_size)
        ends = np.cumsum(work + charge * sizes)
        targets = ends[-1] * (np.arange(1, num_batches) / num_batches)
        owners = np.minimum(np.searchsorted(ends, targets), len(pieces) - 1)
        starts = np.concatenate([[0.0], ends[:-1]])
        wanted = {n: targets[owners == n] - starts[n] for n in mine}
        cuts = self._join({n: self._cut_piece(epoch, pieces[n], wanted[n], charge) for n in mine})
        inner = np.concatenate([np.zeros(0, np.int64), *cuts])
        return bound_cuts(inner, deal.num_samples, LARGEST * deal.batch_size)

    def _join(self, mine: dict[int, Any]) -> list[Any]:
        """What all ranks have found, in the order of the pieces."""
        found = {number: value for part in self.gather(mine) for number, value in part.items()}
        return [found[number] for number in range(len(found))]

    def _total(self, epoch: int, piece: Piece) -> float:
        before = self.reader.read(epoch, piece.window).before
        return float(before[piece.end] - before[piece.start])

    def _cut_piece(self, epoch: int, piece: Piece, targets: Array, charge: float) -> Array:
        """Where to cut a piece for some amounts of work before the cut, int64, counted in the samples that remain."""
        if not len(targets):
            return np.zeros(0, np.int64)
        work = self.reader.read(epoch, piece.window)
        before = work.before - work.before[piece.start] + charge * (np.arange(len(work.before)) - piece.start)
        charged = replace(work, before=before)
        places = [_place(charged, target, piece.start, piece.end) for target in targets]
        return np.array(places, np.int64) - piece.start + piece.first


def _place(work: SampleWork, target: float, start: int, end: int) -> int:
    """The sample before which to cut: near where the work before it is the target, mostly where a session begins.

    Args:
        work: that of the samples of a shuffle window.
        target: the work before the cut.
        start: the first of the samples among which to cut.
        end: the sample after them.
    """
    sample = int(np.searchsorted(work.before[start : end + 1], target, "right")) + start - 1
    session = int(np.searchsorted(work.sessions, sample, "right")) - 1
    first = max(start, int(work.sessions[session]))
    last = min(end, int(work.sessions[min(session + 1, len(work.sessions) - 1)]))
    chosen = slice(first, last + 1)
    return first + int(np.argmin(np.abs(work.before[chosen] - target) + work.repeated[chosen]))


def find_pieces(remaining: Sequence[Interval], windows: Sequence[ShuffleWindow]) -> list[Piece]:
    """Cuts what remains where shuffle windows end.

    Args:
        remaining: samples that are left, in order.
        windows: the shuffle windows of the epoch.
    """
    starts, pieces, first = [window.start for window in windows], list[Piece](), 0
    for start, end in remaining:
        while start < end:
            window = windows[bisect_right(starts, start) - 1]
            stop = min(end, window.end)
            pieces.append(Piece(window, start - window.start, stop - window.start, first))
            first += stop - start
            start = stop  # noqa: PLW2901
    return pieces


def _extra_charge(work: Array, sizes: Array, enough: int) -> float:
    """Work to add to every sample, so that nowhere their mean is less than 1 / CHEAPEST of that of all.

    Args:
        work: the work of each piece.
        sizes: the number of samples of each piece.
        enough: samples that a piece must have for its mean to say something.
    """
    if not work.sum():
        return 1.0  # lists alone cost something, and all are empty
    large = sizes >= enough
    if not large.any():
        return 0.0
    mean, least = float(work.sum() / sizes.sum()), float((work[large] / sizes[large]).min())
    return max(0.0, (mean - CHEAPEST * least) / (CHEAPEST - 1))


def bound_cuts(inner: Array, num_samples: int, largest: int) -> Array:
    """Cuts with at least one sample and at most ``largest`` between two, where those given break that.

    Args:
        inner: int64 [batches - 1], where batches begin, but for the first.
        num_samples: where the last one ends.
        largest: samples of the largest batch; the samples fit into batches of that size.

    Returns:
        int64 [batches + 1], from 0 to ``num_samples``.
    """
    given = np.concatenate([[0], inner, [num_samples]]).astype(np.int64)
    sizes = np.diff(given)
    if sizes.min() >= 1 and sizes.max() <= largest:
        return given
    cuts, last = given.tolist(), len(sizes)
    for number in range(1, last):
        fewest = max(cuts[number - 1] + 1, num_samples - (last - number) * largest)
        most = min(cuts[number - 1] + largest, num_samples - (last - number))
        cuts[number] = min(max(cuts[number], fewest), most)
    return np.array(cuts, np.int64)
