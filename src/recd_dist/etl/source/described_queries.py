"""The queries of a source as DuckDB describes them: their columns and types, or what is wrong with the user's SQL."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import duckdb

from recd_dist.errors import DataError
from recd_dist.etl.raw.parquet_call import read_footers
from recd_dist.etl.raw.pin_reads import PinnedQuery
from recd_dist.etl.raw.sql_errors import WrittenSql, describe_written, explain_sql_error
from recd_dist.etl.source.source import Source
from recd_dist.etl.source.source_queries import group_query, samples_query
from recd_dist.table.announcement import Announcement


@dataclass(frozen=True)
class RawQuery:
    """A query as the source has it.

    Attributes:
        sql: the query.
        types: the DuckDB type of each of its columns.
        durations: the columns of its Parquet files that are durations, which DuckDB reads as integers, with their unit.
    """

    sql: str
    types: Mapping[str, str]
    durations: Mapping[str, str] = field(default_factory=dict)


def describe_samples(source: Source, connection: duckdb.DuckDBPyConnection) -> RawQuery:
    """The query of a source's samples, with its columns.

    Raises:
        DataError: the query is wrong, or a file cannot be read.
    """
    return _describe(connection, samples_query(source), "data.samples" if source.samples else f"path {source.path}")


def describe_groups(source: Source, connection: duckdb.DuckDBPyConnection) -> dict[str, RawQuery]:
    """The query of each group that has its own, with its columns.

    Raises:
        DataError: as for :func:`describe_samples`.
    """
    described = {}
    for name, group in (source.groups or {}).items():
        if group.sql is not None:
            described[name] = _describe(connection, group_query(source, name), f"data.groups.{name}.sql")
    return described


def saved_index(column: str) -> Announcement:
    """Says that a column in which pandas has saved the index of a data frame is no feature."""
    return Announcement(
        f"column '{column}' is the saved index of a pandas data frame and was left out",
        1,
        f"data.drop=[{column}] says the same, data.features.{column}.kind=id makes it a feature",
        suspicious=False,
    )


def check_split(source: Source, connection: duckdb.DuckDBPyConnection, samples: str) -> None:
    """Checks the predicate of the test split, which will stand inside a longer query.

    Args:
        source: names the predicate.
        connection: an open DuckDB.
        samples: the query of the samples.

    Raises:
        DataError: the predicate is wrong.
    """
    if isinstance(source.split, str):
        split = WrittenSql.of(source.split)
        told = explain_sql_error(connection, split, "data.split", "select (", f"\n)::boolean from ({samples}\n)")
        if told is not None:
            raise DataError(told)


def _describe(connection: duckdb.DuckDBPyConnection, query: PinnedQuery, option: str) -> RawQuery:
    footers = [footer for files in query.files for footer in read_footers(files[:1]) if footer is not None]
    columns = [column for footer in footers for column in footer.columns]
    durations = {name: kind[len("duration[") : -1] for name, kind in columns if kind.startswith("duration[")}
    return RawQuery(query.sql, describe_written(connection, query.written, option), durations)
