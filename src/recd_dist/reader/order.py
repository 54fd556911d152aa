"""The order of an epoch, which depends on the table, the seed and the epoch alone.

========== ==========================================================================================================
sessions   row groups of the whole table in any order, then as below
partitions days (or hours) one after the other, row groups of each in any order, then as below
table      as the table stands
time       sample by sample, across all parts (``time_slices``); sessions lie apart
========== ==========================================================================================================

::

    table     rg0 rg1 rg2 rg3 rg4            row groups of all parts, sessions whole inside each
    permuted  rg3 rg0 | rg4 rg2 | rg1        shuffle windows, here of two row groups each
    inside    sessions of a shuffle window in any order, the samples of a session side by side
    numbered  0 1 2 ...                      the samples of the epoch, from its first shuffle window to its last

Neither ranks nor workers nor the batch size change it. Permutations are the sort order of hashed numbers, so that they
do not change with a release of numpy.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from recd_dist.errors import ConfigError, nearest
from recd_dist.table.hash import splitmix64
from recd_dist.table.manifest import Manifest

Int64s = npt.NDArray[np.int64]

SESSIONS, PARTITIONS, TABLE, TIME = "sessions", "partitions", "table", "time"
ORDERS = (SESSIONS, PARTITIONS, TABLE, TIME)
"""The orders that an epoch may have."""


@dataclass(frozen=True)
class RowGroup:
    """A row group of ``samples/``.

    Attributes:
        part: place of its part in ``Manifest.parts``, counted from 0.
        index: place of the row group in the part, counted from 0.
        num_samples: samples that it holds.
    """

    part: int
    index: int
    num_samples: int


@dataclass(frozen=True)
class ShuffleWindow:
    """Row groups that are read together; their sessions are shuffled among each other.

    Attributes:
        number: place in the epoch, counted from 0.
        row_groups: the row groups in reading order.
        start, end: it holds the samples [start, end) of the epoch.
        times: in order of time it holds the samples of its row groups with a timestamp in [first, second) only; None:
            all samples of its row groups.
    """

    number: int
    row_groups: tuple[RowGroup, ...]
    start: int
    end: int
    times: tuple[int, int] | None = None


@dataclass(frozen=True)
class Shuffle:
    """How the samples of an epoch are ordered.

    Attributes:
        seed: one number for all epochs.
        order: one of ``ORDERS``.
        window_size: row groups of a shuffle window. More of them mix sessions from further apart and take more memory.
        slices: in order of time the shuffle windows of every epoch, which ``time_slices.order_of`` reads from a table.
    """

    seed: int = 0
    order: str = SESSIONS
    window_size: int = 8
    slices: tuple[ShuffleWindow, ...] | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.order not in ORDERS:
            raise ConfigError(f"reader.order={self.order}: unknown{nearest(self.order, ORDERS)}")

    @property
    def mixes_sessions(self) -> bool:
        """Whether sessions change places."""
        return self.order in (SESSIONS, PARTITIONS)


def permutation(size: int, *keys: int) -> Int64s:
    """A permutation of range(size), the same for the same keys everywhere and for ever; int64 [size]."""
    state = np.zeros(1, np.uint64)
    for key in keys:
        state = splitmix64(state + np.uint64(key % 2**64))
    return np.argsort(splitmix64(splitmix64(np.arange(size, dtype=np.uint64) + state)), kind="stable")


def shuffle_windows(manifest: Manifest, shuffle: Shuffle, epoch: int) -> tuple[ShuffleWindow, ...]:
    """The shuffle windows of an epoch, in its order.

    Args:
        manifest: what the table holds.
        shuffle: the seed and the size of a shuffle window.
        epoch: counted from 0.
    """
    if shuffle.order == TIME:
        if shuffle.slices is None:
            raise ValueError("reader.order=time: the slices of this table were not read (time_slices.order_of)")
        return shuffle.slices
    result: list[ShuffleWindow] = []
    for row_groups in _segments(manifest, shuffle, epoch):
        for first in range(0, len(row_groups), shuffle.window_size):
            members = tuple(row_groups[first : first + shuffle.window_size])
            start = result[-1].end if result else 0
            result.append(ShuffleWindow(len(result), members, start, start + sum(g.num_samples for g in members)))
    return tuple(result)


def _segments(manifest: Manifest, shuffle: Shuffle, epoch: int) -> list[list[RowGroup]]:
    """The row groups of a table in reading order; those of a partition by themselves where partitions are in order."""
    row_groups = row_groups_of(manifest)
    if shuffle.mixes_sessions:
        runs = _runs_of(row_groups, manifest.sequences)
        row_groups = [g for i in permutation(len(runs), shuffle.seed, epoch) for g in runs[i]]
    if shuffle.order != PARTITIONS:
        return [row_groups]
    of_partition: dict[str, list[RowGroup]] = {name: [] for name in manifest.partitions}
    for row_group in row_groups:
        of_partition[manifest.parts[row_group.part].partition].append(row_group)
    return list(of_partition.values())


def row_groups_of(manifest: Manifest) -> list[RowGroup]:
    """The row groups of a table that hold samples, as the table stands."""
    return [
        RowGroup(part, index, size)
        for part, entry in enumerate(manifest.parts)
        for index, size in enumerate(entry.samples.row_groups)
        if size
    ]


def partition_ends(manifest: Manifest, shuffle: Shuffle) -> tuple[int, ...]:
    """Where the partitions of an epoch end that are read one after the other, counted in its samples.

    Args:
        manifest: what the table holds.
        shuffle: how it is read.

    Returns:
        Increasing numbers, the last one that of all samples; one alone unless ``order`` is ``partitions``.

    Raises:
        ConfigError: the table has no partitions.
    """
    if shuffle.order != PARTITIONS:
        return (manifest.num_samples,)
    if not all(part.partition for part in manifest.parts):
        raise ConfigError(
            f"reader.order=partitions: table {manifest.name}/{manifest.split} has no days or hours; make it with "
            "`recd etl ... data.partition=day`, or take reader.order=sessions"
        )
    sizes = dict.fromkeys(manifest.partitions, 0)
    for part in manifest.parts:
        sizes[part.partition] += part.num_samples
    return tuple(accumulate(sizes.values())) or (0,)


def _runs_of(row_groups: Sequence[RowGroup], sequences: Collection[int]) -> list[list[RowGroup]]:
    """The row groups that change places together: those of a sequence, and every other one by itself."""
    runs: list[list[RowGroup]] = []
    for row_group in row_groups:
        if runs and row_group.part in sequences and runs[-1][0].part == row_group.part:
            runs[-1].append(row_group)
        else:
            runs.append([row_group])
    return runs


def sample_order(sessions: Sequence[Int64s], shuffle: Shuffle, epoch: int, number: int) -> Int64s:
    """The samples of a shuffle window in the order of the epoch.

    Args:
        sessions: for each row group the session id of each of its samples, int64.
        shuffle: the seed; without shuffling the samples stay as they stand.
        epoch: counted from 0.
        number: number of the shuffle window.

    Returns:
        int64 [N], places in the row groups laid side by side.
    """
    size = sum(map(len, sessions))
    if not shuffle.mixes_sessions or not size:
        return np.arange(size)
    begins = np.cumsum([0, *map(len, sessions)])[:-1]
    together = np.concatenate([begin + _side_by_side(ids) for begin, ids in zip(begins, sessions, strict=True)])
    ids = np.concatenate(sessions)[together]
    is_first = np.ones(size, bool)
    np.not_equal(ids[1:], ids[:-1], out=is_first[1:])
    # A session never continues in the next row group, though the next one's first may have the same id.
    is_first[begins[begins < size]] = True
    starts = np.flatnonzero(is_first)
    lengths = np.diff(starts, append=size)
    order = permutation(len(starts), shuffle.seed, epoch, number + 1)
    starts, lengths = starts[order], lengths[order]
    places: Int64s = together[np.repeat(starts - (np.cumsum(lengths) - lengths), lengths) + np.arange(size)]
    return places


def _side_by_side(ids: Int64s) -> Int64s:
    """The samples of a row group, those of a session side by side, in the order in which sessions begin.

    So they stand in a table; in files that are read directly the samples of other sessions may stand between them.
    """
    runs = ids[:1] if len(ids) < 2 else ids[np.append(True, ids[1:] != ids[:-1])]
    if (runs[1:] > runs[:-1]).all() or len(np.unique(runs)) == len(runs):
        return np.arange(len(ids))
    _, first, session = np.unique(ids, return_index=True, return_inverse=True)
    return np.argsort(first[session], kind="stable")


def order_in_time(times: Sequence[Int64s], window: ShuffleWindow) -> Int64s:
    """The samples of a slice of time, in order of time; samples of one time as the table has them.

    Args:
        times: for each row group of the slice the timestamp of each of its samples, int64.
        window: the slice.

    Returns:
        int64 [N], places in the row groups laid side by side.
    """
    together = np.concatenate([np.zeros(0, np.int64), *times])
    first, end = window.times or (0, 0)
    chosen = np.flatnonzero((together >= first) & (together < end))
    return chosen[np.argsort(together[chosen], kind="stable")]
