"""DuckDB inside Spark's workers: it computes what happens inside a row.

Spark moves, joins, groups and orders rows. Expressions over the columns of one row are left to DuckDB, one Arrow batch
at a time. So an expression means the same on both engines: rounding, division, logarithms, text of numbers, hashes.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import duckdb
import pyarrow as pa
from pyspark.sql import functions as F
from pyspark.sql import types as T

from recd_dist.etl.raw import duckdb_sql as engine
from recd_dist.etl.spark.sql.spark_types import stored_type
from recd_dist.table.flat import string_literal


@functools.cache
def worker_connection(time_zone: str) -> duckdb.DuckDBPyConnection:
    """The DuckDB of a worker process, opened once; it has one thread, since Spark runs one task per core."""
    connection = engine.connect("512MB", threads=1)
    connection.execute(f"set TimeZone = {string_literal(time_zone)}")
    return connection


def duckdb_function(query: str, inputs: Sequence[str], outputs: Sequence[str], time_zone: str) -> Callable[..., Any]:
    """A Spark function that runs one DuckDB query over each Arrow batch and returns its columns as a struct.

    Args:
        query: DuckDB SQL over the table ``batch``, with one output row per input row.
        inputs: names of the columns of ``batch``, in the order of the function's arguments.
        outputs: DuckDB type of each output column; Spark gets the columns as fields ``e0``, ``e1``, ...
        time_zone: DuckDB's time zone on the driver, for timestamps with a time zone.
    """
    types = [stored[1] for stored in map(stored_type, outputs) if stored]
    result = T.StructType([T.StructField(f"e{i}", kind) for i, kind in enumerate(types)])

    def run(*columns: pa.Array) -> pa.Array:
        batch = pa.Table.from_arrays(list(columns), names=list(inputs))
        return _to_struct(run_query(query, batch, time_zone), batch.num_rows)

    return F.arrow_udf(run, returnType=result)


def run_query(query: str, batch: pa.Table, time_zone: str) -> pa.Table:
    """Runs a query over the table ``batch``, in a worker."""
    connection = worker_connection(time_zone)
    connection.register("batch", batch)
    try:
        return connection.sql(query).to_arrow_table()
    finally:
        connection.unregister("batch")


def _to_struct(table: pa.Table, num_rows: int) -> pa.Array:
    if table.num_rows != num_rows:
        raise ValueError(f"an expression made {table.num_rows} rows of {num_rows}")
    arrays = [pa.concat_arrays(column.chunks) if column.num_chunks else column.combine_chunks() for column in table]
    return pa.StructArray.from_arrays(arrays, names=[f"e{i}" for i in range(len(arrays))])
