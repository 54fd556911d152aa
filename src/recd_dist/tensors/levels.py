"""Levels: the ways in which the samples of one batch share rows, from coarse to fine.

::

    sample             0  1  2  3  4  5
    session level      0  0  0  0  1  1      coarse
    request level      0  0  1  1  2  2      finer: each request lies in one session
    page level         0  0  0  1  1  1      neither coarser nor finer than the request level
    request and page   0  0  1  2  3  3      their join: the coarsest level that is finer than both

What depends on several levels is computed at their join: once per request where sessions and requests meet, once per
distinct pair where neither lies in the other. None stands for the samples themselves, the finest level of all. Which
level lies in which is found on the host, from the inverses, so that a device is never waited for.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch import Tensor

from recd_dist.tensors.expansion import expand_rows
from recd_dist.tensors.host_side import HostArray, host_array

MIN_SHARED = 1.25
"""With this many samples per row, computing once and expanding beats computing per sample (measured)."""


@dataclass(frozen=True, eq=False)
class RowIndex:
    """For each row of a fine level the row of a coarse one in which it lies.

    Attributes:
        rows: int32 or int64 [rows of the fine level].
        known: the same numbers on the host.
        num_rows: U, the number of rows of the coarse level.
        slots: the slots in which the fine rows were laid so far, by their width (tensors/slots.py).
    """

    rows: Tensor
    known: HostArray
    num_rows: int
    slots: dict[int, Any] = field(default_factory=dict)


class _Relations:
    """What is known of the levels of one batch; it holds no level, so that nothing outlives its batch."""

    def __init__(self) -> None:
        self.serial = count()
        self.index: dict[tuple[int, int], RowIndex | None] = {}
        self.joins: WeakValueDictionary[tuple[int, int], Level] = WeakValueDictionary()
        self.not_shared: set[tuple[int, int]] = set()


class Level:
    """A level of a batch. ``Levels.find`` makes them; two levels of one batch are compared by identity.

    Attributes:
        inverse: int32 or int64 [B] in [0, U), for each sample its row.
        num_rows: U, the number of rows.
        known_inverse: the inverse on the host.
    """

    def __init__(self, inverse: Tensor, num_rows: int, known_inverse: HostArray, relations: _Relations) -> None:
        self.inverse, self.num_rows, self.known_inverse = inverse, num_rows, known_inverse
        self._relations, self._serial = relations, next(relations.serial)

    @property
    def batch_size(self) -> int:
        """B, the number of samples."""
        return len(self.known_inverse)

    @cached_property
    def num_samples(self) -> Tensor:
        """For each row how many samples share it, int64 [U]."""
        return torch.bincount(self.inverse, minlength=self.num_rows)

    def expand(self, values: Tensor) -> Tensor:
        """Gives every sample its row of values: [U, ...] -> [B, ...]. The gradient adds up the samples of a row."""
        return expand_rows(values, self.inverse)

    def expand_to(self, finer: "Level | None", values: Tensor) -> Tensor:
        """Gives every row of a finer level its row of values: [U, ...] -> [U of the finer level, ...].

        Args:
            finer: a level that lies in this one; None for the samples.
            values: [U, ...], one row per row of this level.

        Raises:
            ValueError: the level does not lie in this one.
        """
        return values if finer is self else expand_rows(values, self.rows_in(finer))

    def rows_in(self, finer: "Level | None") -> Tensor:
        """For each row of a finer level the row of this level in which it lies, int32 or int64.

        Args:
            finer: a level that lies in this one; None for the samples.

        Raises:
            ValueError: the level does not lie in this one.
        """
        if (index := self.index_in(finer)) is None:
            raise ValueError("level: its rows are cut by the level to which they should be expanded")
        return index.rows

    def index_in(self, finer: "Level | None") -> RowIndex | None:
        """For each row of a finer level the row of this level in which it lies.

        Args:
            finer: the other level; None for the samples.

        Returns:
            The index; None where the other level is not finer: one of its rows has samples of several rows of this one.
        """
        if finer is None:
            return self._index_of_samples
        key, known = (self._serial, finer._serial), self._relations.index
        if key not in known:
            known[key] = self._find_index(finer)
        return known[key]

    @cached_property
    def _index_of_samples(self) -> RowIndex:
        return RowIndex(self.inverse, self.known_inverse, self.num_rows)

    def _find_index(self, finer: "Level") -> RowIndex | None:
        if finer.num_rows < self.num_rows:
            return None
        first = np.zeros(finer.num_rows, self.known_inverse.dtype)
        first[finer.known_inverse] = self.known_inverse
        if not np.array_equal(first[finer.known_inverse], self.known_inverse):
            return None
        # All samples of a row write the same number.
        rows = torch.zeros(finer.num_rows, dtype=torch.int64, device=self.inverse.device)
        return RowIndex(rows.scatter_(0, finer.inverse.long(), self.inverse.long()), first, self.num_rows)


class TracedLevel(Level):
    """The one level of a program that torch.export makes: neither its rows nor their number are known.

    Args:
        inverse: int64 [B], for each sample its row.
        num_rows: U, a symbol.
    """

    def __init__(self, inverse: Tensor, num_rows: int) -> None:
        super().__init__(inverse, num_rows, np.zeros(0, np.int32), _Relations())

    @property
    def batch_size(self) -> int:
        """B, a symbol."""
        return self.inverse.shape[0]

    def index_in(self, finer: "Level | None") -> RowIndex | None:
        """The index of the samples; there is no other level."""
        return RowIndex(self.inverse, self.known_inverse, self.num_rows) if finer is None else None


def join_levels(levels: Iterable[Level | None]) -> Level | None:
    """The coarsest level that is finer than each of some levels of one batch.

    Returns:
        One of them where it lies in all others; else their distinct combinations, or None (the samples) where hardly
        any samples share one.
    """
    joined: list[Level] = []
    for level in levels:
        if level is None:
            return None
        joined.append(level)
    if not joined:
        return None
    result: Level | None = joined[0]
    for level in joined[1:]:
        if result is None:
            return None
        result = _join_two(result, level)
    return result


def _join_two(one: Level, other: Level) -> Level | None:
    if one is other or other.index_in(one) is not None:
        return one
    if one.index_in(other) is not None:
        return other
    relations, key = one._relations, (min(one._serial, other._serial), max(one._serial, other._serial))
    if key in relations.not_shared:
        return None
    if (level := relations.joins.get(key)) is None:
        level = _distinct_pairs(one, other)
        if not _is_worth(level.batch_size, level.num_rows):
            relations.not_shared.add(key)
            return None
        relations.joins[key] = level
    return level


def _distinct_pairs(one: Level, other: Level) -> Level:
    """A new row begins where a sample differs from the one before in one of the two levels.

    The samples of a session are neighbours in a batch, so that comparing neighbours finds the pairs without a sort. A
    pair that comes again later is a row of its own, which costs time and changes no result.
    """
    a, b = one.known_inverse, other.known_inverse
    changed = np.zeros(len(a), np.int32)
    changed[1:] = (a[1:] != a[:-1]) | (b[1:] != b[:-1])
    known = np.cumsum(changed, dtype=np.int32)
    stacked = torch.stack([one.inverse.long(), other.inverse.long()])
    on_device = torch.zeros(stacked.shape[1], dtype=torch.int64, device=stacked.device)
    on_device[1:] = (stacked[:, 1:] != stacked[:, :-1]).any(0)
    return Level(torch.cumsum(on_device, 0), int(known[-1]) + 1, known, one._relations)


def _is_worth(batch_size: int, num_rows: int) -> bool:
    return batch_size >= MIN_SHARED * num_rows and batch_size > 0


class Levels:
    """The levels of one batch, each of them once."""

    def __init__(self) -> None:
        self._relations = _Relations()
        self._found: list[Level] = []

    def find(self, inverse: Tensor | None, num_rows: int, known_inverse: HostArray | None = None) -> Level | None:
        """The level of an inverse; equal inverses have one level.

        The host waits for a device if it does not know the inverse.

        Args:
            inverse: int32 or int64 [B] in [0, U), for each sample its row; None where each has its own.
            num_rows: U, the number of rows.
            known_inverse: the inverse on the host, where it is known there; or the level of a program that is traced.

        Returns:
            The level; None where computing at it would not be faster than per sample.
        """
        if isinstance(known_inverse, TracedLevel):
            return known_inverse
        if inverse is None or not _is_worth(len(inverse), num_rows):
            return None
        known = host_array(inverse, known_inverse)
        for level in self._found:
            if level.num_rows == num_rows and (
                level.known_inverse is known or np.array_equal(level.known_inverse, known)
            ):
                return level
        self._found.append(Level(inverse, num_rows, known, self._relations))
        return self._found[-1]
