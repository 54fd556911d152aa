"""DuckDB over raw files: paths, queries and their columns, and errors in one line.

The raw files are only read. Texts become ids by :data:`TEXT_ID`, which is the same in every release and on every
machine (DuckDB's own ``hash()`` promises neither): the last 8 bytes of the MD5 of the UTF-8 text, little-endian, with
the sign bit cleared. In Python: ``int.from_bytes(md5(text.encode()).digest()[8:], "little") & (2**63 - 1)``.
"""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import pyarrow as pa

from recd_dist.errors import DataError, nearest
from recd_dist.etl.raw.duckdb_memory import EngineMemoryError, fitting_threads, is_out_of_memory, parse_size
from recd_dist.table.flat import string_literal
from recd_dist.table.location import (
    directories,
    file_size,
    is_remote,
    known_protocols,
    listing,
    location,
    report_store_errors,
)

if TYPE_CHECKING:
    from upath import UPath

TEXT_ID = "(md5_number_lower({}) & 9223372036854775807)::bigint"
"""SQL for the 63-bit id of a text; the text expression takes the place of ``{}``."""

_BATCH_ROWS = 4096
_GLOB = re.compile(r"[*?\[]")
_STORE = re.compile(r"""(?:[(\[,]|\bfrom|\bjoin)\s*['"](([a-z][a-z0-9+.-]*)://[^'"/]*/?)""", re.IGNORECASE)
"""Finds a path in a store where a query reads it, but not a text that only looks like one (``like 'app://%'``)."""

_TOO_WIDE = re.compile(r"(?:with value|decimal value) (-?\d+) (?:can't be cast because.* INT64|to type INT64)")

LEFT_TO_DUCKDB = ("http://", "https://", "hf://", "azure://", "r2://")
"""Beginnings of paths that only DuckDB reads: nobody else looks whether a file is there."""


def connect(
    memory_limit: str = "1GB", threads: int | None = None, spill: Path | None = None
) -> duckdb.DuckDBPyConnection:
    """Opens an in-memory DuckDB that spills to disk beyond its memory limit.

    Args:
        memory_limit: the memory that DuckDB alone may take, such as ``1GB``.
        threads: the most threads; fewer where the memory is little. None takes one for every core.
        spill: the directory for what does not fit into memory. None lets DuckDB choose one.

    Returns:
        The open connection.

    Raises:
        DataError: DuckDB does not understand the memory limit.
    """
    connection = duckdb.connect()
    try:
        connection.execute(f"set memory_limit = {string_literal(memory_limit)}")
    except duckdb.Error as error:
        raise DataError(f"memory_limit '{memory_limit}': {short_message(error)}; write it as 1GB or 512MB") from error
    connection.execute("set enable_progress_bar = false")
    connection.execute("set TimeZone = 'UTC'")  # times without a zone, and days and hours, mean the same everywhere
    connection.execute("set python_enable_replacements = false")  # a misspelt table must not find a Python variable
    connection.execute(f"set threads = {fitting_threads(parse_size(memory_limit), threads)}")
    if spill is not None:
        connection.execute(f"set temp_directory = {string_literal(str(spill))}")
    return connection


def register_stores(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    """Lets DuckDB read the stores that a query names (``'s3://bucket/x.parquet'``) through fsspec.

    No DuckDB extension has to be fetched, and credentials are found as for tables. Stores that fsspec does not know,
    and ``http://``, are left to DuckDB.

    Args:
        connection: the connection that shall reach the stores; all its cursors reach them too.
        sql: a query or a path.

    Raises:
        ConfigError: the library for a store is not installed.
    """
    for text, protocol in dict.fromkeys(_STORE.findall(sql)):
        known = protocol.lower() in known_protocols() and not text.lower().startswith(LEFT_TO_DUCKDB)
        place = location(text) if known else Path()
        if is_remote(place):
            names = place.fs.protocol
            if not connection.filesystem_is_registered(names if isinstance(names, str) else names[0]):
                connection.register_filesystem(place.fs)


def resolve_path(path: str) -> str:
    """Expands ``~`` in a path and checks that something is there; ``http://`` is left to DuckDB.

    Args:
        path: a file, directory or glob, local or in a store.

    Returns:
        The path that queries can name.

    Raises:
        ConfigError: the protocol is unknown, or its library is not installed.
        DataError: nothing is there; the message names the nearest entry of the same directory.
    """
    if path.lower().startswith(LEFT_TO_DUCKDB):
        return path
    expanded = location(path)
    if not isinstance(expanded, Path):
        return _resolve_in_store(path, expanded)
    if expanded.exists():
        return str(expanded)
    if is_glob(path):
        if any(match_glob(expanded)):
            return str(expanded)
        raise DataError(f"path {path}: no file matches this pattern")
    parent = expanded.parent
    if not parent.is_dir():
        raise DataError(f"path {path}: not found, and neither is the directory {parent}")
    raise DataError(f"path {path}: not found{nearest(expanded.name, (p.name for p in parent.iterdir()))}")


def is_glob(path: str) -> bool:
    """Whether a path is a pattern for several files."""
    return _GLOB.search(path) is not None


def match_glob(pattern: Path) -> Iterable[Path]:
    """The local files and directories that an absolute pattern matches, in no order."""
    root = Path(pattern.anchor)
    return root.glob(str(pattern.relative_to(root)))


def _resolve_in_store(path: str, place: "UPath") -> str:
    if file_size(place) is not None or directories(place) or listing(place):
        return path
    if is_glob(path):
        with report_store_errors(place):
            if place.fs.glob(place.path):
                return path
        raise DataError(f"path {path}: no file matches this pattern")
    with report_store_errors(place):
        try:
            names = [str(entry["name"]).rstrip("/") for entry in place.parent.fs.ls(place.parent.path, detail=True)]
        except FileNotFoundError as error:
            raise DataError(f"path {path}: not found, and neither is anything in {place.parent}") from error
    raise DataError(f"path {path}: not found{nearest(place.name, (name.rpartition('/')[2] for name in names))}")


def fill_path(sql: str, path: str) -> str:
    """Puts a path in the place of ``{path}`` in a query, and takes off a closing semicolon."""
    return sql.replace("{path}", path.replace("'", "''")).strip().rstrip(";")


def describe_query(connection: duckdb.DuckDBPyConnection, sql: str, where: str) -> dict[str, str]:
    """Asks DuckDB for the columns of a query without running it; the stores that the query names become readable.

    Args:
        connection: an open DuckDB.
        sql: the query.
        where: what the query is, for the beginning of an error message.

    Returns:
        The DuckDB type of each column, by name.

    Raises:
        DataError: the query is wrong, or a file cannot be read.
    """
    return dict(describe_columns(connection, sql, where))


def describe_columns(connection: duckdb.DuckDBPyConnection, sql: str, where: str) -> list[tuple[str, str]]:
    """Name and type of each column of a query, as :func:`describe_query`; a name may stand twice."""
    register_stores(connection, sql)
    try:
        rows = connection.execute(f"describe {sql}").fetchall()
    except duckdb.Error as error:
        raise DataError(f"{where}: {short_message(error)}") from error
    return [(row[0], row[1]) for row in rows]


def read_batches(connection: duckdb.DuckDBPyConnection, sql: str, where: str) -> Iterator[pa.RecordBatch]:
    """Runs a query and yields its result as it comes.

    Args:
        connection: an open DuckDB.
        sql: the query.
        where: what the query is, for the beginning of an error message.

    Raises:
        DataError: the query fails.
    """
    with report_query_errors(where):
        yield from connection.sql(sql).to_arrow_reader(_BATCH_ROWS)


@contextmanager
def report_query_errors(where: str) -> Iterator[None]:
    """Turns what DuckDB says while a query is read into an error in one line.

    Args:
        where: what the query is, for the beginning of the message.

    Raises:
        EngineMemoryError: DuckDB needs more memory than its share. Arrow, which hands its batches on, calls that an
            OSError, and any other error of DuckDB too; those have no number.
        DataError: the query fails otherwise.
    """
    try:
        yield
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        if is_out_of_memory(error):
            raise EngineMemoryError(f"{where}: {str(error).splitlines()[0]}") from error
        of_disk = isinstance(error, OSError) and (error.errno is not None or "No space left" in str(error))
        if of_disk:
            raise
        raise DataError(f"{where}: {short_message(error)}") from error


def short_message(error: BaseException) -> str:
    """DuckDB's message in one line: what is wrong, which names it suggests and where, without the whole query."""
    first, *rest = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    kept = [first, *(line for line in rest if "candidate" in line.lower() or line.startswith("Did you mean"))]
    kept += [f"at {line}" for line in rest if line.startswith("LINE ")]
    if too_wide := _TOO_WIDE.search(first):
        kept.insert(0, f"{too_wide[1]} does not fit into 64 bits; cast that column to text in the SQL, which is hashed")
    if "No magic bytes found" in first or "too small to be a Parquet file" in first:
        kept = [f"{first}; the file is cut off or no Parquet: fetch it again"]
    text = "; ".join(kept)
    return text if len(text) <= 500 else text[:497] + "..."
