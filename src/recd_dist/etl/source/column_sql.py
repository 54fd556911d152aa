"""SQL expressions that bring a raw column to the type that the table stores.

::

    varchar | integer | integer[] | varchar[] | double       what the raw query gives
       id   |   id    |    ids    |    ids    | dense        what it becomes
      hash  | bigint  |   as is   | hash each | float        how

Functions take the name of a column and its DuckDB type, as DESCRIBE writes it.
"""

import re
from collections.abc import Mapping

from recd_dist.etl.raw.duckdb_sql import TEXT_ID
from recd_dist.table.flat import identifier
from recd_dist.table.schema import Kind

_INTEGERS = {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT"}
_INTEGERS |= {"UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT"}
_FLOATS = {"FLOAT", "DOUBLE", "DECIMAL"}
_STORED_AS_THEY_ARE = {"INTEGER[]", "BIGINT[]"}
_WHOLE_DECIMAL = re.compile(r"DECIMAL\(\d+,0\)")
_INT64_MAX = 2**63 - 1
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
    expression = f"{name}::float" if suggested is Kind.dense else _id_sql(name, base)
    if kind is None or kind is suggested:
        return suggested, expression
    if kind is Kind.dense:
        if is_text(base):
            raise Unfit(f"a {type_name} cannot be dense; cast it in the SQL, such as {column}::float")
        return kind, f"{name}::float"
    if suggested is Kind.dense:  # pandas makes floats of integers where one is missing, and NaN of that one
        expression = f"{name}::bigint" if base == "DECIMAL" else f"case when isfinite({name}) then {name}::bigint end"
    if kind is Kind.ids:
        expression = f"case when {expression} is null then []::bigint[] else [{expression}] end"
    return kind, expression


def _ids_sql(name: str, type_name: str, base: str) -> str:
    element = base.removesuffix("[]")
    if type_name in _STORED_AS_THEY_ARE:
        return name
    if is_text(element) or element == "UBIGINT":
        return f"list_transform({name}, lambda x: {_id_sql('x', element)})"
    if _is_integer(element):
        return f"{name}::bigint[]"
    raise Unfit(
        f"a list of {element} is no list of ids; turn its elements into integers in the SQL, such as "
        f"list_transform({name}, lambda x: floor(x)::int), or drop it"
    )


def _id_sql(name: str, base: str) -> str:
    """An id as an int64: a text is hashed; an unsigned integer of 64 bits keeps its bits, so that no two ids meet."""
    if is_text(base):
        return _TEXT_ID.format(name)
    if base == "UBIGINT":
        wrapped = f"({name}::hugeint - {2 * (_INT64_MAX + 1)})::bigint"
        return f"case when {name} > {_INT64_MAX} then {wrapped} else {name}::bigint end"
    return f"{name}::bigint"


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
    if type_name == "INTERVAL":
        return f"an INTERVAL is no feature; take its seconds in the SQL: epoch({column})::float as {column}, or drop it"
    if type_name.startswith("STRUCT"):
        return f"a {type_name[:60]} is no feature; take its fields in the SQL, such as {column}.field, or drop it"
    return f"type {type_name[:60]} is no feature; cast it in the SQL to a number, text or list of ids, or drop it"


def duration_remedy(column: str, unit: str) -> str:
    """What to do with a duration of a Parquet file: DuckDB reads it as an integer, which would become an id.

    Args:
        column: the name of the column.
        unit: ``s``, ``ms``, ``us`` or ``ns``.
    """
    factor = {"s": "1.0", "ms": "1e3", "us": "1e6", "ns": "1e9"}[unit]
    return (
        f"a duration in {unit} would become an id; take its seconds in the SQL: ({column} / {factor})::float as "
        f"{column}, or say what it is: data.features.{column}.kind=dense"
    )


def key_sql(column: str, type_name: str) -> str:
    """A session, request, user or sample key as an int64; an empty text counts as missing.

    Raises:
        Unfit: the column holds no integer, text or time.
    """
    name, base = identifier(column), _base_type(type_name)
    if base in _INTEGERS:
        return _id_sql(name, base)
    if is_text(base):
        return _TEXT_ID.format(f"nullif({name}::varchar, '')")
    if is_time(type_name):
        return _microseconds_sql(name, type_name)
    raise Unfit(f"column '{column}' is {type_name[:60]}; a key is an integer, text or timestamp: cast it in the SQL")


def time_sql(column: str, type_name: str) -> str:
    """A timestamp as int64 microseconds since 1970, or an integer as it is.

    Raises:
        Unfit: the column holds neither.
    """
    if is_time(type_name):
        return _microseconds_sql(identifier(column), type_name)
    if _base_type(type_name) in _INTEGERS:
        return f"{identifier(column)}::bigint"
    raise Unfit(
        f"column '{column}' is {type_name[:60]}; a timestamp is a TIMESTAMP, DATE or integer: cast it in the SQL, such "
        f"as {column}::timestamptz, where a text without a time zone means UTC"
    )


def _microseconds_sql(name: str, type_name: str) -> str:
    """A time in whole microseconds, cut off: DuckDB rounds nanoseconds up, and 23:59:59.9999996 would be tomorrow."""
    if has_nanoseconds(type_name):
        return f"(epoch_ns({name}) // 1000 - (epoch_ns({name}) % 1000 < 0)::bigint)"
    return f"epoch_us({name})"


def nanoseconds_sql(column: str) -> str:
    """What a time in nanoseconds has beyond its whole microseconds, 0 to 999: it orders samples of one microsecond."""
    return f"((epoch_ns({identifier(column)}) % 1000 + 1000) % 1000)"


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


def session_sql(columns: Mapping[str, str]) -> str:
    """One int64 for a session: its column is the key itself, a user's column and its own are hashed together.

    Args:
        columns: the type of each column, by name. A text that is empty counts as missing, and so does the session then.

    Raises:
        Unfit: a column that cannot be a key.
    """
    if len(columns) == 1:
        return link_sql(columns)
    for column, type_name in columns.items():
        key_sql(column, type_name)
    texts = " || chr(31) || ".join(f"nullif({identifier(column)}::varchar, '')" for column in columns)
    return _TEXT_ID.format(f"({texts})")


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


def has_nanoseconds(type_name: str) -> bool:
    """Whether a type is a point in time that is finer than microseconds."""
    return type_name in ("TIMESTAMP_NS", "TIMESTAMPTZ_NS")


def is_list(type_name: str) -> bool:
    """Whether a type is a list, or an array of fixed length."""
    return _base_type(type_name).endswith("[]")


def is_text(type_name: str) -> bool:
    """Whether values of a type are hashed as texts."""
    return _base_type(type_name) in ("VARCHAR", "ENUM", "UUID")


def is_time(type_name: str) -> bool:
    """Whether a type is a date or a point in time."""
    return type_name.startswith("TIMESTAMP") or type_name == "DATE"


def is_integer(type_name: str) -> bool:
    """Whether a type is an integer or a boolean."""
    return _is_integer(_base_type(type_name))


def is_float(type_name: str) -> bool:
    """Whether a type is a binary floating-point number."""
    return type_name in ("FLOAT", "DOUBLE")


def _is_integer(base: str) -> bool:
    return base in _INTEGERS or base == "BOOLEAN"


def _base_type(type_name: str) -> str:
    """``DECIMAL(18,3)`` -> ``DECIMAL``, ``ENUM('a')`` -> ``ENUM``, ``INTEGER[3]`` -> ``INTEGER[]``.

    A decimal without digits after the point, as databases write their integers, is an integer: ``HUGEINT``.
    """
    type_name = _WHOLE_DECIMAL.sub("HUGEINT", type_name)
    brackets = re.search(r"(\[\d*\])+$", type_name)
    lists = "[]" * brackets.group().count("[") if brackets else ""
    return type_name[: brackets.start() if brackets else None].split("(", maxsplit=1)[0] + lists
