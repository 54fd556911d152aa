"""A function of the user's own as a transform: named by its import path, and its result checked.

::

    # my_package/my_module.py
    def double(column, times=2):        # a Column of recd_dist.table.column, and the arguments that the config gives
        return replace(column, values=column.values * times)

    price: {transforms: [{apply: "my_package.my_module:double", times: 3}]}
"""

import inspect
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from recd_dist.errors import ConfigError, DataError
from recd_dist.ranks.trusted_code import describe_error, import_trusted
from recd_dist.table.column import Column, Rows, Windows

_SPELLING = "{apply: 'my_package.my_module:function', NAME: VALUE, limit: BOUND OF THE IDS}"


def parse_apply(argument: Any) -> dict[str, Any]:
    """Reads ``apply`` and imports its function, so that a mistake is said before a job starts.

    Raises:
        ValueError: another form than ``{function: path, arguments: {...}, limit: n}``.
        ConfigError: the function cannot be imported, is not trusted, or does not take the arguments.
    """
    given: Any = {"function": argument} if isinstance(argument, str) else argument
    if not isinstance(given, Mapping) or not isinstance(given.get("function"), str):
        raise ValueError(f"wanted {_SPELLING}, found {argument}")
    path, arguments, limit = given["function"], given.get("arguments") or {}, given.get("limit")
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise ValueError(f"limit: wanted a whole number above 0, found {limit}; ids become less than it")
    function = _function_of(path)
    try:
        inspect.signature(function).bind(None, **arguments)
    except TypeError as error:
        raise ConfigError(f"apply: {path}: it is called with a column and {dict(arguments)}, but {error}") from error
    return {"function": path, "arguments": dict(arguments), "limit": limit}


@lru_cache(64)
def _function_of(path: str) -> Callable[..., Any]:
    """Imports a function of a trusted package."""
    module, colon, name = path.partition(":")
    if not colon or not all(part.isidentifier() for part in [*module.split("."), name]):
        raise ConfigError(f"apply: {path}: names no function; write apply: my_package.my_module:function")
    found = import_trusted(f"apply: {path}", module, name)
    if not callable(found):
        raise ConfigError(f"apply: {path}: {module} has no function '{name}'")
    return found


def apply(rows: Rows, function: str, arguments: Mapping[str, Any], limit: int | None) -> Column:
    """Calls the user's function, and checks what it returns; windows are lists for it."""
    column = rows.to_lists() if isinstance(rows, Windows) else rows
    try:
        found = _function_of(function)(column, **arguments)
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(f"transform 'apply: {function}' fails with {describe_error(error)}") from error
    if fault := _fault_of(column, found, limit):
        raise DataError(f"transform 'apply: {function}': {fault}; mend the function")
    return found


def _fault_of(before: Column, after: Any, limit: int | None) -> str | None:
    """What is wrong with the result of a user's function; None where nothing is."""
    if not isinstance(after, Column):
        return f"it returns {type(after).__name__}, wanted a Column"
    if not isinstance(after.values, np.ndarray) or after.values.ndim != 1:
        return "its values are no numpy array of one dimension"
    return _fault_of_rows(before, after) or _fault_of_values(before, after, limit)


def _fault_of_rows(before: Column, after: Column) -> str | None:
    """What is wrong with the rows of a result."""
    if (after.offsets is None) != (before.offsets is None):
        return f"it makes {'single values of lists' if after.offsets is None else 'lists of single values'}"
    if len(after) != len(before):
        return f"it returns {len(after)} rows for {len(before)}"
    return None if after.offsets is None else _fault_of_offsets(after)


def _fault_of_values(before: Column, after: Column, limit: int | None) -> str | None:
    """What is wrong with the values of a result, and with their weights."""
    kind, is_float = after.values.dtype, np.issubdtype(before.values.dtype, np.floating)
    if not np.issubdtype(kind, np.floating if is_float else np.integer):
        return f"its values are {kind}, wanted {'float32' if is_float else 'int32 or int64'}"
    if (before.weights is None) != (after.weights is None):
        return "it makes weights of none" if before.weights is None else "it loses the weights"
    if after.weights is not None and len(after.weights) != len(after.values):
        return f"it returns {len(after.weights)} weights for {len(after.values)} values"
    if limit is not None and len(after.values) and not 0 <= after.values.min() <= after.values.max() < limit:
        return f"its values go from {after.values.min()} to {after.values.max()}, the config says limit: {limit}"
    return None


def _fault_of_offsets(column: Column) -> str | None:
    """What is wrong with the offsets of lists."""
    offsets = np.asarray(column.offsets)
    if not np.issubdtype(offsets.dtype, np.integer):
        return f"its offsets are {offsets.dtype}, wanted int64"
    if offsets[0] != 0 or offsets[-1] != len(column.values) or (np.diff(offsets) < 0).any():
        return (
            f"its offsets go from {offsets[0]} to {offsets[-1]}, wanted to rise from 0 to the number of values, "
            f"{len(column.values)}"
        )
    return None
