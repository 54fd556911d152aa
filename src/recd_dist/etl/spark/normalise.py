"""The normalised rows of a source as Spark DataFrames.

::

    source --DuckDB: columns and types--> Inspection --translate_query--> samples DataFrame, a DataFrame per group
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from recd_dist.errors import ConfigError
from recd_dist.etl.raw import duckdb_sql as engine
from recd_dist.etl.source.inspection import Inspection, inspect
from recd_dist.etl.source.source import Source

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection
    from pyspark.sql import DataFrame, SparkSession

    from recd_dist.etl.spark.sql.scope import Scope

_MEANING = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.ansi.enabled": "true",
    "spark.sql.parquet.inferTimestampNTZ.enabled": "true",
}
"""Settings of Spark that decide what a query means; with these it means what it means to DuckDB."""


@dataclass(frozen=True)
class NormalisedSource:
    """A source as Spark sees it; Spark has computed none of it yet.

    Attributes:
        samples: rows of the normalised samples query.
        groups: rows of each group that has its own query.
        inspection: what DuckDB found in the columns.
        files: paths of the samples' files in the order in which DuckDB reads them; known with ``keep_place``.
    """

    samples: "DataFrame"
    groups: dict[str, "DataFrame"]
    inspection: Inspection
    files: list[str]


def normalise_on_spark(source: Source, spark: "SparkSession", keep_place: bool = False) -> NormalisedSource:
    """Translates the queries of a source, so that Spark gives the rows that DuckDB gives.

    Args:
        source: what to read.
        spark: Spark session to work in; its time zone, ANSI mode and reading of timestamps are set here.
        keep_place: the samples keep their file and the start of their block (``row_place.PLACE``), since the source
            names no timestamp and the order of its rows counts.

    Raises:
        DataError: a path, query or column that does not fit.
        Unsupported: a construct of a query that is not known to mean the same on Spark.
        ConfigError: ``keep_place`` with samples in Spark's own SQL, whose order is not known.
    """
    from recd_dist.etl.spark.sql.query import to_data_frame

    for name, value in _MEANING.items():
        spark.conf.set(name, value)
    with engine.connect() as connection:
        inspection = inspect(source, connection)
        options = source.groups or {}
        samples = _translate(spark, connection, source, "", inspection.samples, source.samples_spark, keep_place)
        groups = {
            name: to_data_frame(_translate(spark, connection, source, name, query, options[name].sql_spark))
            for name, query in inspection.groups.items()
        }
    return NormalisedSource(to_data_frame(samples), groups, inspection, samples.context.files)


def _translate(
    spark: "SparkSession",
    connection: "DuckDBPyConnection",
    source: Source,
    group: str,
    normal: str,
    native: str | None,
    keep_place: bool = False,
) -> "Scope":
    """The rows of a normalised query on Spark.

    Args:
        spark: Spark session to work in.
        connection: an open DuckDB.
        source: what to read.
        group: name of the group whose query it is; empty for the samples.
        normal: the normalised query, in DuckDB's SQL.
        native: the source's own Spark SQL for the query inside the normalised one; None to translate that query too.
        keep_place: rows keep the columns ``PLACE``.
    """
    from recd_dist.etl.spark.sql.native_query import read_native_query
    from recd_dist.etl.spark.sql.query import translate_query
    from recd_dist.etl.spark.sql.query_context import QueryContext

    option = f"groups.{group}.sql_spark" if group else "samples_spark"
    context = QueryContext(spark, connection, option, keep_place)
    node = context.trees.parse(normal)
    if native is None:
        return translate_query(context, node, {})
    if keep_place:
        raise ConfigError(f"{option} needs keys.timestamp: without one, the order of the rows counts")
    tables = {"native": read_native_query(context, source, group, native)}
    return translate_query(context, node | {"from_table": context.trees.table("native")}, tables)
