"""One type for a column over all files that are read together: wide enough for each of them, or an error.

::

    INTEGER   BIGINT           -> BIGINT      wider
    "NULL"[]  INTEGER[]        -> INTEGER[]   a file without values says nothing
    TIMESTAMP TIMESTAMP WITH TIME ZONE        refused: one of them would be moved by the machine's zone
    VARCHAR   BIGINT                          refused: ids would be hashed in one file and not in the other
"""

from collections.abc import Mapping, Sequence

import pyarrow as pa

from recd_dist.errors import DataError
from recd_dist.table.flat_columns import is_any_list

NOTHING = '"NULL"'
"""The type of a column without values."""

_INTEGERS = {"TINYINT": 8, "SMALLINT": 16, "INTEGER": 32, "BIGINT": 64, "HUGEINT": 128}
_UNSIGNED = {"UTINYINT": 8, "USMALLINT": 16, "UINTEGER": 32, "UBIGINT": 64}
_FLOATS = {"FLOAT": 32, "DOUBLE": 64}
_TIMES = {"TIMESTAMP_S": 0, "TIMESTAMP_MS": 1, "TIMESTAMP": 2, "TIMESTAMP_NS": 3}
_ARROW = {
    pa.int8(): "TINYINT",
    pa.int16(): "SMALLINT",
    pa.int32(): "INTEGER",
    pa.int64(): "BIGINT",
    pa.uint8(): "UTINYINT",
    pa.uint16(): "USMALLINT",
    pa.uint32(): "UINTEGER",
    pa.uint64(): "UBIGINT",
    pa.float16(): "FLOAT",
    pa.float32(): "FLOAT",
    pa.float64(): "DOUBLE",
    pa.bool_(): "BOOLEAN",
    pa.string(): "VARCHAR",
    pa.large_string(): "VARCHAR",
    pa.string_view(): "VARCHAR",
    pa.binary(): "BLOB",
    pa.large_binary(): "BLOB",
    pa.binary_view(): "BLOB",
    pa.null(): NOTHING,
    pa.date32(): "DATE",
}
_UNITS = {"s": "TIMESTAMP_S", "ms": "TIMESTAMP_MS", "us": "TIMESTAMP", "ns": "TIMESTAMP_NS"}


def common_types(files: Sequence[tuple[str, Mapping[str, str]]], reader: str) -> dict[str, str]:
    """The type of each column over all files.

    Args:
        files: the name of each file, and the type of each of its columns.
        reader: DuckDB's reader of the files, for the query that messages propose.

    Returns:
        DuckDB types by column, in the order of the first file.

    Raises:
        DataError: a file lacks a column or has one more, or two types do not go together; the message names both files,
            the column and the types.
    """
    first_name, first = files[0]
    types, found_in = dict(first), dict.fromkeys(first, first_name)
    for name, columns in files[1:]:
        for column in (*first, *(column for column in columns if column not in first)):
            if column not in columns or column not in first:
                raise DataError(
                    f"{name}: column '{column}' is {columns.get(column, 'absent')}, in {first_name} it is "
                    f"{first.get(column, 'absent')}: the logs' columns have changed. Give `data.samples`, a query that "
                    f"brings both to one form, such as select * from {reader}('{{path}}', union_by_name = true): what "
                    "is absent is null"
                )
            wide = wider_type(types[column], columns[column])
            if wide is None:
                raise DataError(
                    f"{name}: column '{column}' is {columns[column]}, in {found_in[column]} it is {types[column]}: the "
                    f"logs' columns have changed. {_remedy(column, types[column], columns[column], reader)}"
                )
            if wide != types[column]:
                found_in[column] = name
            types[column] = wide
    return types


def wider_type(one: str, other: str) -> str | None:
    """The type that holds the values of both types; None where there is none that means the same."""
    if other in (one, NOTHING):
        return one
    if one == NOTHING:
        return other
    if one.endswith("[]") and other.endswith("[]"):
        element = wider_type(one.removesuffix("[]"), other.removesuffix("[]"))
        return None if element is None else f"{element}[]"
    for order in (_INTEGERS, _UNSIGNED, _FLOATS, _TIMES):
        if one in order and other in order:
            return max(one, other, key=order.__getitem__)
    whole = _INTEGERS | _UNSIGNED
    if one in whole and other in whole:
        signed, unsigned = (one, other) if one in _INTEGERS else (other, one)
        bits = max(_INTEGERS[signed], 2 * _UNSIGNED[unsigned])
        return next(name for name, size in _INTEGERS.items() if size == bits)
    return "DOUBLE" if one.startswith("DECIMAL") and other.startswith("DECIMAL") else None


def arrow_type_name(kind: pa.DataType) -> str:
    """DuckDB's name of an Arrow type."""
    if is_any_list(kind):
        return f"{arrow_type_name(kind.value_type)}[]"
    if pa.types.is_dictionary(kind):
        return arrow_type_name(kind.value_type)
    if pa.types.is_timestamp(kind):
        return "TIMESTAMP WITH TIME ZONE" if kind.tz else _UNITS[kind.unit]
    if pa.types.is_decimal(kind):
        return f"DECIMAL({kind.precision},{kind.scale})"
    return _ARROW.get(kind, str(kind))


def _remedy(column: str, one: str, other: str, reader: str) -> str:
    query = "Give `data.samples`, a query that brings both to one form, such as "
    if one.endswith("[]") != other.endswith("[]"):
        return (
            f"{query}select [{column}] as {column} ... union all by name select {column} ...: lists and single values"
        )
    if "TIME ZONE" in one + other and one.startswith("TIMESTAMP") and other.startswith("TIMESTAMP"):
        return (
            f"{query}select {column} at time zone 'UTC' as {column} ... from the one with a zone, union all by name "
            "the other: say in which zone the other one's clock stands"
        )
    if reader == "read_csv":
        kinds = " or DOUBLE where those are numbers" if "VARCHAR" not in (one, other) else ""
        return f"data.csv.types.{column}=VARCHAR reads both as text{kinds}"
    cast = "varchar" if "VARCHAR" in (one, other) else "double" if {one, other} & {"DOUBLE", "FLOAT"} else "bigint"
    return f"{query}select {column}::{cast} as {column} ... from each, joined by union all by name"
