"""SQL expressions that bring a raw column to the type that the table stores.

::

    varchar | integer | integer[] | varchar[] | double       what the raw query gives
       id   |   id    |    ids    |    ids    | dense        what it becomes
      hash  | bigint  |   as is   | hash each | float        how

Functions take the name of a column and its DuckDB type, as DESCRIBE writes it.
"""

import re
from collections.abc import Mapping

from recd_dist.etl.source.duckdb_sql import TEXT_ID
from recd_dist.table.flat import identifier
from recd_dist.table.schema import Kind

_INTEGERS = {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT"}
_INTEGERS |= {"UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT"}
_FLOATS = {"FLOAT", "DOUBLE", "DECIMAL"}
_STORED_AS_THEY_ARE = {"INTEGER[]", "BIGINT[]"}
_TEXT_ID = TEXT_ID.replace("{}", "{}::varchar")


class Unfit(Exception):
    """The type of a column does not fit its use; the message names the type and the remedy."""


def feature_sql(column: str, type_name: str, kind: Kind | None) -> tuple[Kind, str]:
    """The kind of a feature and its SQL expression.

    Args:
        column: the name of the column.
        type_name: its DuckDB type.
        kind: the kind that the source asks for. None takes the kind that the type suggests.

    Raises:
        Unfit: the type is no feature, or cannot be of the kind that the source asks for.
    """
    name, base = identifier(column), _base_type(type_name)
    if base.endswith("[]"):
        if kind not in (None, Kind.ids):
            raise Unfit(f"a {type_name} cannot be kind '{kind}'; take one element in the SQL, such as {column}[1]")
        return Kind.ids, _ids_sql(name, type_name, base)
    suggested = _suggested_kind(base)
    if suggested is None:
        raise Unfit(_remedy(column, type_name))
    sql_type = "float" if suggested is Kind.dense else "bigint"
    expression = _TEXT_ID.format(name) if is_text(base) else f"{name}::{sql_type}"
    if kind is None or kind is suggested:
        return suggested, expression
    if kind is Kind.dense:
        if is_text(base):
            raise Unfit(f"a {type_name} cannot be dense; cast it in the SQL, such as {column}::float")
        return kind, f"{name}::float"
    if suggested is Kind.dense:
        expression = f"{name}::bigint"
    if kind is Kind.ids:
        expression = f"case when {name} is null then []::bigint[] else [{expression}] end"
    return kind, expression


def _ids_sql(name: str, type_name: str, base: str) -> str:
    element = base.removesuffix("[]")
    if type_name in _STORED_AS_THEY_ARE:
        return name
    if _is_integer(element):
        return f"{name}::bigint[]"
    if is_text(element):
        return f"list_transform({name}, lambda x: {_TEXT_ID.format('x')})"
    raise Unfit(
        f"a list of {element} is no list of ids; turn its elements into integers in the SQL, such as "
        f"list_transform({name}, lambda x: floor(x)::int), or drop it"
    )


def _suggested_kind(base: str) -> Kind | None:
    if _is_integer(base) or is_text(base):
        return Kind.id
    return Kind.dense if base in _FLOATS else None


def _remedy(column: str, type_name: str) -> str:
    if is_time(type_name):
        return (
            f"a {type_name} is no feature; name it keys.timestamp, drop it (drop: [{column}]) or take numbers from it "
            f"in the SQL, such as hour({column})"
        )
    if type_name.startswith("STRUCT"):
        return f"a {type_name[:60]} is no feature; take its fields in the SQL, such as {column}.field, or drop it"
    return f"type {type_name[:60]} is no feature; cast it in the SQL to a number, text or list of ids, or drop it"


def key_sql(column: str, type_name: str) -> str:
    """A session, request, user or sample key as an int64; an empty text counts as missing.

    Raises:
        Unfit: the column holds no integer, text or time.
    """
    name, base = identifier(column), _base_type(type_name)
    if base in _INTEGERS:
        return f"{name}::bigint"
    if is_text(base):
        return _TEXT_ID.format(f"nullif({name}::varchar, '')")
    if is_time(type_name):
        return f"epoch_us({name})"
    raise Unfit(f"column '{column}' is {type_name[:60]}; a key is an integer, text or timestamp: cast it in the SQL")


def time_sql(column: str, type_name: str) -> str:
    """A timestamp as int64 microseconds since 1970, or an integer as it is.

    Raises:
        Unfit: the column holds neither.
    """
    if is_time(type_name):
        return f"epoch_us({identifier(column)})"
    if _base_type(type_name) in _INTEGERS:
        return f"{identifier(column)}::bigint"
    raise Unfit(
        f"column '{column}' is {type_name[:60]}; a timestamp is a TIMESTAMP, DATE or integer: cast it in the SQL, such "
        f"as {column}::timestamp"
    )


def label_sql(column: str, type_name: str) -> str:
    """A label as a float.

    Raises:
        Unfit: the column holds no number and no boolean.
    """
    base = _base_type(type_name)
    if _is_integer(base) or base in _FLOATS:
        return f"{identifier(column)}::float"
    raise Unfit(f"column '{column}' is {type_name[:60]}; a label is a number or true/false: cast it in the SQL")


def weights_sql(column: str, type_name: str) -> str:
    """The weights of a list of ids, as a list of floats.

    Raises:
        Unfit: the column holds no list of numbers.
    """
    if "[" not in type_name or _base_type(type_name).removesuffix("[]") not in _INTEGERS | _FLOATS:
        raise Unfit(f"'{column}' is {type_name}, no list of numbers")
    return f"{identifier(column)}::float[]"


def link_sql(columns: Mapping[str, str]) -> str:
    """One int64 for the key columns of a group: one column is the key itself, several are hashed together.

    Args:
        columns: the type of each key column, at least one, by name.

    Raises:
        Unfit: a column that cannot be a key.
    """
    keys = [key_sql(column, type_name) for column, type_name in columns.items()]
    if len(keys) == 1:
        return keys[0]
    texts = " || chr(31) || ".join(f"{identifier(column)}::varchar" for column in columns)
    return _TEXT_ID.format(f"({texts})")


def is_list(type_name: str) -> bool:
    """Whether a type is a list, or an array of fixed length."""
    return _base_type(type_name).endswith("[]")


def is_text(type_name: str) -> bool:
    """Whether values of a type are hashed as texts."""
    return _base_type(type_name) in ("VARCHAR", "ENUM", "UUID")


def is_time(type_name: str) -> bool:
    """Whether a type is a date or a point in time."""
    return type_name.startswith("TIMESTAMP") or type_name == "DATE"


def _is_integer(base: str) -> bool:
    return base in _INTEGERS or base == "BOOLEAN"


def _base_type(type_name: str) -> str:
    """``DECIMAL(18,3)`` -> ``DECIMAL``, ``ENUM('a')`` -> ``ENUM``, ``INTEGER[3]`` -> ``INTEGER[]``."""
    brackets = re.search(r"(\[\d*\])+$", type_name)
    lists = "[]" * brackets.group().count("[") if brackets else ""
    return type_name[: brackets.start() if brackets else None].split("(", maxsplit=1)[0] + lists
