"""Queries in Spark's own SQL, for DuckDB queries that cannot be translated."""

from pyspark.errors import PySparkException
from pyspark.sql import Column
from pyspark.sql import functions as F
from pyspark.sql import types as T

from recd_dist.errors import DataError, nearest
from recd_dist.etl.raw import duckdb_sql as engine
from recd_dist.etl.raw.sql_errors import describe_written
from recd_dist.etl.source.source import Source
from recd_dist.etl.source.source_queries import group_query, samples_query
from recd_dist.etl.spark.sql.query_context import QueryContext
from recd_dist.etl.spark.sql.scope import Scope
from recd_dist.etl.spark.sql.spark_types import stored_type
from recd_dist.etl.spark.sql.tree import spark_identifier


def read_native_query(context: QueryContext, source: Source, group: str, text: str) -> Scope:
    """The rows of a source's query in Spark SQL, with the columns and types of its DuckDB query.

    Args:
        context: what all steps of the query share.
        source: description of the source, with the DuckDB query.
        group: name of the group that has its own query; empty for the samples.
        text: Spark SQL, with ``{path}`` for the source's path.

    Raises:
        DataError: Spark refuses the query, or its columns are not those of the DuckDB query.
    """
    path = engine.resolve_path(source.path)
    query = group_query(source, group) if group else samples_query(source)
    columns = describe_written(context.connection, query.written, f"data.{context.option.removesuffix('_spark')}")
    try:
        df = context.spark.sql(f"select * from (\n{engine.fill_path(text, path)}\n)")  # a query, no other statement
    except PySparkException as error:
        raise DataError(f"{context.option}: {str(error).splitlines()[0]}") from error
    types = {field.name.lower(): field.dataType for field in df.schema.fields}
    kept, known, mistakes = list[Column](), list[tuple[str, str]](), list[str]()
    for name, duck in columns.items():
        stored = stored_type(duck)
        if name.lower() not in types:
            mistakes.append(f"no column '{name}', which the DuckDB query has{nearest(name, types)}")
        elif stored is not None and not _is_lossless(types[name.lower()], stored[1]):
            actual = types[name.lower()].simpleString()
            mistakes.append(f"column '{name}' is {actual} and must be {stored[1].simpleString()}; cast it")
        elif stored is not None:
            kept.append(F.col(spark_identifier(name)).cast(stored[1]).alias(f"o{len(kept)}"))
            known.append((name, duck))
    if mistakes:
        raise DataError(f"{context.option}: " + "\n  ".join(mistakes))
    return Scope.of(context, df.select(kept), known)


def _is_lossless(actual: T.DataType, needed: T.DataType) -> bool:
    """Whether a cast keeps every value or fails: between equal types, or between whole numbers."""
    if isinstance(actual, T.ArrayType) and isinstance(needed, T.ArrayType):
        return _is_lossless(actual.elementType, needed.elementType)
    return actual == needed or (_is_whole(actual) and _is_whole(needed))


def _is_whole(kind: T.DataType) -> bool:
    return isinstance(kind, T.IntegralType) or (isinstance(kind, T.DecimalType) and kind.scale == 0)
