"""What the writer measures on the way: per feature and per embedding table."""

import base64
import math
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from recd_dist.table.column import Column
from recd_dist.table.loops import jit, splitmix64_one
from recd_dist.table.manifest import FeatureStats, IdStats

_EXACT = 1 << 16  # distinct ids counted exactly; beyond, HyperLogLog
_FIRST_SLOTS = 1 << 10
_PRECISION = 14  # 16,384 registers: 0.8% standard error


@dataclass
class Measured:
    """Sums of one feature over some samples, added up over row groups and parts."""

    num_values_unique: int = 0
    num_values_expanded: int = 0
    max_length: int = 0
    num_same: int = 0
    num_pairs: int = 0
    num_null: int = 0
    num: int = 0
    mean: float = 0.0
    squares: float = 0.0
    min: float = math.inf
    max: float = -math.inf

    def add(self, column: Column, repeats: npt.NDArray[np.int64], num_changed: int, num_pairs: int) -> None:
        """Takes unique rows into account.

        Args:
            column: unique rows [U] as stored.
            repeats: int64 [U], samples that have each row.
            num_changed: neighbours in one session between which the value changes.
            num_pairs: neighbours in one session.
        """
        self.num_pairs += num_pairs
        self.num_same += num_pairs - num_changed
        if column.offsets is not None:
            lengths = column.lengths
            self.num_values_unique += int(lengths.sum())
            self.num_values_expanded += int((lengths * repeats).sum())
            self.max_length = max(self.max_length, int(lengths.max(initial=0)))
            return
        if not len(column):
            return
        self.num_values_unique += len(column)
        self.num_values_expanded += int(repeats.sum())
        self.max_length = 1
        if np.issubdtype(column.values.dtype, np.floating):
            self._add_numbers(column.values.astype(np.float64), repeats)

    def _add_numbers(self, numbers: npt.NDArray[np.float64], repeats: npt.NDArray[np.int64]) -> None:
        num = int(repeats.sum())
        mean = float(np.average(numbers, weights=repeats))
        squares = float((repeats * (numbers - mean) ** 2).sum())
        self.merge_numbers(Measured(num=num, mean=mean, squares=squares, min=numbers.min(), max=numbers.max()))

    def merge(self, other: "Measured") -> None:
        """Adds what was measured on other samples."""
        self.num_values_unique += other.num_values_unique
        self.num_values_expanded += other.num_values_expanded
        self.max_length = max(self.max_length, other.max_length)
        self.num_same += other.num_same
        self.num_pairs += other.num_pairs
        self.num_null += other.num_null
        self.merge_numbers(other)

    def merge_numbers(self, other: "Measured") -> None:
        """Joins mean and variance (Chan et al. 1983), which stays exact for large means."""
        if not other.num:
            return
        num, delta = self.num + other.num, other.mean - self.mean
        self.squares += other.squares + delta * delta * self.num * other.num / num
        self.mean += delta * other.num / num
        self.num = num
        self.min, self.max = min(self.min, float(other.min)), max(self.max, float(other.max))

    def stats(self, numbers: "Measured") -> FeatureStats:
        """As the manifest has it; mean and spread come from ``numbers``, the train split's measurement."""
        some = numbers.num > 0
        return FeatureStats(
            num_values_unique=self.num_values_unique,
            num_values_expanded=self.num_values_expanded,
            max_length=self.max_length,
            stay_rate=self.num_same / self.num_pairs if self.num_pairs else math.nan,
            num_null=self.num_null,
            mean=numbers.mean,
            std=math.sqrt(numbers.squares / numbers.num) if some else 0.0,
            min=numbers.min if some else 0.0,
            max=numbers.max if some else 0.0,
            num_pairs=self.num_pairs,
        )

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict; ``Measured.from_json`` is its inverse."""
        value = asdict(self) | {"min": float(self.min), "max": float(self.max)}
        return value if self.num else value | {"min": None, "max": None}  # JSON knows no infinity

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> "Measured":
        """What ``to_json`` wrote."""
        return Measured(**value) if value["num"] else Measured(**dict(value) | {"min": math.inf, "max": -math.inf})


@dataclass
class Distinct:
    """Distinct ids of one embedding table: exact up to 65,536, then estimated by HyperLogLog.

    Attributes:
        slots, used: an open-addressing hash set of the ids, while they are few enough; it grows as it fills.
        num_exact: ids in it; -1 when there were too many.
        registers: of HyperLogLog.
        min_id, max_id: 0 and -1 when there is none.
    """

    slots: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(_FIRST_SLOTS, np.int64))
    used: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros(_FIRST_SLOTS, np.bool_))
    num_exact: int = 0
    registers: npt.NDArray[np.uint8] = field(default_factory=lambda: np.zeros(1 << _PRECISION, np.uint8))
    min_id: int = 0
    max_id: int = -1

    def add(self, ids: npt.NDArray[np.integer]) -> None:
        """Takes ids [n] into account."""
        if not len(ids):
            return
        self._count(np.ascontiguousarray(ids, np.int64))
        self._extend(int(ids.min()), int(ids.max()))

    def merge(self, other: "Distinct") -> None:
        """Adds the ids that another one counted."""
        np.maximum(self.registers, other.registers, out=self.registers)
        if other.max_id >= other.min_id:
            self._extend(other.min_id, other.max_id)
        if other.num_exact < 0:
            self._forget()
        elif other.num_exact:
            self._count(other.slots[other.used])

    def stats(self) -> IdStats:
        """As the manifest has it."""
        return IdStats(self.min_id, self.max_id, self._num_distinct())

    @property
    def exact(self) -> npt.NDArray[np.int64] | None:
        """The distinct ids, int64, ascending; None when there were too many."""
        return np.sort(self.slots[self.used]) if self.num_exact >= 0 else None

    @staticmethod
    def restored(
        exact: npt.NDArray[np.int64] | None, registers: npt.NDArray[np.uint8], min_id: int, max_id: int
    ) -> "Distinct":
        """The same again from what ``exact``, ``registers``, ``min_id`` and ``max_id`` were."""
        distinct = Distinct(registers=registers.copy(), min_id=min_id, max_id=max_id)
        if exact is None:
            distinct._forget()
        else:
            distinct._count(np.ascontiguousarray(exact))
        return distinct

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict; ``Distinct.from_json`` is its inverse."""
        exact = self.exact
        return {
            "exact": None if exact is None else _packed(exact),
            "registers": _packed(self.registers),
            "min_id": self.min_id,
            "max_id": self.max_id,
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> "Distinct":
        """What ``to_json`` wrote."""
        exact = None if value["exact"] is None else _unpacked(value["exact"], np.dtype(np.int64))
        return Distinct.restored(
            exact, _unpacked(value["registers"], np.dtype(np.uint8)), value["min_id"], value["max_id"]
        )

    def _count(self, ids: npt.NDArray[np.int64]) -> None:
        start = 0
        while start < len(ids):
            start, self.num_exact = _enter(ids, start, self.slots, self.used, self.num_exact, self.registers)
            if start < len(ids):
                self._grow()
        if self.num_exact < 0:
            self._forget()

    def _grow(self) -> None:
        """Four times the slots for the same ids."""
        ids = self.slots[self.used]
        self.slots, self.used = np.zeros(4 * len(self.slots), np.int64), np.zeros(4 * len(self.slots), np.bool_)
        _, self.num_exact = _enter(ids, 0, self.slots, self.used, 0, self.registers)

    def _forget(self) -> None:
        """Too many ids for a set: its memory is free."""
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
    """Enters ids into the set, until it is too full, and into the registers.

    HyperLogLog: each id is mixed by splitmix64 and sets the register of its low bits to its leading zeros + 1.

    Returns:
        Where it stopped, as the set must grow (or the number of ids), and the size of the set or -1.
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
        place = x & np.uint64(16383)
        registers[place] = max(registers[place], rank)
    return len(ids), num_exact


def _packed(numbers: npt.NDArray[Any]) -> str:
    """Numbers as text: little-endian, compressed, base64."""
    little = numbers.astype(numbers.dtype.newbyteorder("<"))
    return base64.b64encode(zlib.compress(little.tobytes(), 1)).decode()


def _unpacked(text: str, dtype: "np.dtype[Any]") -> npt.NDArray[Any]:
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype.newbyteorder("<")).astype(dtype)
