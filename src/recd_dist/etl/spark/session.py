"""The same source description on PySpark: the DuckDB queries of a source as Spark DataFrames.

::

    source --DuckDB: columns and types--> Inspection --spark_query--> samples DataFrame, a DataFrame per group

Needs the extra ``spark`` and Java 17 or later.
"""

import os
import sys
from typing import TYPE_CHECKING

from recd_dist.errors import ConfigError
from recd_dist.etl.source import duckdb_sql as engine
from recd_dist.etl.source.inspection import Inspection, inspect
from recd_dist.etl.source.source import Source

_MISSING = "engine=spark needs PySpark: pip install 'recd-dist[spark]', and Java 17 or later"

_MEANING = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.ansi.enabled": "true",
    "spark.sql.parquet.inferTimestampNTZ.enabled": "true",
}

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection
    from pyspark.sql import DataFrame, SparkSession

    from recd_dist.etl.spark.sql.scope import Scope


def session(master: str | None = None, **options: str) -> "SparkSession":
    """A Spark session for the ETL; one that is there already is used as it is.

    Args:
        master: such as ``local[2]``; None is Spark's default. Under ``spark-submit`` it is left to that.
        options: Spark configuration, with ``_`` for ``.``.

    Raises:
        ConfigError: PySpark or Java is missing, or the master is none.
    """
    try:
        from pyspark.errors import PySparkException
        from pyspark.sql import SparkSession
        from pyspark.sql.pandas.utils import require_minimum_pandas_version, require_minimum_pyarrow_version

        require_minimum_pandas_version()
        require_minimum_pyarrow_version()
    except ImportError as error:
        raise ConfigError(f"{_MISSING} ({str(error).splitlines()[0]})") from error
    if "PYSPARK_GATEWAY_PORT" in os.environ:  # under spark-submit, which has said where Spark runs
        master = None
    else:
        os.environ["PYSPARK_PYTHON"] = sys.executable
    builder = SparkSession.builder.appName("recd etl").config("spark.ui.showConsoleProgress", "false")
    if master is not None:
        builder = builder.master(master).config("spark.ui.enabled", "false").config("spark.log.level", "ERROR")
    for name, value in options.items():
        builder = builder.config(name.replace("_", "."), value)
    try:
        return builder.getOrCreate()
    except (PySparkException, OSError, RuntimeError) as error:
        where = "" if master is None else f" (spark.master={master})"
        raise ConfigError(
            f"Spark does not start{where}: {str(error).splitlines()[0]}; is Java 17 or later there, the master right?"
        ) from error


def active_session() -> "SparkSession | None":
    """The session that is there already, under spark-submit or in a notebook.

    Raises:
        ConfigError: PySpark is missing.
    """
    try:
        from pyspark.sql import SparkSession
    except ImportError as error:
        raise ConfigError(_MISSING) from error
    return SparkSession.getActiveSession()


def normalised(source: Source, spark: "SparkSession") -> tuple["DataFrame", dict[str, "DataFrame"], Inspection]:
    """The normalised rows of a source on Spark, row for row those of the DuckDB queries of ``Inspection``.

    Args:
        source: what to read.
        spark: session; its time zone, ANSI mode and reading of timestamps are set.

    Returns:
        The samples, the rows of each group with its own query, and what DuckDB found in the columns. Nothing is
        computed yet.

    Raises:
        DataError: a path, query or column that does not fit.
        Unsupported: a construct of a query that is not known to mean the same on Spark.
    """
    return normalised_in_place(source, spark, placed=False)[:3]


def normalised_in_place(
    source: Source, spark: "SparkSession", placed: bool
) -> tuple["DataFrame", dict[str, "DataFrame"], Inspection, list[str]]:
    """:func:`normalised`, where the order of the rows may count: where the source names no timestamp.

    Args:
        source: what to read.
        spark: session.
        placed: the samples keep their file and the start of their block (``spark_scope.PLACE``).

    Returns:
        As ``normalised``; and the files of the samples in the order in which DuckDB reads them, where placed.
    """
    from recd_dist.etl.spark.sql.query import as_stored

    for name, value in _MEANING.items():
        spark.conf.set(name, value)
    with engine.connect() as connection:
        found = inspect(source, connection)
        groups = source.groups or {}
        samples = _rows(spark, connection, source, "", found.samples, source.samples_spark, placed)
        frames = {
            name: as_stored(_rows(spark, connection, source, name, query, groups[name].sql_spark))
            for name, query in found.groups.items()
        }
    return as_stored(samples), frames, found, samples.shop.files


def _rows(
    spark: "SparkSession",
    connection: "DuckDBPyConnection",
    source: Source,
    group: str,
    normal: str,
    given: str | None,
    placed: bool = False,
) -> "Scope":
    """A normalised query on Spark; ``given`` is the source's own Spark SQL for the query inside."""
    from recd_dist.etl.spark.sql.given import given_rows
    from recd_dist.etl.spark.sql.query import compiled
    from recd_dist.etl.spark.sql.scope import Workshop

    option = f"groups.{group}.sql_spark" if group else "samples_spark"
    shop = Workshop(spark, connection, option, placed)
    node = shop.trees.parsed(normal)
    if given is None:
        return compiled(shop, node, {})
    if placed:
        raise ConfigError(f"{option} needs keys.timestamp: without one, the order of the rows counts")
    table = {"given": given_rows(shop, source, group, given)}
    return compiled(shop, node | {"from_table": shop.trees.table("given")}, table)
