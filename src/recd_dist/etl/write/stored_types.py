"""Raw columns as the table's columns: no nulls, the narrowest id type, float32.

::

    integer    [7, null, 9]           -> ids    [[7], [], [9]]     a single id that can be missing is a list
    integer[]  [[1, null, 2], null]   -> ids    [[1, 2], []]       what is missing is counted
    float      [0.5, null, nan]       -> dense  [0.5, 0.0, 0.0]
"""

import numpy as np
import pyarrow as pa

from recd_dist.etl.deal.value_range import Seen
from recd_dist.etl.write.flat_columns import filled, taken, to_arrow
from recd_dist.table.schema import Feature, Kind

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
    name = "column"
    found = filled(pa.table({name: column}), Feature(name, kind, table=name), lambda row: f"row {row}")
    dtype = np.dtype((stored.value_type if pa.types.is_list(stored) else stored).to_pandas_dtype())
    every = taken(found.column, np.arange(len(found.column)), dtype, name)
    return to_arrow(every, stored, WEIGHTS)[0], 0 if found.missing is None else int(found.missing.sum())
