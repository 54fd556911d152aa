"""What all steps of the translation of one query share."""

from functools import cached_property

import duckdb
from pyspark.sql import SparkSession

from recd_dist.etl.spark.sql.spark_types import stored_type
from recd_dist.etl.spark.sql.tree import Trees, Unsupported


class QueryContext:
    """Holds the Spark session, the DuckDB that is asked what a query means, and the supply of new column names.

    Args:
        spark: Spark session that runs the query.
        connection: an open DuckDB.
        option: name of the option in which the user may give the query in Spark's own SQL, for messages.
        keep_place: rows keep the columns ``PLACE``, which tell where they stand in their file, because the order of
            the raw rows counts. Steps that mix rows are refused.

    Attributes:
        files: paths of the files that the query has read last, in DuckDB's order. With ``keep_place`` a query reads
            one table, so these are all its files.
        trees: reads and writes DuckDB's syntax trees.
        time_zone: DuckDB's time zone.
    """

    def __init__(
        self, spark: SparkSession, connection: duckdb.DuckDBPyConnection, option: str, keep_place: bool = False
    ) -> None:
        self.spark = spark
        self.connection = connection
        self.option = option
        self.keep_place = keep_place
        self.files: list[str] = []
        self.trees = Trees(connection)
        self.time_zone = str(connection.execute("select current_setting('TimeZone')").fetchall()[0][0])
        self._num_names = 0

    def new_name(self) -> str:
        """A column name that nothing else in this query has."""
        self._num_names += 1
        return f"c{self._num_names}"

    def unsupported(self, what: str) -> Unsupported:
        """The error for a construct that only Spark SQL written by hand can say."""
        return Unsupported(f"{what} is not known to give the same rows on Spark; give the query as {self.option}")

    def refuse_where_order_counts(self, what: str) -> None:
        """Refuses a step that mixes rows, so that they no longer stand in the order of their files.

        Args:
            what: name of the step, for the message.

        Raises:
            Unsupported: the order of the raw rows counts.
        """
        if self.keep_place:
            raise self.unsupported(f"{what} without keys.timestamp, where the order of the rows counts,")

    def spark_type(self, duck: str, what: str) -> str:
        """Spark SQL's name of the type in which Spark holds the values of a DuckDB type.

        Args:
            duck: name of the DuckDB type.
            what: what has this type, for the message.

        Raises:
            Unsupported: Spark holds no values of this type.
        """
        stored = stored_type(duck)
        if stored is None:
            raise self.unsupported(f"{what} of type {duck[:60]}")
        return str(stored[1].simpleString())

    @cached_property
    def function_kinds(self) -> dict[str, set[str]]:
        """Kinds of every function of DuckDB by its name: aggregate, scalar, macro, and ``volatile``."""
        kinds_of: dict[str, set[str]] = {}
        rows = self.connection.execute("select function_name, function_type, stability from duckdb_functions()")
        for name, kind, stability in rows.fetchall():
            kinds = kinds_of.setdefault(name, set())
            kinds |= {kind, *(["volatile"] if stability not in (None, "CONSISTENT") else [])}
        return kinds_of
