"""The rows of one feature as flat arrays, as the ETL and the reader use them.

::

    rows      [5 6 7]  []  [9 9]
    values    5 6 7 9 9            row after row
    offsets   0 3 3 5              where each row begins, and the end
    weights   1 1 .5 1 2           one for each value, where the feature has weights
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Column:
    """Rows of one feature. ``len`` is their number.

    Attributes:
        values: ids int32 or int64 [V], or dense numbers float32 [V], row after row.
        offsets: int32 or int64 [rows + 1], where each row begins in values; None when every row holds exactly one
            value.
        weights: float32 [V], one for each id; None where there are none or they were not asked for.
    """

    values: Array
    offsets: npt.NDArray[np.integer] | None = None
    weights: npt.NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.values) if self.offsets is None else len(self.offsets) - 1

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Values of each row, int64 [rows]."""
        return np.ones(len(self), np.int64) if self.offsets is None else np.diff(self.offsets).astype(np.int64)

    def row_of(self, value: int) -> int:
        """The row that holds a value.

        Args:
            value: place of the value in ``values``.
        """
        return value if self.offsets is None else int(np.searchsorted(self.offsets, value, "right")) - 1


@dataclass(frozen=True)
class Windows:
    """Rows of one feature that share their values: each is a window over them. ``len`` is the number of rows.

    ::

        values    5 6 7 8 9 9
        starts    0 1 4          rows [5 6 7]  [6 7 8]  [9 9]
        lengths   3 3 2

    Attributes:
        values: ids int32 or int64 [V], of which a value may be in many rows or in none.
        starts: int32 [rows], where each row begins in values.
        lengths: int32 [rows].
        weights: float32 [V], one for each value; None where there are none or they were not asked for.
    """

    values: Array
    starts: npt.NDArray[np.int32]
    lengths: npt.NDArray[np.int32]
    weights: npt.NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.starts)

    def row_of(self, value: int) -> int:
        """The first row that holds a value; 0 where none does.

        Args:
            value: place of the value in ``values``.
        """
        return int(np.argmax((self.starts <= value) & (value < self.starts + self.lengths)))

    def to_lists(self) -> Column:
        """The same rows, each with its own copy of its values."""
        column = Column(self.values, None, self.weights)
        return gather_slices(column, self.starts.astype(np.int64), self.lengths)


Rows = Column | Windows
"""The rows of a feature, as they are stored."""


def gather_slices(column: Column, starts: npt.NDArray[np.integer], lengths: npt.NDArray[np.integer]) -> Column:
    """Rows that are slices of the values of a column, each id with its weight.

    Args:
        column: its values and weights; its own rows do not matter.
        starts: [R], the place in the values at which each row begins.
        lengths: [R], values of each row.

    Returns:
        Lists [R], offsets int64 from 0.
    """
    from recd_dist.table import loops

    offsets = offsets_of(lengths)
    arrays = [column.values] if column.weights is None else [column.values, column.weights]
    gathered = [np.empty(offsets[-1], array.dtype) for array in arrays]
    for array, out in zip(arrays, gathered, strict=True):
        loops.gather_slices(array, starts.astype(np.int64, copy=False), offsets, out)
    return Column(gathered[0], offsets, *gathered[1:])


def join_columns(columns: Sequence[Column]) -> Column:
    """The rows of several columns, one after the other, in new memory.

    Args:
        columns: the columns, at least one. Offsets begin at 0, and every value is in a row, except that a column
            without rows may have values.
    """
    owned = [slice(None) if len(c) else slice(0) for c in columns]
    values = np.concatenate([c.values[own] for c, own in zip(columns, owned, strict=True)])
    if all(c.offsets is None for c in columns):
        return Column(values)
    weights = [c.weights[own] for c, own in zip(columns, owned, strict=True) if c.weights is not None]
    offsets = offsets_of(np.concatenate([c.lengths for c in columns]))
    return Column(values, offsets, np.concatenate(weights) if weights else None)


def offsets_of(lengths: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """Where rows of these lengths begin, and the end; int64 [rows + 1]."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets
