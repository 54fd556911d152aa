"""The types of DuckDB, and the types in which Spark holds their values.

::

    DuckDB      UTINYINT  UINTEGER  UBIGINT         HUGEINT         UUID     TIMESTAMP      T[]
    in Spark    smallint  bigint    decimal(20,0)   decimal(38,0)   string   timestamp_ntz  array<T>

ENUM, whose order is not that of its text, and STRUCT, MAP, TIME, INTERVAL and BLOB are not held as columns.
"""

import re

from pyspark.sql import types as T

_STORED = {
    "BOOLEAN": ("BOOLEAN", T.BooleanType()),
    "TINYINT": ("TINYINT", T.ByteType()),
    "SMALLINT": ("SMALLINT", T.ShortType()),
    "INTEGER": ("INTEGER", T.IntegerType()),
    "BIGINT": ("BIGINT", T.LongType()),
    "UTINYINT": ("SMALLINT", T.ShortType()),
    "USMALLINT": ("INTEGER", T.IntegerType()),
    "UINTEGER": ("BIGINT", T.LongType()),
    "UBIGINT": ("DECIMAL(20,0)", T.DecimalType(20, 0)),
    "HUGEINT": ("DECIMAL(38,0)", T.DecimalType(38, 0)),
    "UHUGEINT": ("DECIMAL(38,0)", T.DecimalType(38, 0)),
    "FLOAT": ("FLOAT", T.FloatType()),
    "DOUBLE": ("DOUBLE", T.DoubleType()),
    "VARCHAR": ("VARCHAR", T.StringType()),
    "UUID": ("VARCHAR", T.StringType()),
    "DATE": ("DATE", T.DateType()),
    "TIMESTAMP": ("TIMESTAMP", T.TimestampNTZType()),
    "TIMESTAMP_S": ("TIMESTAMP", T.TimestampNTZType()),
    "TIMESTAMP_MS": ("TIMESTAMP", T.TimestampNTZType()),
    "TIMESTAMP WITH TIME ZONE": ("TIMESTAMP WITH TIME ZONE", T.TimestampType()),
}
INTEGERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER")
"""DuckDB's integer types that Spark holds as integers."""

_LIST = re.compile(r"^(.*)\[\d*\]$", re.DOTALL)
_DECIMAL = re.compile(r"^DECIMAL\((\d+),(\d+)\)$")


def stored_type(duck: str) -> "tuple[str, T.DataType] | None":
    """The type in which Spark holds the values of a DuckDB type.

    Args:
        duck: type as DuckDB's DESCRIBE names it, such as ``UINTEGER[]``.

    Returns:
        DuckDB's name for the type in Spark, and Spark's type; None where Spark holds no such values.
    """
    if match := _LIST.match(duck):
        inner = stored_type(match[1])
        return None if inner is None else (f"{inner[0]}[]", T.ArrayType(inner[1]))
    if match := _DECIMAL.match(duck):
        return duck, T.DecimalType(int(match[1]), int(match[2]))
    return _STORED.get(duck)


def element_type(duck: str) -> str:
    """The type of a list's elements: ``INTEGER[]`` -> ``INTEGER``; any other type stays as it is."""
    match = _LIST.match(duck)
    return match[1] if match else duck
