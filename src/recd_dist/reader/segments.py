"""An epoch dealt segment after segment: all ranks train the samples of one before any trains those of the next.

::

    epoch       monday ........... | tuesday ...........        2 ranks
    rank 0      [0 50)             | [100 160)                  shares of monday, then shares of tuesday
    rank 1             [50 100)    |          [160 220)

A segment is dealt as a whole epoch is otherwise, so that each rank reads its own part of it.
"""

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import Any

from recd_dist.reader.intervals import Deal, Dealt, Interval, merge_intervals


@dataclass(frozen=True)
class SegmentedDeal(Dealt):
    """Deals of one segment after the other.

    Attributes:
        remaining, world_size, num_workers, batch_size, rule: those of ``Dealt``.
        deals: the deal of each segment, none of them empty unless it is the only one.
    """

    remaining: tuple[Interval, ...]
    world_size: int
    num_workers: int
    batch_size: int
    rule: Mapping[str, Any]
    deals: tuple[Deal, ...]

    @staticmethod
    def of(deal: Deal, ends: Sequence[int]) -> "SegmentedDeal":
        """Deals the samples of a deal anew, segment by segment.

        Args:
            deal: all samples that remain, dealt at once.
            ends: where segments end, by the numbers of samples in the epoch; a segment that has fewer samples left than
                there are ranks is dealt together with the next one, or the last one with that before it.
        """
        left: list[list[Interval]] = [[]]
        for number, end in enumerate(ends):
            start = ends[number - 1] if number else 0
            for first, last in deal.remaining:
                if max(first, start) < min(last, end):
                    left[-1].append((max(first, start), min(last, end)))
            if _size(left[-1]) >= deal.world_size:
                left.append([])
        rest = left.pop()
        if left:
            left[-1] += rest
        else:
            left = [rest]
        deals = tuple(replace(deal, remaining=merge_intervals(intervals)) for intervals in left)
        return SegmentedDeal(deal.remaining, deal.world_size, deal.num_workers, deal.batch_size, deal.rule, deals)

    @cached_property
    def _ends(self) -> list[int]:
        """For each segment the batches of a rank in it and in those before it."""
        return list(accumulate(deal.num_batches for deal in self.deals))

    def _find(self, number: int) -> tuple[Deal, int]:
        """The deal that has a batch of a rank, and its number there."""
        segment = bisect_right(self._ends, number)
        return self.deals[segment], number - (self._ends[segment - 1] if segment else 0)

    @property
    def num_batches(self) -> int:
        """Batches of each rank, in all segments."""
        return self._ends[-1]

    def batch(self, rank: int, number: int) -> tuple[Interval, ...]:
        """The samples of a rank's batch."""
        deal, place = self._find(number)
        return deal.batch(rank, place)

    def gapless_end(self, rank: int, number: int) -> int:
        """The sample up to which the worker of a batch goes on reading without a gap, inside its segment."""
        deal, place = self._find(number)
        return deal.gapless_end(rank, place)

    def remaining_after(self, num_trained: int) -> tuple[Interval, ...]:
        """What remains for all ranks when each has trained its first batches."""
        if not 0 <= num_trained <= self.num_batches:
            raise ValueError(f"reader: {num_trained} batches trained, this epoch has {self.num_batches} a rank")
        left: list[Interval] = []
        for deal, end in zip(self.deals, self._ends, strict=True):
            done = deal.num_batches - min(max(end - num_trained, 0), deal.num_batches)
            left += deal.remaining_after(done)
        return merge_intervals(left)

    def cut_by(self, cut: Callable[[Deal], Deal]) -> "SegmentedDeal":
        """The same samples for the same ranks, in batches that are cut otherwise, segment by segment."""
        return replace(self, deals=tuple(deal.cut_by(cut) for deal in self.deals))


def _size(intervals: Sequence[Interval]) -> int:
    return sum(end - start for start, end in intervals)
