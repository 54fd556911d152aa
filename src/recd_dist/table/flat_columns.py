"""Columns as flat arrays: rows are compared with the row before, and copied.

::

    shard      [9]  [7 8]  [7 8]          as the rows came; offsets 0 1 3 5, values 9 7 8 7 8
    order       1    2      0             the rows in clustered order
    changed     1    0      1             each row compared with the one before it in this order; nothing is moved
    taken      [7 8] [9]                  only the rows that are kept are copied
"""

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from recd_dist.errors import DataError
from recd_dist.table.column import Column, gather_slices
from recd_dist.table.loops import jit

Flags = npt.NDArray[np.bool_]
Order = npt.NDArray[np.int64]
Numbers = npt.NDArray[Any]
_TOO_LARGE = ", more than 2^31; a part must be smaller: take fewer samples a session or shorter lists in the SQL"


def in_one_chunk(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """Joins the chunks of an Arrow column.

    Args:
        column: [N], in any number of chunks.

    Returns:
        The same values as one array [N]; a column of one chunk is not copied.

    Raises:
        DataError: one array cannot hold so many ids.
    """
    if isinstance(column, pa.Array):
        return column
    if column.num_chunks == 1:
        return column.chunk(0)
    array = column.combine_chunks()
    if not isinstance(array, pa.ChunkedArray):
        return array
    if array.num_chunks > 1:  # pyarrow returns several chunks where one array cannot hold all values
        raise DataError(f"a column of {len(column)} samples holds too many ids{_TOO_LARGE}")
    return array.chunk(0) if array.num_chunks else pa.array([], column.type)


def is_any_list(kind: pa.DataType) -> bool:
    """Whether a type is one of Arrow's lists: with offsets of 32 or 64 bits, of a fixed size, or views."""
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(is_one(kind) for is_one in (*lists, pa.types.is_list_view, pa.types.is_large_list_view))


def as_lists(array: pa.Array) -> pa.Array:
    """Lists of any kind as lists with offsets of 32 bits; a missing list of a fixed size is an empty one.

    Args:
        array: of a type that ``is_any_list``.

    Raises:
        DataError: there are more ids than such offsets can count.
    """
    kind = array.type
    if pa.types.is_list(kind):
        return array
    if pa.types.is_fixed_size_list(kind):
        return array.cast(pa.list_(kind.value_type))
    if pa.types.is_large_list(kind):
        offsets, values = array.offsets.to_numpy(), array.values
    else:  # a cast of views by pyarrow loses the last list, and views may overlap or stand in any order
        lengths = pc.list_value_length(array).fill_null(0).to_numpy(zero_copy_only=False)
        offsets, values = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]), array.flatten()
    if len(offsets) and offsets[-1] > np.iinfo(np.int32).max:
        raise DataError(f"a column of {len(array)} samples holds too many ids{_TOO_LARGE}")
    mask = array.is_null() if array.null_count else None
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), values, mask=mask)


def flag_changes(column: Column, order: Order) -> Flags:
    """Flags the rows that differ from the row before in lengths, values or weights; the first row is always flagged.

    Args:
        column: N rows.
        order: int64 [n], the rows to compare, one after the other.

    Returns:
        bool [n].
    """
    if column.offsets is None:
        return flag_number_changes(bits(column.values)[order])
    flags = np.zeros(len(order), np.bool_)
    flags[:1] = True
    _flag_list_changes(bits(column.values), column.offsets, order, flags)
    if column.weights is not None:
        _flag_list_changes(bits(column.weights), column.offsets, order, flags)
    return flags


def flag_array_changes(array: pa.Array) -> Flags:
    """Flags the rows of a stored column that differ from the row before; the first row is always flagged.

    Args:
        array: numbers [N] or lists of numbers [N], without nulls.

    Returns:
        bool [N].
    """
    is_list = pa.types.is_list(array.type)
    values = (array.values if is_list else array).to_numpy(zero_copy_only=False)
    column = Column(values, array.offsets.to_numpy() if is_list else None)
    return flag_changes(column, np.arange(len(array)))


def flag_number_changes(numbers: npt.NDArray[np.generic]) -> Flags:
    """Flags the numbers [N] that differ from the number before, as bool [N]; the first is always flagged."""
    flags = np.ones(len(numbers), np.bool_)
    np.not_equal(numbers[1:], numbers[:-1], out=flags[1:])
    return flags


def bits(numbers: Numbers) -> npt.NDArray[np.integer]:
    """The numbers as integers of the same bits: 0.0 and -0.0 then are two values, so that neither is lost."""
    signed: npt.NDArray[np.integer] = numbers.view(np.int32) if numbers.dtype == np.float32 else numbers
    return signed


def take_rows(column: Column, rows: Order, stored: np.dtype[Any], name: str) -> Column:
    """Copies some rows, with values of the type that is stored.

    Args:
        column: N rows.
        rows: int64 [U], numbers of the rows to copy.
        stored: dtype of the copied values.
        name: name of the feature, for error messages.

    Raises:
        DataError: an id does not fit into the stored type.
    """
    if column.offsets is None:
        return Column(_narrow(column.values[rows], stored, name))
    starts = column.offsets[rows].astype(np.int64)
    lists = gather_slices(column, starts, column.offsets[rows + 1] - starts)
    return replace(lists, values=_narrow(lists.values, stored, name))


def slice_of(lists: Column, start: int, end: int) -> Column:
    """Rows [start, end) of lists; nothing is copied."""
    return replace(lists, offsets=np.asarray(lists.offsets)[start : end + 1])


def to_arrow(column: Column, stored: pa.DataType, weights: pa.DataType) -> list[pa.Array]:
    """Gives a column to Arrow: the ids (or numbers), then the weights where there are some.

    Args:
        column: the column in its stored form.
        stored: Arrow type of the ids (or numbers), or of their lists.
        weights: Arrow type of lists of weights.

    Raises:
        DataError: there are more ids than Arrow's lists can count.
    """
    if column.offsets is None:
        return [pa.array(column.values, stored)]
    if column.offsets[-1] > np.iinfo(np.int32).max:
        raise DataError(f"{len(column)} rows of a part hold {column.offsets[-1]} ids{_TOO_LARGE}")
    offsets = pa.array(column.offsets.astype(np.int32, copy=False))
    arrays = [pa.ListArray.from_arrays(offsets, pa.array(column.values), type=stored)]
    if column.weights is not None:
        arrays.append(pa.ListArray.from_arrays(offsets, pa.array(column.weights), type=weights))
    return arrays


def _narrow(values: Numbers, stored: np.dtype[Any], name: str) -> Numbers:
    """Converts ids to a narrower type, or refuses an id that does not fit."""
    if values.dtype == stored or not np.issubdtype(stored, np.integer):
        return values.astype(stored, copy=False)
    limits = np.iinfo(stored)
    if len(values) and (values.min() < limits.min or values.max() > limits.max):
        raise DataError(
            f"feature '{name}': ids reach from {values.min()} to {values.max()}, they are stored as {stored}; "
            "make the table again with `recd etl`"
        )
    return values.astype(stored)


@jit
def _flag_list_changes(
    values: npt.NDArray[np.integer], offsets: npt.NDArray[np.integer], order: Order, flags: Flags
) -> None:
    for i in range(1, len(order)):
        before, start = np.int64(offsets[order[i - 1]]), np.int64(offsets[order[i]])
        length = np.int64(offsets[order[i] + 1]) - start
        if length != np.int64(offsets[order[i - 1] + 1]) - before:
            flags[i] = True
            continue
        # Slices and no early exit: both are what lets the loop run in vectors, 9 times as fast.
        current, previous, differs = values[start : start + length], values[before : before + length], np.int8(0)
        for j in range(length):
            differs |= np.int8(current[j] != previous[j])
        flags[i] = flags[i] or differs != 0
