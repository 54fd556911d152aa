"""Fills batches up to a number of samples and of unique ids, with whole sessions where that is asked for.

::

    sessions       |  4  |    5    | 2 | 1 |   5   |  3  |       at most 8 samples a batch
    by samples     |        8        |      8      |    4  |    two sessions are cut
    whole          |  4  |      8        |      8      |         none is

A batch ends where the next sample, or session, would take it beyond ``batch_size`` samples or ``max_ids`` ids. Ids are
those that the batch stores: a row that samples of a session share counts once. A session that is larger than a batch
is cut; no other one is, unless there are too few batches with several sessions to give every rank as many.

Each rank reads a part of the epoch, of neighbouring shuffle windows, fills batches from it and shows the others where
it cuts. Where the batches of all are no multiple of the workers of all ranks, the largest ones are cut in two.
"""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from heapq import heapify, heappop, heappush
from itertools import pairwise
from typing import Any

import numpy as np

from recd_dist.reader.cuts import BatchCutter, Piece
from recd_dist.reader.intervals import Deal
from recd_dist.reader.sample_work import SampleWork
from recd_dist.table.column import Array


@dataclass(frozen=True)
class Filler(BatchCutter):
    """Fills the batches of what was dealt as far as they may be; the work of its reader is that of ids alone.

    Attributes:
        max_ids: ids of the largest batch, unless one sample has more; None: any number.
        keeps_sessions: cut where sessions begin.
    """

    _: KW_ONLY
    max_ids: int | None = None
    keeps_sessions: bool = False

    @property
    def rule(self) -> dict[str, Any]:
        """What a deal says of how it was cut, JSON-ready."""
        return {"max_ids": self.max_ids, "keeps_sessions": self.keeps_sessions}

    def _find_cuts(self, epoch: int, deal: Deal, pieces: Sequence[Piece]) -> Array:
        mine = [piece for piece in pieces if piece.first * self.world_size // deal.num_samples == self.rank]
        starts, borders = self._fill(epoch, mine, deal.batch_size)
        shown = self.gather((np.array(starts, np.int64), np.array([len(inside) for inside in borders], np.int64)))
        cuts = np.append(np.concatenate([of_rank for of_rank, _ in shown]), deal.num_samples)
        missing = -(len(cuts) - 1) % deal.num_shares
        if len(cuts) - 1 + missing > deal.num_samples:  # batches of one sample or two: as many as all workers can have
            num = deal.num_samples // deal.num_shares * deal.num_shares
            return np.arange(num + 1) * deal.num_samples // num
        places: dict[int, Array] = {}
        if missing and self.keeps_sessions:
            chosen = set(_largest(cuts, np.concatenate([counts for _, counts in shown]), missing))
            first = sum(len(of_rank) for of_rank, _ in shown[: self.rank])
            own = {
                start: inside
                for n, (start, inside) in enumerate(zip(starts, borders, strict=True), first)
                if n in chosen
            }
            places = {start: inside for part in self.gather(own) for start, inside in part.items()}
        return halve_largest(cuts, places, missing)

    def _fill(self, epoch: int, pieces: Sequence[Piece], batch_size: int) -> tuple[list[int], list[Array]]:
        """Fills batches from neighbouring pieces.

        Returns:
            Where each batch begins, and where sessions begin inside it, counted in the samples that remain.
        """
        starts, inner = list[int](), list[Array]()
        begin, used, borders = -1, 0.0, list[Array]()  # of the batch that is filled; -1: none is
        for piece in pieces:
            work, shift, at = self.reader.read(epoch, piece.window), piece.first - piece.start, piece.start
            sessions = np.append(
                piece.start, work.sessions[(work.sessions > piece.start) & (work.sessions < piece.end)]
            )
            while at < piece.end:
                begin = at + shift if begin < 0 else begin
                end = self._end(work, piece, at, begin - shift + batch_size, used)
                is_full = end < piece.end
                if is_full:
                    end = self._move(sessions, at, end, begin < at + shift)
                borders.append(sessions[(sessions >= at) & (sessions < end)] + shift)
                used += float(work.before[end] - work.before[at] + work.repeated[at])
                if is_full:
                    starts.append(begin)
                    inner.append(_inside(borders, begin))
                    begin, used, borders = -1, 0.0, []
                at = end
        if begin >= 0:
            starts.append(begin)
            inner.append(_inside(borders, begin))
        return starts, inner

    def _end(self, work: SampleWork, piece: Piece, at: int, end: int, used: float) -> int:
        """The sample before which a batch that goes on at ``at`` has to end: ``end``, the piece's, or that by ids."""
        end = min(end, piece.end)
        if self.max_ids is None:
            return end
        # What the batch has, once it has taken samples up to some place, is at most max_ids.
        most = self.max_ids - used + work.before[at] - work.repeated[at]
        return at + int(np.searchsorted(work.before[at : end + 1], most, "right")) - 1

    def _move(self, sessions: Array, at: int, end: int, has_samples: bool) -> int:
        """Moves the end of a batch to where a session begins, if there is a place; an empty batch takes a sample."""
        if self.keeps_sessions:
            place = int(np.searchsorted(sessions, end, "right")) - 1
            border = int(sessions[place]) if place >= 0 else -1
            if border > at or (border == at and has_samples):
                return border
        return max(end, at + (not has_samples))


def _inside(borders: Sequence[Array], start: int) -> Array:
    """Where sessions begin inside a batch, but for the first one."""
    together = np.concatenate(borders)
    return together[together > start]


def _largest(cuts: Array, counts: Array, num: int) -> list[int]:
    """The numbers of the largest batches in which a session begins, at most so many."""
    order = np.argsort(-np.diff(cuts), kind="stable")
    return order[counts[order] > 0][:num].tolist()


def halve_largest(cuts: Array, places: Mapping[int, Array], missing: int) -> Array:
    """Cuts the largest batches in two until there are so many more; first those that have a place for it.

    Args:
        cuts: int64 [batches + 1], where batches begin, and where the last one ends.
        places: by where a batch begins the places in it where it should be cut, int64; a batch without any is cut in
            its middle, but only where no place is left.
        missing: batches that are wanted beside those there are; together at most as many as samples.

    Returns:
        int64 [batches + missing + 1].
    """
    heap = [(not len(places.get(start, ())), start - end, start) for start, end in pairwise(cuts.tolist())]
    heapify(heap)
    added, left = list[int](), dict(places)
    for _ in range(missing):
        _, minus_size, start = heappop(heap)
        end, inside = start - minus_size, left.pop(start, np.zeros(0, np.int64))
        middle = int(inside[np.argmin(np.abs(2 * inside - start - end))]) if len(inside) else (start + end) // 2
        added.append(middle)
        left |= {start: inside[inside < middle], middle: inside[inside > middle]}
        heappush(heap, (not len(left[start]), start - middle, start))
        heappush(heap, (not len(left[middle]), middle - end, middle))
    return np.sort(np.append(cuts, np.array(added, np.int64)))
