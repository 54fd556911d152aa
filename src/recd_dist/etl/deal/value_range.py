"""The range of the ids of a feature, and how often its value is missing."""

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc


@dataclass
class ValueRange:
    """The range of a feature's raw values.

    Attributes:
        min_id, max_id: the smallest and the largest id (0 and -1 where there is none).
        num_missing: the number of rows without a value.
    """

    min_id: int = 0
    max_id: int = -1
    num_missing: int = 0

    def include(self, column: pa.Array) -> None:
        """Takes a column into account: int64 [N] or lists of integers, which may hold nulls."""
        self.num_missing += column.null_count
        ids = column.flatten() if pa.types.is_list(column.type) else column
        if not pa.types.is_integer(ids.type):
            return
        extent = pc.min_max(ids).as_py()
        if extent["min"] is not None:
            self._extend(extent["min"], extent["max"])

    def merge(self, other: "ValueRange") -> None:
        """Takes into account what another range includes."""
        self.num_missing += other.num_missing
        if other.max_id >= other.min_id:
            self._extend(other.min_id, other.max_id)

    def _extend(self, low: int, high: int) -> None:
        is_empty = self.max_id < self.min_id
        self.min_id = low if is_empty else min(self.min_id, low)
        self.max_id = high if is_empty else max(self.max_id, high)
