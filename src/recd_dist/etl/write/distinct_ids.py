"""Distinct ids of an embedding table: exact while they are few, then estimated."""

import base64
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from recd_dist.table.loops import jit, splitmix64_one
from recd_dist.table.manifest import IdStats

_EXACT = 1 << 16  # ids that are counted exactly; beyond, HyperLogLog
_FIRST_SLOTS = 1 << 10
_PRECISION = 14  # 16,384 registers: a standard error of 0.8%


@dataclass
class DistinctIds:
    """Distinct ids of one embedding table: counted exactly up to 65,536, then estimated by HyperLogLog.

    Attributes:
        slots, used: a hash set of the ids (open addressing), which grows as it fills; it is empty when there were too
            many ids.
        num_exact: number of ids in the set; -1 when there were too many.
        registers: uint8 [16384], the registers of HyperLogLog.
        min_id, max_id: smallest and largest id; 0 and -1 when there is none.
    """

    slots: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(_FIRST_SLOTS, np.int64))
    used: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros(_FIRST_SLOTS, np.bool_))
    num_exact: int = 0
    registers: npt.NDArray[np.uint8] = field(default_factory=lambda: np.zeros(1 << _PRECISION, np.uint8))
    min_id: int = 0
    max_id: int = -1

    def add(self, ids: npt.NDArray[np.integer]) -> None:
        """Adds ids [n], which may repeat."""
        if not len(ids):
            return
        self._count(np.ascontiguousarray(ids, np.int64))
        self._extend(int(ids.min()), int(ids.max()))

    def merge(self, other: "DistinctIds") -> None:
        """Adds the ids that another object has counted."""
        np.maximum(self.registers, other.registers, out=self.registers)
        if other.max_id >= other.min_id:
            self._extend(other.min_id, other.max_id)
        if other.num_exact < 0:
            self._drop_set()
        elif other.num_exact:
            self._count(other.slots[other.used])

    def stats(self) -> IdStats:
        """Range and number of the ids, as the manifest has them."""
        return IdStats(self.min_id, self.max_id, self._num_distinct())

    @property
    def exact_ids(self) -> npt.NDArray[np.int64] | None:
        """The distinct ids, int64 in ascending order; None when there were too many."""
        return np.sort(self.slots[self.used]) if self.num_exact >= 0 else None

    @staticmethod
    def restore(
        exact_ids: npt.NDArray[np.int64] | None, registers: npt.NDArray[np.uint8], min_id: int, max_id: int
    ) -> "DistinctIds":
        """Restores an object from its properties.

        Args:
            exact_ids: int64, the property ``exact_ids``.
            registers: uint8 [16384], the registers of HyperLogLog.
            min_id: smallest id.
            max_id: largest id.
        """
        distinct = DistinctIds(registers=registers.copy(), min_id=min_id, max_id=max_id)
        if exact_ids is None:
            distinct._drop_set()
        else:
            distinct._count(np.ascontiguousarray(exact_ids))
        return distinct

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict; ``DistinctIds.from_json`` is its inverse."""
        exact_ids = self.exact_ids
        return {
            "exact": None if exact_ids is None else _pack(exact_ids),
            "registers": _pack(self.registers),
            "min_id": self.min_id,
            "max_id": self.max_id,
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> "DistinctIds":
        """The object that ``to_json`` turned into JSON."""
        exact_ids = None if value["exact"] is None else _unpack(value["exact"], np.dtype(np.int64))
        registers = _unpack(value["registers"], np.dtype(np.uint8))
        return DistinctIds.restore(exact_ids, registers, value["min_id"], value["max_id"])

    def _count(self, ids: npt.NDArray[np.int64]) -> None:
        start = 0
        while start < len(ids):
            start, self.num_exact = _enter(ids, start, self.slots, self.used, self.num_exact, self.registers)
            if start < len(ids):
                self._grow()
        if self.num_exact < 0:
            self._drop_set()

    def _grow(self) -> None:
        """Gives the set four times as many slots."""
        ids = self.slots[self.used]
        self.slots, self.used = np.zeros(4 * len(self.slots), np.int64), np.zeros(4 * len(self.slots), np.bool_)
        _, self.num_exact = _enter(ids, 0, self.slots, self.used, 0, self.registers)

    def _drop_set(self) -> None:
        """Frees the memory of the set, since there are too many ids for it."""
        self.num_exact = -1
        self.slots, self.used = np.zeros(1, np.int64), np.zeros(1, np.bool_)

    def _num_distinct(self) -> int:
        if self.num_exact >= 0:
            return self.num_exact
        num = len(self.registers)
        estimate = 0.7213 / (1 + 1.079 / num) * num * num / float(np.exp2(-self.registers.astype(np.float64)).sum())
        num_empty = int((self.registers == 0).sum())
        if estimate <= 2.5 * num and num_empty:
            estimate = num * math.log(num / num_empty)
        return max(round(estimate), _EXACT)

    def _extend(self, low: int, high: int) -> None:
        none_yet = self.max_id < self.min_id
        self.min_id = low if none_yet else min(self.min_id, low)
        self.max_id = high if none_yet else max(self.max_id, high)


@jit
def _enter(
    ids: npt.NDArray[np.int64],
    start: int,
    slots: npt.NDArray[np.int64],
    used: npt.NDArray[np.bool_],
    num_exact: int,
    registers: npt.NDArray[np.uint8],
) -> tuple[int, int]:
    """Enters ids into the registers, and into the set until the set is too full.

    HyperLogLog mixes each id by splitmix64. The low bits of the result choose a register, and the register keeps the
    largest number of leading zeros + 1.

    Args:
        ids: int64 [n].
        start: position of the first id to enter.
        slots: int64, the slots of the set; their number is a power of two.
        used: bool, whether each slot holds an id.
        num_exact: number of ids in the set; -1 when there were too many.
        registers: uint8 [16384].

    Returns:
        The position of the id that found the set too full, or n; and the number of ids in the set, or -1.
    """
    before = np.int64(0)
    for i in range(start, len(ids)):
        if i > start and ids[i] == before:
            continue
        if 2 * num_exact >= len(slots):
            return i, num_exact
        before = ids[i]
        x = splitmix64_one(np.uint64(before))
        if num_exact >= 0:
            slot = np.int64(x >> np.uint64(20)) & (len(slots) - 1)
            while used[slot] and slots[slot] != before:
                slot = (slot + 1) & (len(slots) - 1)
            if used[slot]:
                continue
            used[slot], slots[slot] = True, before
            num_exact = num_exact + 1 if num_exact < _EXACT else -1
        mask, rank = np.uint64(1 << 63), np.uint8(1)
        while rank < 51 and x & mask == np.uint64(0):
            mask = mask >> np.uint64(1)
            rank += np.uint8(1)
        register = x & np.uint64(16383)
        registers[register] = max(registers[register], rank)
    return len(ids), num_exact


def _pack(numbers: npt.NDArray[Any]) -> str:
    """Writes numbers as text: little-endian bytes, compressed, in base64."""
    little = numbers.astype(numbers.dtype.newbyteorder("<"))
    return base64.b64encode(zlib.compress(little.tobytes(), 1)).decode()


def _unpack(text: str, dtype: "np.dtype[Any]") -> npt.NDArray[Any]:
    """Reads the numbers that ``_pack`` wrote."""
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype.newbyteorder("<")).astype(dtype)
