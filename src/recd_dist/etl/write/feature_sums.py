"""Sums of one feature over some samples, of which the manifest's statistics are made."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from recd_dist.table.column import Column
from recd_dist.table.manifest import FeatureStats


@dataclass
class FeatureSums:
    """Sums of one feature over some samples; row groups and parts are added up.

    Attributes:
        num_values_unique: ids or numbers in stored rows.
        num_values_expanded: ids or numbers when every sample has its own copy.
        max_length: the most ids of a row.
        num_same: pairs of neighbours in one session that have the same value.
        num_pairs: pairs of neighbours in one session.
        num_null: values that were missing and have been filled.
        num: samples that the numbers below are over; 0 for ids.
        mean: mean of a dense feature.
        squares: sum of the squared distances from the mean.
        min, max: smallest and largest number.
    """

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

    @property
    def num_seen(self) -> int:
        """Samples whose numbers were looked at, with those that have none."""
        return self.num + self.num_null

    def add(self, column: Column, repeats: npt.NDArray[np.int64], num_changed: int, num_pairs: int) -> None:
        """Adds the samples of some stored rows.

        Args:
            column: the stored rows [U].
            repeats: int64 [U], the number of samples that have each row.
            num_changed: number of pairs of neighbours in one session whose values differ.
            num_pairs: number of pairs of neighbours in one session.
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
            self.add_numbers(column.values.astype(np.float64), repeats)

    def add_numbers(self, numbers: npt.NDArray[np.float64], repeats: npt.NDArray[np.int64]) -> None:
        """Adds numbers, each of which ``repeats`` samples have: float64 [U], at least one, and int64 [U]."""
        num = int(repeats.sum())
        mean = float(np.average(numbers, weights=repeats))
        squares = float((repeats * (numbers - mean) ** 2).sum())
        self._merge_numbers(FeatureSums(num=num, mean=mean, squares=squares, min=numbers.min(), max=numbers.max()))

    def merge(self, other: "FeatureSums") -> None:
        """Adds the sums over other samples."""
        self.num_values_unique += other.num_values_unique
        self.num_values_expanded += other.num_values_expanded
        self.max_length = max(self.max_length, other.max_length)
        self.num_same += other.num_same
        self.num_pairs += other.num_pairs
        self.num_null += other.num_null
        self._merge_numbers(other)

    def _merge_numbers(self, other: "FeatureSums") -> None:
        """Joins mean and variance (Chan et al. 1983), which stays exact for large means."""
        if not other.num:
            return
        num, delta = self.num + other.num, other.mean - self.mean
        self.squares += other.squares + delta * delta * self.num * other.num / num
        self.mean += delta * other.num / num
        self.num = num
        self.min, self.max = min(self.min, float(other.min)), max(self.max, float(other.max))

    def stats(self, numbers: "FeatureSums") -> FeatureStats:
        """The statistics as the manifest has them.

        Args:
            numbers: the sums that mean, spread, minimum and maximum are taken from: those of the train split.
        """
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
        """A JSON-ready dict; ``FeatureSums.from_json`` is its inverse."""
        value = asdict(self) | {"min": float(self.min), "max": float(self.max)}
        return value if self.num else value | {"min": None, "max": None}  # JSON knows no infinity

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> "FeatureSums":
        """The sums that ``to_json`` turned into JSON."""
        return (
            FeatureSums(**value) if value["num"] else FeatureSums(**dict(value) | {"min": math.inf, "max": -math.inf})
        )
