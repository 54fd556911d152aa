"""The numbered samples of an epoch, dealt to ranks and workers as intervals.

::

    remaining  [0 ........................ 10)                  2 ranks, 2 workers, batch size 2
    shares     rank 0: [0 2) [2 5)      rank 1: [5 7) [7 10)    nearly equal: lengths differ by at most 1
    batches    0 | 1    2 | 3 4         5 | 6    7 | 8 9        every share is cut into the same number of batches
    a rank's   0 | 2 | 1 | 3 4                                  loop takes its workers in turn

Batches may also be cut by the work of their samples (``reader/cuts.py``): shares and batches then hold more or fewer
samples, of nearly equal work.

No sample is dropped, repeated or padded, and every rank has the same number of batches, so that no collective waits
for a rank that has run dry. The position of a job follows from the number of batches trained, by arithmetic: any rank
knows it for all ranks. What remains can be dealt again to another number of ranks and workers. A run that goes on with
the same number of ranks and workers goes on with the same deal: dealt again, samples would fall into other batches, and
the run would not come to the numbers of one that nothing has interrupted.
"""

import hashlib
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt

from recd_dist.errors import ConfigError
from recd_dist.reader.order import Shuffle
from recd_dist.reader.work import Work
from recd_dist.table.manifest import Manifest

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


@dataclass(frozen=True)
class Deal:
    """What remains of an epoch, dealt to the ranks and their workers.

    Attributes:
        remaining: samples that are left, in order.
        world_size: number of ranks.
        num_workers: workers of each rank, at least 1.
        batch_size: largest batch of a rank. With batch size 1 a batch may hold 2, since shares differ by one sample.
            Of batches that are cut by work it is the largest mean.
        work: the costs by which batches are cut; None where they are cut by samples.
        cuts: where batches begin that are cut by work, counted in the samples that remain, and the number of samples
            at the end, int64 [num_all_batches + 1]; those of a share stand side by side.

    Raises:
        ConfigError: there are fewer samples than ranks, so that some rank would have no batch.
    """

    remaining: tuple[Interval, ...]
    world_size: int = 1
    num_workers: int = 1
    batch_size: int = 1
    work: Work | None = None
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
        if self.num_samples:
            # Workers beyond the samples there are would have nothing to read.
            object.__setattr__(self, "num_workers", min(self.num_workers, self.num_samples // self.world_size))

    @cached_property
    def num_samples(self) -> int:
        """Samples that are left, of all ranks."""
        return sum(end - start for start, end in self.remaining)

    @cached_property
    def _num_shares(self) -> int:
        return self.world_size * self.num_workers

    @cached_property
    def _batches_per_share(self) -> int:
        shortest = self.num_samples // self._num_shares
        longest = -(-self.num_samples // self._num_shares)
        return min(-(-longest // self.batch_size), shortest)

    @property
    def num_batches(self) -> int:
        """Batches of each rank; every rank has the same number."""
        return self._batches_per_share * self.num_workers

    @property
    def num_all_batches(self) -> int:
        """Batches of all ranks."""
        return self._batches_per_share * self._num_shares

    def batch(self, rank: int, number: int) -> tuple[Interval, ...]:
        """The samples of a rank's batch: at least one, and at most batch_size unless batches are cut by work.

        Args:
            rank: a rank in [0, world_size).
            number: the number of the batch in training order, in [0, num_batches).
        """
        share = rank * self.num_workers + number % self.num_workers
        start, end = (self._batch_start(share, number // self.num_workers + i) for i in (0, 1))
        return self._intervals_between(start, end)

    def gapless_end(self, rank: int, number: int) -> int:
        """The sample up to which the worker of a batch goes on reading without a gap.

        Args:
            rank: a rank in [0, world_size).
            number: the number of the batch, in [0, num_batches).
        """
        share = rank * self.num_workers + number % self.num_workers
        last = self._batch_start(share, number // self.num_workers + 1) - 1
        return self._intervals_between(last, self._batch_start(share + 1, 0))[0][1]

    def remaining_after(self, num_trained: int) -> tuple[Interval, ...]:
        """What remains for all ranks when each has trained its first batches.

        Args:
            num_trained: batches that every rank has trained, in [0, num_batches].
        """
        if not 0 <= num_trained <= self.num_batches:
            raise ValueError(f"reader: {num_trained} batches trained, this epoch has {self.num_batches} a rank")
        left: list[Interval] = []
        for share in range(self._num_shares):
            done = -(-(num_trained - share % self.num_workers) // self.num_workers)
            left += self._intervals_between(self._batch_start(share, max(done, 0)), self._batch_start(share + 1, 0))
        return merge_intervals(left)

    def to_json(self, num_trained: int) -> dict[str, Any]:
        """The deal and how far it is trained, JSON-ready; a run of the same shape goes on with it.

        Args:
            num_trained: batches that every rank has trained.
        """
        shape: dict[str, Any] = {name: getattr(self, name) for name in ("world_size", "num_workers", "batch_size")}
        if self.work is not None:
            shape["work"] = self.work.to_json()
        return {"intervals": [list(interval) for interval in self.remaining], **shape, "trained": num_trained}

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

    def _batch_start(self, share: int, batch: int) -> int:
        """Where a batch of a share begins, counted in the samples that remain."""
        if self.cuts is not None:
            return int(self.cuts[share * self._batches_per_share + batch])
        start = share * self.num_samples // self._num_shares
        length = (share + 1) * self.num_samples // self._num_shares - start
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


@dataclass(frozen=True)
class Position:
    """Where a job stands: the epoch and the samples of it that no rank has trained.

    Attributes:
        epoch: counted from 0.
        remaining: intervals of samples, by their numbers in the order of the epoch.
        table: fingerprint of the table's files.
        shuffle: the seed and the size of a shuffle window, on which the order of an epoch depends.
    """

    epoch: int
    remaining: tuple[Interval, ...]
    table: str
    shuffle: Shuffle

    @staticmethod
    def at_start(manifest: Manifest, shuffle: Shuffle, epoch: int = 0) -> "Position":
        """The beginning of an epoch."""
        return Position(epoch, ((0, manifest.num_samples),), fingerprint(manifest), shuffle)

    def to_json(self) -> dict[str, Any]:
        """A small JSON-ready dict; ``Position.from_json`` is its inverse."""
        return {
            "epoch": self.epoch,
            "remaining": [list(interval) for interval in self.remaining],
            "table": self.table,
            "seed": self.shuffle.seed,
            "shuffle": self.shuffle.enabled,
            "window": self.shuffle.window_size,
        }

    @staticmethod
    def from_json(value: Mapping[str, Any], manifest: Manifest, shuffle: Shuffle) -> "Position":
        """The position that ``to_json`` wrote, checked against the table and the settings of this run.

        Args:
            value: what ``to_json`` wrote.
            manifest: what the table of this run holds.
            shuffle: the settings of this run.

        Raises:
            ConfigError: the table, seed, shuffle or window is another one, with which the same numbers mean other
                samples; or the position is damaged.
        """
        if value["table"] != fingerprint(manifest):
            raise ConfigError(
                f"resume: the checkpoint was made on another table than '{manifest.name}/{manifest.split}' is now "
                f"({value['table']}, found {fingerprint(manifest)}); point at that table or start a new run directory"
            )
        for name, now in (("seed", shuffle.seed), ("shuffle", shuffle.enabled), ("window", shuffle.window_size)):
            if value[name] != now:
                raise ConfigError(
                    f"resume: the checkpoint's reader has {name}={value[name]}, this run {name}={now}; its position "
                    f"means other samples then. Set {name}={value[name]} or start a new run directory"
                )
        intervals = tuple((int(start), int(end)) for start, end in value["remaining"])
        _check_intervals(intervals, manifest.num_samples)
        return Position(int(value["epoch"]), intervals, value["table"], shuffle)


def _check_intervals(intervals: Sequence[Interval], num_samples: int) -> None:
    """Refuses a position that would read a sample twice or one that does not exist."""
    end = 0
    for start, stop in sorted(intervals):
        if start < end or stop < start or stop > num_samples:
            raise ConfigError(
                f"resume: damaged reader position, {[start, stop]} overlaps or leaves 0..{num_samples}; start a new "
                "run directory, or remove the newest checkpoint"
            )
        end = stop


def fingerprint(manifest: Manifest) -> str:
    """Names the samples of a table and their order: 16 hexadecimal digits of its sample files' sizes and checksums."""
    digest = hashlib.sha256()
    for part in manifest.parts:
        digest.update(repr((part.samples.row_groups, part.samples.num_bytes, part.samples.crc32)).encode())
    return digest.hexdigest()[:16]
