"""Columns of a shard as flat arrays: what is missing taken out, neighbours compared and rows taken through an order.

::

    shard      [9]  [7 8]  [7 8]          as it came; offsets 0 1 3 5, values 9 7 8 7 8
    order       1    2      0             clustered
    changed     1    0      1             compared through the order, nothing is moved
    taken      [7 8] [9]                  only what is kept is copied

What is missing is filled and counted: a missing list is empty, a missing element is dropped (with its weight), a
missing or infinite number or weight is 0.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from recd_dist.errors import DataError
from recd_dist.table.column import Column, gather_slices, offsets_of
from recd_dist.table.loops import jit
from recd_dist.table.schema import Feature, Kind

Flags = npt.NDArray[np.bool_]
Order = npt.NDArray[np.int64]
Numbers = npt.NDArray[Any]
_TOO_LARGE = ", more than 2^31; a part must be smaller: take fewer samples a session or shorter lists in the SQL"


@dataclass(frozen=True)
class Filled:
    """A column without nulls, and how many values each row missed (None: no row did)."""

    column: Column
    missing: npt.NDArray[np.int64] | None


def filled(table: pa.Table, feature: Feature, where: Callable[[int], str]) -> Filled:
    """A feature's column of some raw rows.

    Args:
        table: with the feature's column and, where it is weighted, its weights.
        feature: a single id, or lists of ids (of a column of single ids too), or numbers.
        where: names a row, for messages.

    Raises:
        DataError: a single id that is missing, or weights of another length than the ids.
    """
    array = whole(table[feature.name])
    if feature.kind is Kind.dense:
        return _numbers(array)
    if feature.kind is Kind.id:
        if array.null_count:
            row = int(np.argmax(array.is_null().to_numpy(zero_copy_only=False)))
            raise DataError(f"{where(row)}: feature '{feature.name}' is missing; say in the SQL what that means")
        return Filled(Column(array.to_numpy(zero_copy_only=False)), None)
    weights = whole(table[feature.weights]) if feature.weights else None
    if weights is not None:
        _check_lengths(array, weights, feature, where)
    if not pa.types.is_list(array.type):
        array = _single(array)
    if array.null_count or array.values.null_count:
        return _without_nulls(array, weights)
    column = Column(array.values.to_numpy(zero_copy_only=False), array.offsets.to_numpy())
    return Filled(column, None) if weights is None else _weighted(Filled(column, None), array, weights, None)


def whole(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """A column in one piece."""
    if isinstance(column, pa.Array):
        return column
    if column.num_chunks == 1:
        return column.chunk(0)
    array = column.combine_chunks()
    if not isinstance(array, pa.ChunkedArray):
        return array
    if array.num_chunks > 1:  # pyarrow returns this where one array cannot hold it all
        raise DataError(f"a column of {len(column)} samples holds too many ids{_TOO_LARGE}")
    return array.chunk(0) if array.num_chunks else pa.array([], column.type)


def _numbers(array: pa.Array) -> Filled:
    numbers = array.to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
    bad = ~np.isfinite(numbers)
    if not bad.any():
        return Filled(Column(numbers), None)
    return Filled(Column(np.where(bad, np.float32(0), numbers)), bad.astype(np.int64))


def _single(array: pa.Array) -> pa.Array:
    """Single ids as lists of no or one id; what is missing stays missing."""
    valid = array.is_valid().to_numpy(zero_copy_only=False)
    offsets = np.zeros(len(array) + 1, np.int32)
    np.cumsum(valid, out=offsets[1:])
    mask = pa.array(~valid) if array.null_count else None
    return pa.ListArray.from_arrays(pa.array(offsets), array.drop_null(), mask=mask)


def _without_nulls(array: pa.Array, weights: pa.Array | None) -> Filled:
    """Lists less their missing elements; a missing list is empty."""
    null = array.is_null().to_numpy(zero_copy_only=False)
    lengths = pc.list_value_length(array).fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    values = array.flatten()
    missing = null.astype(np.int64)
    valid = None
    if values.null_count:
        row_of = np.repeat(np.arange(len(lengths)), lengths)
        valid = values.is_valid().to_numpy(zero_copy_only=False)
        kept = np.bincount(row_of[valid], minlength=len(lengths))
        missing += lengths - kept
        lengths, values = kept, values.drop_null()
    result = Filled(Column(values.to_numpy(zero_copy_only=False), offsets_of(lengths)), missing)
    return result if weights is None else _weighted(result, array, weights, valid)


def _weighted(lists: Filled, array: pa.Array, weights: pa.Array, valid: Flags | None) -> Filled:
    """Adds the weights of the elements that were kept; offsets then begin at 0."""
    flat = weights.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
    if valid is not None:
        flat = flat[valid]
    offsets = np.asarray(lists.column.offsets).astype(np.int64)
    values = array.flatten().to_numpy(zero_copy_only=False) if valid is None else lists.column.values
    column = Column(values, offsets - offsets[0], flat)
    bad = ~np.isfinite(flat)
    if not bad.any():
        return replace(lists, column=column)
    flat[bad] = 0
    missing = np.zeros(len(column), np.int64) if lists.missing is None else lists.missing
    missing = missing + np.bincount(np.repeat(np.arange(len(column)), column.lengths)[bad], minlength=len(column))
    return Filled(column, missing)


def _check_lengths(ids: pa.Array, weights: pa.Array, feature: Feature, where: Callable[[int], str]) -> None:
    """Each list of weights is as long as the list of ids beside it, missing elements counted."""
    if not pa.types.is_list(ids.type) or not pa.types.is_list(weights.type):
        raise DataError(
            f"feature '{feature.name}': ids are {ids.type} and weights '{feature.weights}' {weights.type}; both must "
            "be lists"
        )
    num_ids, num_weights = (
        pc.list_value_length(lists).fill_null(0).to_numpy(zero_copy_only=False) for lists in (ids, weights)
    )
    if not np.array_equal(num_ids, num_weights):
        row = int(np.argmax(num_ids != num_weights))
        raise DataError(
            f"{where(row)}: feature '{feature.name}' has {num_ids[row]} ids and {num_weights[row]} weights in "
            f"'{feature.weights}'; each id needs its weight, mend one of them in the SQL"
        )


def changed(column: Column, order: Order) -> Flags:
    """Which rows differ from the row before, in lengths, values or weights; the first always does.

    Args:
        column: [N].
        order: int64 [n], the rows to compare, one after the other.

    Returns:
        bool [n].
    """
    flags = np.ones(len(order), np.bool_)
    if column.offsets is None:
        numbers = bits(column.values)[order]
        np.not_equal(numbers[1:], numbers[:-1], out=flags[1:])
        return flags
    flags[1:] = False
    _changed_lists(bits(column.values), column.offsets, order, flags)
    if column.weights is not None:
        _changed_lists(bits(column.weights), column.offsets, order, flags)
    return flags


def bits(numbers: Numbers) -> npt.NDArray[np.integer]:
    """Numbers compared by their bits: 0.0 and -0.0 are two values, so that nothing is lost."""
    signed: npt.NDArray[np.integer] = numbers.view(np.int32) if numbers.dtype == np.float32 else numbers
    return signed


def taken(column: Column, rows: Order, stored: np.dtype[Any], name: str) -> Column:
    """Some rows, values as they are stored.

    Args:
        column: [N].
        rows: int64 [U].
        stored: dtype of the values.
        name: of the feature, for messages.

    Raises:
        DataError: an id that does not fit.
    """
    if column.offsets is None:
        return Column(_narrowed(column.values[rows], stored, name))
    starts = column.offsets[rows].astype(np.int64)
    lists = gather_slices(column, starts, column.offsets[rows + 1] - starts)
    return replace(lists, values=_narrowed(lists.values, stored, name))


def slice_of(lists: Column, start: int, end: int) -> Column:
    """Rows [start, end) of lists; nothing is copied."""
    return replace(lists, offsets=np.asarray(lists.offsets)[start : end + 1])


def to_arrow(column: Column, stored: pa.DataType, weights: pa.DataType) -> list[pa.Array]:
    """A column as Arrow: the ids (or numbers), then the weights where there are some.

    Args:
        column: as it is stored.
        stored: Arrow type of the ids (or numbers), or of their lists.
        weights: Arrow type of lists of weights.

    Raises:
        DataError: more ids than Arrow's lists can count.
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


def _narrowed(values: Numbers, stored: np.dtype[Any], name: str) -> Numbers:
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
def _changed_lists(
    values: npt.NDArray[np.integer], offsets: npt.NDArray[np.integer], order: Order, flags: Flags
) -> None:
    for i in range(1, len(order)):
        before, start = np.int64(offsets[order[i - 1]]), np.int64(offsets[order[i]])
        length = np.int64(offsets[order[i] + 1]) - start
        if length != np.int64(offsets[order[i - 1] + 1]) - before:
            flags[i] = True
            continue
        difference = values.dtype.type(0)
        for j in range(length):  # no early exit: an OR over all vectorises and is 2.4x as fast
            difference |= values[start + j] ^ values[before + j]
        flags[i] = flags[i] or difference != 0
