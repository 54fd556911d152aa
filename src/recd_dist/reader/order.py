"""The order of an epoch: a pure function of (table, seed, epoch), independent of ranks, workers and batch size.

::

    table     rg0 rg1 rg2 rg3 rg4            row groups of all parts, sessions whole inside each
    permuted  rg3 rg0 | rg4 rg2 | rg1        windows of `window` row groups (here 2)
    inside    sessions of a window in any order, the samples of a session side by side

Permutations are the sort order of hashed numbers, so that they do not change with a release of numpy.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recd_dist.table.hash import splitmix64
from recd_dist.table.manifest import Manifest

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True)
class RowGroup:
    """A row group of ``samples/``: part and index inside it, both counted from 0, and its samples."""

    part: int
    index: int
    num_samples: int


@dataclass(frozen=True)
class Window:
    """Row groups that are read together; their sessions are shuffled among each other.

    Attributes:
        number: place in the epoch.
        row_groups: in reading order.
        start, end: the samples of the stream that it holds.
    """

    number: int
    row_groups: tuple[RowGroup, ...]
    start: int
    end: int


@dataclass(frozen=True)
class Shuffle:
    """How an epoch is ordered.

    Attributes:
        seed: of all epochs.
        enabled: False keeps the order of the table.
        window: row groups a window. More mixes sessions from further apart and holds more in memory.
    """

    seed: int = 0
    enabled: bool = True
    window: int = 8


def permutation(size: int, *keys: int) -> Int64s:
    """A permutation of range(size), the same for the same keys everywhere and for ever; int64 [size]."""
    state = np.zeros(1, np.uint64)
    for key in keys:
        state = splitmix64(state + np.uint64(key % 2**64))
    return np.argsort(splitmix64(splitmix64(np.arange(size, dtype=np.uint64) + state)), kind="stable")


def epoch_windows(manifest: Manifest, shuffle: Shuffle, epoch: int) -> tuple[Window, ...]:
    """The windows of an epoch, in the order of its stream.

    Args:
        manifest: of the table.
        shuffle: seed and window size.
        epoch: counted from 0.
    """
    groups = [
        RowGroup(part, index, size)
        for part, entry in enumerate(manifest.parts)
        for index, size in enumerate(entry.samples.row_groups)
        if size
    ]
    if shuffle.enabled:
        groups = [groups[i] for i in permutation(len(groups), shuffle.seed, epoch)]
    windows: list[Window] = []
    for first in range(0, len(groups), shuffle.window):
        chosen = tuple(groups[first : first + shuffle.window])
        start = windows[-1].end if windows else 0
        windows.append(Window(len(windows), chosen, start, start + sum(g.num_samples for g in chosen)))
    return tuple(windows)


def sample_order(sessions: Sequence[Int64s], shuffle: Shuffle, epoch: int, window: int) -> Int64s:
    """The samples of a window in stream order: places in its row groups laid side by side, int64 [N].

    Args:
        sessions: per row group the session id of each sample.
        shuffle: the seed; without shuffling the samples stay as they stand.
        epoch: counted from 0.
        window: number of the window.
    """
    size = sum(map(len, sessions))
    if not shuffle.enabled or not size:
        return np.arange(size)
    ids = np.concatenate(sessions)
    is_first = np.ones(size, bool)
    np.not_equal(ids[1:], ids[:-1], out=is_first[1:])
    # A session never continues in the next row group, though the next one's first may have the same id.
    begins = np.cumsum([0, *map(len, sessions)])[:-1]
    is_first[begins[begins < size]] = True
    starts = np.flatnonzero(is_first)
    lengths = np.diff(starts, append=size)
    chosen = permutation(len(starts), shuffle.seed, epoch, window + 1)
    starts, lengths = starts[chosen], lengths[chosen]
    return np.repeat(starts - (np.cumsum(lengths) - lengths), lengths) + np.arange(size)
