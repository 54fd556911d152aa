"""Runs an SQL query once and keeps its rows as one Parquet file, in the order of the query."""

import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

import duckdb

from recd_dist.direct.foreign_input import TableOrigin
from recd_dist.errors import ConfigError, DataError
from recd_dist.etl.raw.duckdb_sql import connect, register_stores, report_query_errors, resolve_path
from recd_dist.etl.raw.pin_reads import PinnedQuery, pin_reads
from recd_dist.etl.raw.read_options import read_text_options
from recd_dist.etl.raw.sql_errors import WrittenSql, describe_written
from recd_dist.etl.source.source import Source
from recd_dist.etl.source.source_queries import samples_query
from recd_dist.table.flat import identifier, string_literal
from recd_dist.table.location import Location, is_remote, report_store_errors
from recd_dist.table.one_query import second_statement

_ROW_GROUP = 8192  # as a unit of flat files: none is cut, and none is joined
_MEMORY = "1GB"
_STORED_AS = {"HUGEINT": "bigint", "UHUGEINT": "ubigint", "UUID": "varchar"}
"""Types that Parquet, as DuckDB writes it, would make others of."""

_PLAIN = re.compile(r"\s*select\s+\*\s+from\s+(read_parquet\s*\()?\s*'[^']*'\s*\)?\s*;?\s*", re.IGNORECASE)
"""A query that takes Parquet files as they are."""

_TEXT_FILE = re.compile(r"\.(csv|tsv|json|jsonl|ndjson)(\.(gz|zst))?$", re.IGNORECASE)


def input_query(path: str | None, sql: str | None, origin: TableOrigin) -> tuple[PinnedQuery, str]:
    """The query whose rows are scored, and the option that it stands in.

    Args:
        path: what stands for ``{path}`` in it.
        sql: the query as somebody typed it; None for that of the table's samples, or for every row of the path.
        origin: how the table of the training was made.

    Raises:
        ConfigError: ``{path}`` stands in a query, and nobody says what it is.
        DataError: files of the query are not there, or do not go together.
    """
    options = read_text_options(list(origin.null_values), origin.csv, [])
    if sql is None:
        source = Source("input", str(path), origin.samples, reading=options)
        return samples_query(source), "data.samples of the run" if origin.samples else f"data.path={path}"
    written = WrittenSql.of(sql)
    if "{path}" in sql and path is None:
        raise ConfigError("data.sql: {path} stands in it; say what it is: data.path=FILES")
    written = written.fill_path(resolve_path(path) if path else "")
    if mistake := second_statement(written.sql):
        raise DataError(f"data.sql: must be {mistake}")
    return pin_reads(written, options), "data.sql"


def describe_input(query: PinnedQuery, option: str) -> Mapping[str, str]:
    """The DuckDB type of each column of a query, which is not run.

    Raises:
        DataError: the query is wrong, at its line and column.
    """
    with connect(_MEMORY) as connection:
        return describe_written(connection, query.written, option)


def write_query(query: PinnedQuery, option: str, out: Location) -> None:
    """Runs a query and writes its rows, whole or not at all.

    Args:
        query: the query.
        option: what it stands in, for messages.
        out: the Parquet file, whose directory is there.

    Raises:
        DataError: the query is wrong or fails.
    """
    with tempfile.TemporaryDirectory(prefix="recd_query_") as scratch, connect(_MEMORY, spill=Path(scratch)) as opened:
        types = describe_written(opened, query.written, option)
        built = Path(scratch) / "rows.parquet" if is_remote(out) else Path(f"{out}.{os.getpid()}.tmp")
        try:
            with report_query_errors(option):
                _copy(opened, query.sql, types, built)
            if is_remote(out):
                with report_store_errors(out):
                    out.fs.makedirs(out.parent.path, exist_ok=True)
                    out.fs.put_file(str(built), out.path)
            else:
                built.replace(str(out))
        finally:
            built.unlink(missing_ok=True)


def _copy(connection: duckdb.DuckDBPyConnection, sql: str, types: Mapping[str, str], path: Path) -> None:
    """Writes the rows of a query in their order."""
    register_stores(connection, sql)
    replaced = [f"{identifier(n)}::{_STORED_AS[t]} as {identifier(n)}" for n, t in types.items() if t in _STORED_AS]
    columns = f"* replace ({', '.join(replaced)})" if replaced else "*"
    connection.execute("set preserve_insertion_order = true")
    connection.execute(
        f"copy (select {columns} from ({sql}\n)) to {string_literal(str(path))} "
        f"(format parquet, compression zstd, row_group_size {_ROW_GROUP})"
    )


def needs_query(path: str | None, sql: str | None, origin: TableOrigin) -> bool:
    """Whether rows come from a query: one that was typed, that of the table's samples, or a file that is no Parquet.

    Args:
        path: a file, a folder or a pattern.
        sql: a query.
        origin: how the table of the training was made.
    """
    if sql is not None:
        return True
    is_plain = origin.samples is None or _PLAIN.fullmatch(origin.samples) is not None
    return not is_plain or _TEXT_FILE.search(str(path)) is not None
