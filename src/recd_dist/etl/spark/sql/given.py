"""Queries that a source gives in Spark's own SQL, for what cannot be translated."""

from pyspark.errors import PySparkException
from pyspark.sql import Column
from pyspark.sql import functions as F
from pyspark.sql import types as T

from recd_dist.errors import DataError, nearest
from recd_dist.etl.source import duckdb_sql as engine
from recd_dist.etl.source.source import Source
from recd_dist.etl.spark.sql.scope import Scope, Workshop
from recd_dist.etl.spark.sql.spark_types import stored
from recd_dist.etl.spark.sql.tree import backticked


def given_rows(shop: Workshop, source: Source, group: str, text: str) -> Scope:
    """The rows of the source's Spark SQL, with the columns and types of its DuckDB query.

    Args:
        shop: of the query.
        source: what is read.
        group: with its own query; empty for the samples.
        text: Spark SQL with ``{path}``.

    Raises:
        DataError: Spark refuses the query, or its columns are not those of the DuckDB query.
    """
    path = engine.resolve_path(source.path)
    duck = (source.groups or {})[group].sql if group else source.samples
    query = engine.samples_query(duck, path)
    columns = engine.describe_query(shop.connection, query, shop.option)
    try:
        df = shop.spark.sql(engine.fill_path(text, path))
    except PySparkException as error:
        raise DataError(f"{shop.option}: {str(error).splitlines()[0]}") from error
    types = {field.name.lower(): field.dataType for field in df.schema.fields}
    kept, known, mistakes = list[Column](), list[tuple[str, str]](), list[str]()
    for name, kind in columns.items():
        found = stored(kind)
        if name.lower() not in types:
            mistakes.append(f"no column '{name}', which the DuckDB query has{nearest(name, types)}")
        elif found is not None and not _fits(types[name.lower()], found[1]):
            there = types[name.lower()].simpleString()
            mistakes.append(f"column '{name}' is {there} and must be {found[1].simpleString()}; cast it")
        elif found is not None:
            kept.append(F.col(backticked(name)).cast(found[1]).alias(f"o{len(kept)}"))
            known.append((name, kind))
    if mistakes:
        raise DataError(f"{shop.option}: " + "\n  ".join(mistakes))
    return Scope.of(shop, df.select(kept), known)


def _fits(given: T.DataType, wanted: T.DataType) -> bool:
    """Whether a cast keeps every value or fails: the same type, or whole numbers."""
    if isinstance(given, T.ArrayType) and isinstance(wanted, T.ArrayType):
        return _fits(given.elementType, wanted.elementType)
    return given == wanted or (_is_whole(given) and _is_whole(wanted))


def _is_whole(kind: T.DataType) -> bool:
    return isinstance(kind, T.IntegralType) or (isinstance(kind, T.DecimalType) and kind.scale == 0)
