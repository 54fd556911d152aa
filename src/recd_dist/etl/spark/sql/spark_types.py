"""Types on both sides, and DuckDB inside Spark's workers.

::

    DuckDB      UTINYINT  UINTEGER  UBIGINT         HUGEINT         UUID     TIMESTAMP      T[]
    in Spark    smallint  bigint    decimal(20,0)   decimal(38,0)   string   timestamp_ntz  array<T>

ENUM, whose order is not that of its text, and STRUCT, MAP, TIME, INTERVAL and BLOB are not held as columns.

Spark moves, joins, groups and orders rows; what happens inside a row is left to DuckDB itself, one Arrow batch at a
time. So an expression means the same on both engines: rounding, division, logarithms, text of numbers, hashes.
"""

import functools
import re
from collections.abc import Callable, Sequence
from typing import Any

import duckdb
import pyarrow as pa
from pyspark.sql import functions as F
from pyspark.sql import types as T

from recd_dist.etl.source import duckdb_sql as engine
from recd_dist.table.flat import string_literal

_PLAIN = {
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
"""Integer types that Spark holds as integers."""

_LIST = re.compile(r"^(.*)\[\d*\]$", re.DOTALL)
_DECIMAL = re.compile(r"^DECIMAL\((\d+),(\d+)\)$")


def stored(duck: str) -> "tuple[str, T.DataType] | None":
    """A DuckDB type as Spark holds it: DuckDB's name for that, and Spark's type; None where Spark has none.

    Args:
        duck: type as DESCRIBE names it, such as ``UINTEGER[]``.
    """
    if found := _LIST.match(duck):
        inner = stored(found[1])
        return None if inner is None else (f"{inner[0]}[]", T.ArrayType(inner[1]))
    if found := _DECIMAL.match(duck):
        return duck, T.DecimalType(int(found[1]), int(found[2]))
    return _PLAIN.get(duck)


def element(duck: str) -> str:
    """``INTEGER[]`` -> ``INTEGER``."""
    found = _LIST.match(duck)
    return found[1] if found else duck


@functools.cache
def worker_connection(time_zone: str) -> duckdb.DuckDBPyConnection:
    """The DuckDB of a worker process: one thread, as Spark runs a task per core."""
    connection = engine.connect("512MB", threads=1)
    connection.execute(f"set TimeZone = {string_literal(time_zone)}")
    return connection


def evaluated(query: str, inputs: Sequence[str], outputs: Sequence[str], time_zone: str) -> Callable[..., Any]:
    """A Spark function that runs one DuckDB query over each Arrow batch and returns its columns as a struct.

    Args:
        query: over the table ``batch``, with one output row per input row.
        inputs: names of the columns of ``batch``, in the order of the function's arguments.
        outputs: stored DuckDB type of each output column; they come back as fields ``e0``, ``e1``, ...
        time_zone: of the session, for timestamps with a time zone.
    """
    types = [found[1] for found in map(stored, outputs) if found]
    result = T.StructType([T.StructField(f"e{i}", kind) for i, kind in enumerate(types)])

    def run(*columns: pa.Array) -> pa.Array:
        batch = pa.Table.from_arrays(list(columns), names=list(inputs))
        return _struct(answered(query, batch, time_zone), batch.num_rows)

    return F.arrow_udf(run, returnType=result)


def answered(query: str, batch: pa.Table, time_zone: str) -> pa.Table:
    """Runs a query over the table ``batch``; in a worker."""
    connection = worker_connection(time_zone)
    connection.register("batch", batch)
    try:
        return connection.sql(query).to_arrow_table()
    finally:
        connection.unregister("batch")


def _struct(table: pa.Table, num_rows: int) -> pa.Array:
    if table.num_rows != num_rows:
        raise ValueError(f"an expression made {table.num_rows} rows of {num_rows}")
    arrays = [pa.concat_arrays(column.chunks) if column.num_chunks else column.combine_chunks() for column in table]
    return pa.StructArray.from_arrays(arrays, names=[f"e{i}" for i in range(len(arrays))])
