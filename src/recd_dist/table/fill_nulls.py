"""Raw columns without nulls, as flat arrays.

A missing list becomes an empty one. A missing element of a list is dropped, with its weight. A number or a weight that
is missing or infinite becomes 0. Whatever was missing is counted.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from recd_dist.errors import DataError
from recd_dist.table.column import Column, offsets_of
from recd_dist.table.flat_columns import Flags, in_one_chunk
from recd_dist.table.schema import Feature, Kind


@dataclass(frozen=True)
class FilledColumn:
    """A column without nulls.

    Attributes:
        column: N rows.
        missing: int64 [N], how many values were missing in each row; None where none was missing in any row.
    """

    column: Column
    missing: npt.NDArray[np.int64] | None


def fill_nulls(table: pa.Table, feature: Feature, where: Callable[[int], str]) -> FilledColumn:
    """Fills and counts the missing values of one feature.

    Args:
        table: raw rows [N], with the feature's column and, if the feature is weighted, the column of its weights.
        feature: a feature of any kind; of the kind ``ids``, its column may hold lists of ids or single ids.
        where: gives the name of a row for an error message.

    Raises:
        DataError: a single id is missing, or a list of weights is not as long as its list of ids.
    """
    array = in_one_chunk(table[feature.name])
    if feature.kind is Kind.dense:
        return _fill_numbers(array)
    if feature.kind is Kind.id:
        if array.null_count:
            row = int(np.argmax(array.is_null().to_numpy(zero_copy_only=False)))
            raise DataError(f"{where(row)}: feature '{feature.name}' is missing; say in the SQL what that means")
        return FilledColumn(Column(array.to_numpy(zero_copy_only=False)), None)
    weights = in_one_chunk(table[feature.weights]) if feature.weights else None
    if weights is not None:
        _check_lengths(array, weights, feature, where)
    if not pa.types.is_list(array.type):
        array = _wrap_single_ids(array)
    if array.null_count or array.values.null_count:
        return _drop_nulls(array, weights)
    column = Column(array.values.to_numpy(zero_copy_only=False), array.offsets.to_numpy())
    return (
        FilledColumn(column, None)
        if weights is None
        else _add_weights(FilledColumn(column, None), array, weights, None)
    )


def _fill_numbers(array: pa.Array) -> FilledColumn:
    numbers = array.to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
    bad = ~np.isfinite(numbers)
    if not bad.any():
        return FilledColumn(Column(numbers), None)
    return FilledColumn(Column(np.where(bad, np.float32(0), numbers)), bad.astype(np.int64))


def _wrap_single_ids(array: pa.Array) -> pa.Array:
    """Turns single ids into lists of one id; a missing id becomes a missing list."""
    valid = array.is_valid().to_numpy(zero_copy_only=False)
    offsets = np.zeros(len(array) + 1, np.int32)
    np.cumsum(valid, out=offsets[1:])
    mask = pa.array(~valid) if array.null_count else None
    return pa.ListArray.from_arrays(pa.array(offsets), array.drop_null(), mask=mask)


def _drop_nulls(array: pa.Array, weights: pa.Array | None) -> FilledColumn:
    """Drops the missing elements of lists, and turns missing lists into empty ones."""
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
    result = FilledColumn(Column(values.to_numpy(zero_copy_only=False), offsets_of(lengths)), missing)
    return result if weights is None else _add_weights(result, array, weights, valid)


def _add_weights(lists: FilledColumn, array: pa.Array, weights: pa.Array, valid: Flags | None) -> FilledColumn:
    """Adds the weights of the elements that were kept.

    Args:
        lists: the ids of the elements that were kept.
        array: the raw lists of ids.
        weights: the raw lists of weights, as long as those of the ids.
        valid: bool, whether each element of all lists was kept; None where all were.

    Returns:
        Ids and weights; their offsets begin at 0.
    """
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
    return FilledColumn(column, missing)


def _check_lengths(ids: pa.Array, weights: pa.Array, feature: Feature, where: Callable[[int], str]) -> None:
    """Refuses a list of weights that is not as long as its list of ids, with missing elements counted."""
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
            f"'{feature.weights}'; each id needs its weight; mend one of them in the SQL"
        )
