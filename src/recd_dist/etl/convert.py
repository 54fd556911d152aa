"""Raw columns as the table's columns: no nulls, the narrowest id type, float32.

::

    integer    [7, null, 9]           -> ids    [[7], [], [9]]     a single id that can be missing is a list
    integer[]  [[1, null, 2], null]   -> ids    [[1, 2], []]       what is missing is counted
    float      [0.5, null, nan]       -> dense  [0.5, 0.0, 0.0]
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recd_dist.etl.seen import Seen
from recd_dist.schema import Feature, Kind

_INT32 = np.iinfo(np.int32)


def id_type(seen: Seen) -> pa.DataType:
    """int32 where every id fits, else int64."""
    return pa.int32() if seen.min_id >= _INT32.min and seen.max_id <= _INT32.max else pa.int64()


def list_type(element: pa.DataType) -> pa.DataType:
    """Lists without nulls."""
    return pa.list_(pa.field("element", element, nullable=False))


WEIGHTS = list_type(pa.float32())
"""The type of a weights column."""


def stored_type(feature: Feature, seen: Seen) -> pa.DataType:
    """The type of a feature's column on disk."""
    if feature.kind is Kind.dense:
        return pa.float32()
    return id_type(seen) if feature.kind is Kind.id else list_type(id_type(seen))


def converted(column: pa.ChunkedArray | pa.Array, kind: Kind, stored: pa.DataType) -> tuple[pa.Array, int]:
    """A column as it is stored.

    Args:
        column: int64, float32 or lists of integers, [N], with nulls.
        kind: of the feature; ``ids`` also of a column of single ids.
        stored: type on disk.

    Returns:
        The column [N] without nulls, and how many values were missing: rows, or elements of lists.
    """
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):  # combine_chunks of no chunks
        array = pa.array([], array.type)
    if kind is Kind.dense:
        bad = pc.invert(pc.fill_null(pc.is_finite(array), False))
        num_bad = int(pc.sum(bad).as_py() or 0)
        return (pc.if_else(bad, pa.scalar(0.0, array.type), array) if num_bad else array).cast(stored), num_bad
    if kind is Kind.id:
        return array.cast(stored), 0
    return _lists(array, stored)


def _lists(array: pa.Array, stored: pa.DataType) -> tuple[pa.Array, int]:
    num_missing = array.null_count
    if pa.types.is_list(array.type):
        values = array.flatten()
        lengths = pc.list_value_length(array).fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    else:
        values = array.drop_null()
        lengths = array.is_valid().to_numpy(zero_copy_only=False).astype(np.int64)
    if values.null_count:
        row_of = np.repeat(np.arange(len(lengths)), lengths)
        valid = values.is_valid().to_numpy(zero_copy_only=False)
        lengths = np.bincount(row_of[valid], minlength=len(lengths))
        num_missing += values.null_count
        values = values.drop_null()
    offsets = np.zeros(len(lengths) + 1, np.int32)
    np.cumsum(lengths, out=offsets[1:])
    return pa.ListArray.from_arrays(pa.array(offsets), values.cast(stored.value_type), type=stored), num_missing
