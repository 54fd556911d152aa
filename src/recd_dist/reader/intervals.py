"""The numbered samples of an epoch, dealt to ranks and workers as intervals.

::

    remaining  [0 ........................ 10)                  2 ranks, 2 workers, batch size 2
    shares     rank 0: [0 2) [2 5)      rank 1: [5 7) [7 10)    nearly equal: lengths differ by at most 1
    batches    0 | 1    2 | 3 4         5 | 6    7 | 8 9        every share is cut into the same number of batches
    a rank's   0 | 2 | 1 | 3 4                                  loop takes its workers in turn

Batches may also be cut by the work of their samples (``reader/cuts.py``), or filled with whole sessions and up to a
number of ids (``reader/fill.py``): shares and batches then hold more or fewer samples.

Where an epoch has to be trained in its order, ranks take batches in turn (``in_turn``), or have shares of one partition
after the other (``reader/segments.py``).

No sample is dropped, repeated or padded, and every rank has the same number of batches, so that no collective waits
for a rank that has run dry. The position of a job follows from the number of batches trained, by arithmetic: any rank
knows it for all ranks. What remains can be dealt again to another number of ranks and workers. A run that goes on with
the same number of ranks and workers goes on with the same deal: dealt again, samples would fall into other batches, and
the run would not come to the numbers of one that nothing has interrupted.
"""

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from recd_dist.errors import ConfigError

Interval = tuple[int, int]
"""Samples [start, end) of an epoch, by their numbers in its order."""


def merge_intervals(intervals: Iterable[Interval]) -> tuple[Interval, ...]:
    """Puts neighbours together and leaves out empty intervals; the samples and their order stay as they are."""
    result: list[Interval] = []
    for start, end in intervals:
        if start == end:
            continue
        if result and result[-1][1] == start:
            result[-1] = (result[-1][0], end)
        else:
            result.append((start, end))
    return tuple(result)


class Dealt(ABC):
    """Samples of an epoch, dealt to the ranks and their workers: what a job asks of a deal, whatever its kind.

    Attributes:
        remaining: samples that are left, in order.
        world_size: number of ranks.
        num_workers: workers of each rank, at least 1.
        batch_size: largest batch of a rank, or the largest mean where batches are cut by work.
        rule: how batches are cut, JSON-ready; empty where they are cut by the number of their samples alone.
    """

    remaining: tuple[Interval, ...]
    world_size: int
    num_workers: int
    batch_size: int
    rule: Mapping[str, Any]

    @cached_property
    def num_samples(self) -> int:
        """Samples that are left, of all ranks."""
        return sum(end - start for start, end in self.remaining)

    @property
    @abstractmethod
    def num_batches(self) -> int:
        """Batches of each rank; every rank has the same number."""

    @abstractmethod
    def batch(self, rank: int, number: int) -> tuple[Interval, ...]:
        """The samples of a rank's batch: at least one.

        Args:
            rank: a rank in [0, world_size).
            number: the number of the batch in training order, in [0, num_batches).
        """

    @abstractmethod
    def gapless_end(self, rank: int, number: int) -> int:
        """The sample up to which the worker of a batch goes on reading without a gap.

        Args:
            rank: a rank in [0, world_size).
            number: the number of the batch, in [0, num_batches).
        """

    @abstractmethod
    def remaining_after(self, num_trained: int) -> tuple[Interval, ...]:
        """What remains for all ranks when each has trained its first batches.

        Args:
            num_trained: batches that every rank has trained, in [0, num_batches].
        """

    @abstractmethod
    def cut_by(self, cut: "Callable[[Deal], Deal]") -> Self:
        """The same samples for the same ranks, in batches that are cut otherwise.

        Args:
            cut: cuts the batches of samples that are dealt at once.
        """

    def to_json(self, num_trained: int) -> dict[str, Any]:
        """The deal and how far it is trained, JSON-ready; a run of the same shape goes on with it.

        Args:
            num_trained: batches that every rank has trained.
        """
        shape: dict[str, Any] = {name: getattr(self, name) for name in ("world_size", "num_workers", "batch_size")}
        intervals = [list(interval) for interval in self.remaining]
        return {"intervals": intervals, **shape, **self.rule, "trained": num_trained}

    def is_stored_as(self, value: Mapping[str, Any]) -> bool:
        """Whether a stored deal had the same samples for as many ranks and workers, cut by the same rule.

        Args:
            value: what ``to_json`` has written.
        """
        return self.to_json(value["trained"]) == dict(value)

    def is_continued(self, value: Mapping[str, Any], remaining: Sequence[Interval]) -> bool:
        """Whether this deal, of all that a stored one had, has the batches that the stored one had left.

        Args:
            value: what ``to_json`` has written.
            remaining: what was left then.
        """
        trained = value["trained"]
        if not self.is_stored_as(value) or not 0 <= trained < self.num_batches:
            return False
        return self.remaining_after(trained) == tuple(remaining)


@dataclass(frozen=True)
class Deal(Dealt):
    """What remains of an epoch, dealt to the ranks and their workers at once.

    Attributes:
        remaining, world_size, num_workers: as above.
        batch_size: largest batch of a rank. With batch size 1 a batch may hold 2, since shares differ by one sample.
            Of batches that are cut by work it is the largest mean.
        in_turn: ranks take batch after batch in turn, so that a step trains samples that are neighbours in the epoch;
            otherwise each worker of each rank has a share of neighbours, which it can read alone.
        rule: as above.
        cuts: where batches begin that are cut by a rule, counted in the samples that remain, and the number of samples
            at the end, int64 [num_all_batches + 1]; those of a share stand side by side.

    Raises:
        ConfigError: there are fewer samples than ranks, so that some rank would have no batch.
    """

    remaining: tuple[Interval, ...]
    world_size: int = 1
    num_workers: int = 1
    batch_size: int = 1
    in_turn: bool = False
    rule: Mapping[str, Any] = field(default_factory=dict)
    cuts: npt.NDArray[np.int64] | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("world_size", "num_workers", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"reader: {name}={getattr(self, name)}, wanted at least 1")
        if 0 < self.num_samples < self.world_size:
            raise ConfigError(
                f"reader: {self.num_samples} samples are left for {self.world_size} ranks, each needs at least one; "
                f"start at most {self.num_samples} ranks"
            )
        if self.in_turn:
            object.__setattr__(self, "num_workers", 1)  # they change nothing: each takes the next batch of its rank
        elif self.num_samples:
            # Workers beyond the samples there are would have nothing to read.
            object.__setattr__(self, "num_workers", min(self.num_workers, self.num_samples // self.world_size))

    @cached_property
    def num_shares(self) -> int:
        """Workers of all ranks; each has as many batches as another."""
        return self.world_size * self.num_workers

    @cached_property
    def _batches_per_share(self) -> int:
        if self.cuts is not None:
            return (len(self.cuts) - 1) // self.num_shares
        shortest = self.num_samples // self.num_shares
        longest = -(-self.num_samples // self.num_shares)
        return min(-(-longest // self.batch_size), shortest)

    @property
    def num_batches(self) -> int:
        """Batches of each rank; every rank has the same number."""
        return self._batches_per_share * self.num_workers

    @property
    def num_all_batches(self) -> int:
        """Batches of all ranks."""
        return self._batches_per_share * self.num_shares

    def batch(self, rank: int, number: int) -> tuple[Interval, ...]:
        """The samples of a rank's batch: at least one, and at most batch_size unless batches are cut by work."""
        if self.in_turn:
            place = number * self.world_size + rank
            return self._intervals_between(self._cut(place), self._cut(place + 1))
        share = rank * self.num_workers + number % self.num_workers
        start, end = (self._batch_start(share, number // self.num_workers + i) for i in (0, 1))
        return self._intervals_between(start, end)

    def gapless_end(self, rank: int, number: int) -> int:
        """The sample up to which the worker of a batch goes on reading without a gap.

        Batches in turn are as good as neighbours: what lies between two of a worker is less than a shuffle window.
        """
        if self.in_turn:
            last, end = self._cut(number * self.world_size + rank + 1) - 1, self.num_samples
            return self._intervals_between(last, end)[0][1]
        share = rank * self.num_workers + number % self.num_workers
        last = self._batch_start(share, number // self.num_workers + 1) - 1
        return self._intervals_between(last, self._batch_start(share + 1, 0))[0][1]

    def remaining_after(self, num_trained: int) -> tuple[Interval, ...]:
        """What remains for all ranks when each has trained its first batches."""
        if not 0 <= num_trained <= self.num_batches:
            raise ValueError(f"reader: {num_trained} batches trained, this epoch has {self.num_batches} a rank")
        if self.in_turn:
            return merge_intervals(self._intervals_between(self._cut(num_trained * self.world_size), self.num_samples))
        left: list[Interval] = []
        for share in range(self.num_shares):
            done = -(-(num_trained - share % self.num_workers) // self.num_workers)
            left += self._intervals_between(self._batch_start(share, max(done, 0)), self._batch_start(share + 1, 0))
        return merge_intervals(left)

    def cut_by(self, cut: "Callable[[Deal], Deal]") -> "Deal":
        """The same samples for the same ranks, in batches that are cut otherwise."""
        return cut(self)

    def _cut(self, number: int) -> int:
        """Where a batch of all ranks begins that are taken in turn, counted in the samples that remain."""
        if self.cuts is not None:
            return int(self.cuts[number])
        return number * self.num_samples // max(self.num_all_batches, 1)

    def _batch_start(self, share: int, batch: int) -> int:
        """Where a batch of a share begins, counted in the samples that remain."""
        if self.cuts is not None:
            return int(self.cuts[share * self._batches_per_share + batch])
        start = share * self.num_samples // self.num_shares
        length = (share + 1) * self.num_samples // self.num_shares - start
        return start + (batch * length // self._batches_per_share if batch else 0)

    @cached_property
    def _interval_starts(self) -> list[int]:
        """Where each interval begins, counted in the samples that remain; their number at the end."""
        return list(accumulate((end - start for start, end in self.remaining), initial=0))

    def _intervals_between(self, start: int, end: int) -> tuple[Interval, ...]:
        """The samples [start, end), counted in the samples that remain, by their numbers in the epoch."""
        pieces: list[Interval] = []
        number = bisect_right(self._interval_starts, start) - 1
        while start < end:
            first, last = self.remaining[number]
            begin = self._interval_starts[number]
            stop = min(end, begin + last - first)
            pieces.append((first + start - begin, first + stop - begin))
            start, number = stop, number + 1
        return tuple(pieces)
