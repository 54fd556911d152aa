"""The type of each column on disk: no nulls, the narrowest type of ids, float32.

::

    integer    [7, null, 9]           -> ids    [[7], [], [9]]     a single id that can be missing becomes a list
    integer[]  [[1, null, 2], null]   -> ids    [[1, 2], []]       missing values are counted
    float      [0.5, null, nan]       -> dense  [0.5, 0.0, 0.0]
"""

from typing import Any

import numpy as np
import pyarrow as pa

from recd_dist.etl.deal.value_range import ValueRange
from recd_dist.table.fill_nulls import fill_nulls
from recd_dist.table.flat_columns import take_rows, to_arrow
from recd_dist.table.schema import Feature, Kind

_INT32 = np.iinfo(np.int32)


def id_type(seen: ValueRange) -> pa.DataType:
    """The type of ids: int32 where every id that was seen fits, else int64."""
    return pa.int32() if seen.min_id >= _INT32.min and seen.max_id <= _INT32.max else pa.int64()


def list_type(element: pa.DataType) -> pa.DataType:
    """The type of lists without nulls, given the type of their elements."""
    return pa.list_(pa.field("element", element, nullable=False))


WEIGHTS = list_type(pa.float32())
"""The type of a column of weights."""


def stored_type(feature: Feature, seen: ValueRange) -> pa.DataType:
    """The type of a feature's column on disk, given the values that were seen."""
    if feature.kind is Kind.dense:
        return pa.float32()
    return id_type(seen) if feature.kind is Kind.id else list_type(id_type(seen))


def value_dtype(stored: pa.DataType) -> "np.dtype[Any]":
    """The numpy type of a stored column's values, or of the elements of its lists."""
    element = stored.value_type if pa.types.is_list(stored) else stored
    return np.dtype(element.to_pandas_dtype())


def convert_column(column: pa.ChunkedArray | pa.Array, kind: Kind, stored: pa.DataType) -> tuple[pa.Array, int]:
    """Converts a raw column into the form that is stored.

    Args:
        column: int64, float32 or lists of integers [N], with nulls.
        kind: the feature's kind; ``ids`` may also come as a column of single ids.
        stored: the type on disk.

    Returns:
        The column [N] without nulls, and how many values were missing: rows, or elements of lists.
    """
    name = "column"
    raw = fill_nulls(pa.table({name: column}), Feature(name, kind, table=name), lambda row: f"row {row}")
    rows = take_rows(raw.column, np.arange(len(raw.column)), value_dtype(stored), name)
    return to_arrow(rows, stored, WEIGHTS)[0], 0 if raw.missing is None else int(raw.missing.sum())
