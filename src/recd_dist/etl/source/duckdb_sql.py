"""DuckDB over raw files: opening them, describing queries, and errors in one line.

The raw files are only read. Strings become ids by :data:`HASH`, which is the same in every release and on every
machine (DuckDB's own ``hash()`` promises neither): the last 8 bytes of the MD5 of the UTF-8 text, little-endian, with
the sign bit cleared. In Python: ``int.from_bytes(md5(text.encode()).digest()[8:], "little") & (2**63 - 1)``.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb

from recd_dist.errors import DataError, nearest
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

HASH = "(md5_number_lower({}) & 9223372036854775807)::bigint"
"""SQL for the 63-bit id of a text expression."""

_READERS = {".parquet": "read_parquet", ".pq": "read_parquet", ".csv": "read_csv", ".tsv": "read_csv"}
_COMPRESSED = (".gz", ".zst")
_GLOB = re.compile(r"[*?\[]")
_STORE = re.compile(r"""(?:[(\[,]|\bfrom|\bjoin)\s*['"](([a-z][a-z0-9+.-]*)://[^'"/]*/?)""", re.IGNORECASE)
"""A path in a store where a query reads it; not ``like 'app://%'``."""
LEFT_TO_DUCKDB = ("http://", "https://", "hf://", "azure://", "r2://")


def connect(
    memory_limit: str = "1GB", threads: int | None = None, spill: Path | None = None
) -> duckdb.DuckDBPyConnection:
    """An in-memory DuckDB that spills to disk beyond its memory limit.

    Args:
        memory_limit: for DuckDB alone, such as ``1GB``.
        threads: None takes every core.
        spill: directory for what does not fit; None lets DuckDB choose.

    Raises:
        DataError: a memory limit that DuckDB does not understand.
    """
    connection = duckdb.connect()
    try:
        connection.execute(f"set memory_limit = {string_literal(memory_limit)}")
    except duckdb.Error as error:
        raise DataError(f"memory_limit '{memory_limit}': {short(error)}; write it as 1GB or 512MB") from error
    connection.execute("set enable_progress_bar = false")
    connection.execute("set python_enable_replacements = false")  # a misspelt table must not find a Python variable
    if threads is not None:
        connection.execute(f"set threads = {int(threads)}")
    if spill is not None:
        connection.execute(f"set temp_directory = {string_literal(str(spill))}")
    return connection


def register_stores(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    """Lets DuckDB read the stores that a query names (``'s3://bucket/x.parquet'``) through fsspec.

    No DuckDB extension has to be fetched, and credentials are found as for tables. What fsspec does not know and
    ``http://`` are left to DuckDB.

    Args:
        connection: all cursors of it profit.
        sql: a query or a path.

    Raises:
        ConfigError: a library that is not installed.
    """
    for text, protocol in dict.fromkeys(_STORE.findall(sql)):
        known = protocol.lower() in known_protocols() and not text.lower().startswith(LEFT_TO_DUCKDB)
        place = location(text) if known else Path()
        if is_remote(place):
            names = place.fs.protocol
            if not connection.filesystem_is_registered(names if isinstance(names, str) else names[0]):
                connection.register_filesystem(place.fs)


def checked_path(path: str) -> str:
    """The path with ``~`` expanded, if something is there (``http://`` is left to DuckDB).

    Raises:
        ConfigError: an unknown protocol, or a library that is not installed.
        DataError: nothing there, naming the nearest entry of the same directory.
    """
    if path.lower().startswith(LEFT_TO_DUCKDB):
        return path
    expanded = location(path)
    if not isinstance(expanded, Path):
        return _checked_in_store(path, expanded)
    if expanded.exists():
        return str(expanded)
    if _GLOB.search(path):
        root = Path(expanded.anchor)
        if any(root.glob(str(expanded.relative_to(root)))):
            return str(expanded)
        raise DataError(f"path {path}: no file matches this pattern")
    parent = expanded.parent
    if not parent.is_dir():
        raise DataError(f"path {path}: not found, and neither is the directory {parent}")
    raise DataError(f"path {path}: not found{nearest(expanded.name, (p.name for p in parent.iterdir()))}")


def _checked_in_store(path: str, place: "UPath") -> str:
    if file_size(place) is not None or directories(place) or listing(place):
        return path
    if _GLOB.search(path):
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


def filled(sql: str, path: str) -> str:
    """A query with ``{path}`` filled in, without a closing semicolon."""
    return sql.replace("{path}", path.replace("'", "''")).strip().rstrip(";")


def default_samples(path: str) -> str:
    """A query of every row and column of a file, directory or glob, by its suffix.

    Raises:
        DataError: a suffix that says nothing, or a directory without data files.
    """
    names = _names_below(path)
    if names is not None:
        found = sorted({_suffix(Path(name)) for name in names} & set(_READERS))
        if len(found) != 1:
            what = "no Parquet, CSV or TSV files" if not found else f"files of several kinds ({', '.join(found)})"
            raise DataError(f"path {path}: {what} in this directory; name the files, such as {path}/*.parquet")
        path, suffix = f"{path}/**/*{found[0]}*", found[0]
    else:
        suffix = _suffix(Path(path))
    if suffix not in _READERS:
        raise DataError(f"path {path}: cannot tell its format by its name; give `samples`, an SQL query that reads it")
    options = ", delim = '\\t'" if suffix == ".tsv" else ""
    return f"select * from {_READERS[suffix]}({string_literal(path)}{options})"


def _names_below(path: str) -> list[str] | None:
    """Files below a directory; None where the path is no directory."""
    if path.lower().startswith(LEFT_TO_DUCKDB):
        return None
    place = location(path)
    if not isinstance(place, Path):
        return list(listing(place)) or None
    return [str(p) for p in place.rglob("*") if p.is_file()] if place.is_dir() else None


def _suffix(path: Path) -> str:
    return (Path(path.stem) if path.suffix in _COMPRESSED else path).suffix.lower()


def described(connection: duckdb.DuckDBPyConnection, sql: str, where: str) -> dict[str, str]:
    """Columns of a query and their DuckDB types, without running it; stores that it names become readable.

    Raises:
        DataError: the query is wrong or a file cannot be read; ``where`` leads the message.
    """
    register_stores(connection, sql)
    try:
        rows = connection.execute(f"describe {sql}").fetchall()
    except duckdb.Error as error:
        raise DataError(f"{where}: {short(error)}") from error
    return {row[0]: row[1] for row in rows}


def short(error: BaseException) -> str:
    """DuckDB's message in one line: what is wrong, the candidates it offers and where, without the whole query."""
    first, *rest = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    kept = [first, *(line for line in rest if "candidate" in line.lower() or line.startswith("Did you mean"))]
    kept += [f"at {line}" for line in rest if line.startswith("LINE ")]
    if "No magic bytes found" in first or "too small to be a Parquet file" in first:
        kept = [f"{first}; the file is cut off or no Parquet: fetch it again"]
    text = "; ".join(kept)
    return text if len(text) <= 500 else text[:497] + "..."
