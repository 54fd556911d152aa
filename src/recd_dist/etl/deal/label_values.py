"""Which values a label has: a binary task takes 0 and 1 only, and both must be there."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recd_dist.table.announcement import Announcement
from recd_dist.table.binary_label import binary_label_cure


@dataclass
class LabelValues:
    """The values of one label.

    Attributes:
        num_zero, num_one: the number of samples whose label is 0, and 1.
        num_other: the number of samples whose label is neither.
        low, high: the smallest and the largest label; None where no sample has one.
        num_missing: the number of samples that have none.
    """

    num_zero: int = 0
    num_one: int = 0
    num_other: int = 0
    low: float | None = None
    high: float | None = None
    num_missing: int = 0

    def include(self, labels: npt.NDArray[np.float32]) -> None:
        """Takes labels into account: float32 [N], nan where one is missing."""
        num_samples, labels = len(labels), labels[~np.isnan(labels)]
        self.num_missing += num_samples - len(labels)
        if len(labels):
            zero, one = int((labels == 0).sum()), int((labels == 1).sum())
            low, high = float(labels.min()), float(labels.max())
            self.merge(LabelValues(zero, one, len(labels) - zero - one, low, high))

    def merge(self, other: "LabelValues") -> None:
        """Takes into account what other samples hold."""
        self.num_zero += other.num_zero
        self.num_one += other.num_one
        self.num_other += other.num_other
        self.num_missing += other.num_missing
        self.low = min((v for v in (self.low, other.low) if v is not None), default=None)
        self.high = max((v for v in (self.high, other.high) if v is not None), default=None)

    def announcements(self, name: str, trained: bool) -> list[Announcement]:
        """What people may not expect of the label.

        Args:
            name: the name of the label.
            trained: whether training takes this label where nobody names another one.
        """
        num = self.num_zero + self.num_one + self.num_other
        if self.low is None or self.high is None:
            found = f"label '{name}' is missing in all {self.num_missing:,} samples, and `recd train` refuses it"
            return [Announcement(found, self.num_missing, "fill the column in data.samples", trained)] * bool(
                self.num_missing
            )
        if self.num_other:
            found = (
                f"label '{name}' is neither 0 nor 1 in {self.num_other:,} of {num:,} samples (it goes from "
                f"{self.low:g} to {self.high:g}), and `recd train` takes it only with tasks.{name}.loss=regression"
            )
            return [Announcement(found, self.num_other, binary_label_cure(name, self.low, self.high), trained)]
        if self.low == self.high:
            found = f"label '{name}' is {self.low:g} in all {num:,} samples, and `recd train` refuses to train on it"
            return [Announcement(found, num, binary_label_cure(name, self.low, self.high), trained)]
        return []
