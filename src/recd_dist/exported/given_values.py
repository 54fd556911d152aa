"""From the values of a request to columns as the table stores them: checked, texts hashed, gaps filled."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recd_dist.errors import DataError, nearest
from recd_dist.exported.request_schema import RequestError, RequestFeature
from recd_dist.table.column import Column, offsets_of
from recd_dist.table.fill_nulls import fill_nulls
from recd_dist.table.flat_columns import in_one_chunk, is_any_list
from recd_dist.table.schema import Feature, Kind

_TEXTS = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)


def text_id(text: str) -> int:
    """The id of a text, as the ETL gives it: 63 bits of its MD5."""
    digest = hashlib.md5(text.encode(), usedforsecurity=False).digest()
    return int.from_bytes(digest[8:], "little") & ((1 << 63) - 1)


def require_names(given: Sequence[str], features: Sequence[RequestFeature], where: str) -> None:
    """Refuses a feature that there is not, and one that is missing.

    Args:
        given: the names in a request.
        features: what must be given.
        where: ``user`` or ``candidates``.

    Raises:
        RequestError: the message names the feature.
    """
    known = [name for f in features for name in (f.name, f.weights) if name is not None]
    if len(given) == len(known) and set(given) == set(known):
        return
    for name in given:
        if name not in known:
            raise RequestError(name, f"unknown among those of '{where}'{nearest(name, known)}")
    missing = next(name for name in known if name not in given)
    wanted = {f.name: _GIVEN[f.kind] for f in features}.get(missing, "a weight for each id")
    raise RequestError(missing, f"missing in '{where}'; give {wanted}")


def read_column(
    feature: RequestFeature, values: Any, weights: Any, stored: Feature, may_be_nan: bool, size: int
) -> Column:
    """The rows of a feature.

    Args:
        feature: what is given.
        values: a row for each of ``size``: ids, numbers, lists of ids, or an Arrow or numpy array of these.
        weights: for each row the list of the weights of its ids; None where the feature has none.
        stored: the feature as the table stores it.
        may_be_nan: whether a number may be missing or not finite.
        size: the number of rows.

    Returns:
        The rows, as ``fill_nulls`` gives them.

    Raises:
        RequestError: values of another kind, or fewer or more than there are rows.
    """
    if weights is None and (column := _read_plain(feature, values, size)) is not None:
        return column
    array = _as_array(feature, values)
    if len(array) != size:
        raise RequestError(feature.name, f"{len(array)} values for {size} candidates; give one for each candidate")
    columns = {feature.name: array}
    if feature.kind is Kind.dense:
        return _read_numbers(feature, array, may_be_nan)
    if feature.kind is Kind.id and array.null_count:
        row = int(array.is_null().to_numpy(zero_copy_only=False).argmax())
        raise RequestError(feature.name, f"row {row} is missing; give {_GIVEN[Kind.id]}")
    if feature.weights is not None:
        columns[feature.weights] = _weights_array(feature, weights)
    try:
        return fill_nulls(pa.table(columns), stored, lambda row: f"row {row}").column
    except DataError as error:
        raise RequestError(feature.name, str(error).partition(";")[0] + "; give each id its weight") from error
    except pa.ArrowException as error:  # fewer or more lists of weights than of ids
        raise RequestError(feature.weights, f"not for each row a list of weights ({error})") from error


def _read_plain(feature: RequestFeature, values: Any, size: int) -> Column | None:
    """The rows of plain values without gaps, by the shortest way; None for all others, and for those to refuse."""
    is_list = feature.kind is Kind.ids
    if isinstance(values, pa.Array | pa.ChunkedArray) or len(values) != size or (is_list and size != 1):
        return None
    try:
        array = np.asarray(values[0] if is_list else values)
    except ValueError:  # lists of several lengths
        return None
    if array.ndim != 1:
        return None
    if feature.kind is Kind.dense:
        if array.dtype.kind not in "if":
            return None
        with np.errstate(over="ignore"):
            numbers = array.astype(np.float32)
        return Column(numbers) if np.isfinite(numbers).all() else None
    if array.dtype.kind != "i" and len(array):
        return None
    offsets = np.array([0, len(array)], np.int64) if is_list else None
    return Column(array.astype(np.int64, copy=False), offsets)


def _read_numbers(feature: RequestFeature, array: pa.Array, may_be_nan: bool) -> Column:
    """Numbers; one that is missing is 0, as in the ETL, unless a transform fills it."""
    numbers = array.to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
    bad = ~np.isfinite(numbers)
    if not bad.any() or may_be_nan:
        return Column(numbers)
    missing = array.is_null().to_numpy(zero_copy_only=False)
    if (bad & ~missing).any():
        row = int((bad & ~missing).argmax())
        raise RequestError(feature.name, f"row {row} is {numbers[row]}; give a number, or null where there is none")
    return Column(np.where(bad, np.float32(0), numbers))


_GIVEN = {
    Kind.id: "an id",
    Kind.ids: "a list of ids, [] where there is none",
    Kind.dense: "a number, or null where there is none",
}
_WANTED = {Kind.id: "one id", Kind.ids: "a list of ids", Kind.dense: "one number"}


def _as_array(feature: RequestFeature, values: Any) -> pa.Array:
    """Values as an Arrow array of the kind's type; texts as the ids that they are hashed to."""
    try:
        return _fit(_arrow(values), feature.kind is Kind.ids, lambda own: _fit_values(feature, own))
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        text = " or text" if feature.takes_text else ""
        raise RequestError(
            feature.name, f"each row must be {_WANTED[feature.kind]}{text}, found {_shorten(values)}"
        ) from error


def _weights_array(feature: RequestFeature, weights: Any) -> pa.Array:
    """The lists of weights of a feature, list<float32>."""
    try:
        return _fit(_arrow(weights), True, _fit_numbers)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise RequestError(feature.weights, f"not for each row a list of numbers, found {_shorten(weights)}") from error


def _arrow(values: Any) -> pa.Array:
    if isinstance(values, pa.Array | pa.ChunkedArray):
        return in_one_chunk(values)
    return pa.array(values)


def _fit(array: pa.Array, wants_lists: bool, fit_values: Callable[[pa.Array], pa.Array]) -> pa.Array:
    """An array of values; or of lists, of whatever layout, as lists that begin at the first value and hold all."""
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if not is_any_list(array.type):
        if not wants_lists:
            return fit_values(array)
        if not pa.types.is_null(array.type):
            raise TypeError(str(array.type))
        return array.cast(pa.list_(fit_values(array).type))
    if not wants_lists:
        raise TypeError(str(array.type))
    lengths = pc.list_value_length(array).fill_null(0).to_numpy(zero_copy_only=False)
    mask = array.is_null() if array.null_count else None
    return pa.ListArray.from_arrays(pa.array(offsets_of(lengths), pa.int32()), fit_values(array.flatten()), mask=mask)


def _fit_values(feature: RequestFeature, values: pa.Array) -> pa.Array:
    """Values as the kind has them. Arrow would make whole numbers of fractions, and of truth values."""
    if feature.kind is Kind.dense:
        return _fit_numbers(values)
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if pa.types.is_null(values.type) or pa.types.is_integer(values.type):
        return values.cast(pa.int64())
    if not (feature.takes_text and any(is_text(values.type) for is_text in _TEXTS)):
        raise TypeError(str(values.type))
    return pa.array([None if text is None else text_id(text) for text in values.to_pylist()], pa.int64())


def _fit_numbers(values: pa.Array) -> pa.Array:
    """Numbers as float32."""
    if not (pa.types.is_null(values.type) or pa.types.is_integer(values.type) or pa.types.is_floating(values.type)):
        raise TypeError(str(values.type))
    return values.cast(pa.float32(), safe=False)


def _shorten(values: Any) -> str:
    """The first rows, as plain values."""
    if isinstance(values, list | tuple):
        values = [row.tolist() if isinstance(row, np.ndarray) else row for row in values[:3]]
    elif isinstance(values, np.ndarray | pa.Array):
        values = values[:3].tolist()
    shown = repr(values)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
