"""DuckDB over raw files: opening them, describing queries, and errors in one line.

The raw files are only read. Strings become ids by :data:`HASH`, which is the same in every release and on every
machine (DuckDB's own ``hash()`` promises neither): the last 8 bytes of the MD5 of the UTF-8 text, little-endian, with
the sign bit cleared. In Python: ``int.from_bytes(md5(text.encode()).digest()[8:], "little") & (2**63 - 1)``.
"""

import re
from pathlib import Path

import duckdb

from recd_dist.errors import DataError, nearest

HASH = "(md5_number_lower({}) & 9223372036854775807)::bigint"
"""SQL for the 63-bit id of a text expression."""

_READERS = {".parquet": "read_parquet", ".pq": "read_parquet", ".csv": "read_csv", ".tsv": "read_csv"}
_COMPRESSED = (".gz", ".zst")
_GLOB = re.compile(r"[*?\[]")


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
        connection.execute(f"set memory_limit = {quoted(memory_limit)}")
    except duckdb.Error as error:
        raise DataError(f"memory_limit '{memory_limit}': {short(error)}; write it as 1GB or 512MB") from error
    connection.execute("set enable_progress_bar = false")
    connection.execute("set python_enable_replacements = false")  # a misspelt table must not find a Python variable
    if threads is not None:
        connection.execute(f"set threads = {int(threads)}")
    if spill is not None:
        connection.execute(f"set temp_directory = {quoted(str(spill))}")
    return connection


def quoted(text: str) -> str:
    """An SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def identifier(name: str) -> str:
    """An SQL identifier, quoted."""
    return '"' + name.replace('"', '""') + '"'


def checked_path(path: str) -> str:
    """The path with ``~`` expanded, if something is there (paths with ``://`` are left to DuckDB).

    Raises:
        DataError: nothing there, naming the nearest entry of the same directory.
    """
    if "://" in path:
        return path
    expanded = Path(path).expanduser()
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


def filled(sql: str, path: str) -> str:
    """A query with ``{path}`` filled in, without a closing semicolon."""
    return sql.replace("{path}", path.replace("'", "''")).strip().rstrip(";")


def default_samples(path: str) -> str:
    """A query of every row and column of a file, directory or glob, by its suffix.

    Raises:
        DataError: a suffix that says nothing, or a directory without data files.
    """
    if Path(path).is_dir():
        found = sorted({_suffix(p) for p in Path(path).rglob("*") if p.is_file()} & set(_READERS))
        if len(found) != 1:
            what = "no Parquet, CSV or TSV files" if not found else f"files of several kinds ({', '.join(found)})"
            raise DataError(f"path {path}: {what} in this directory; name the files, such as {path}/*.parquet")
        path, suffix = f"{path}/**/*{found[0]}*", found[0]
    else:
        suffix = _suffix(Path(path))
    if suffix not in _READERS:
        raise DataError(f"path {path}: cannot tell its format by its name; give `samples`, an SQL query that reads it")
    options = ", delim = '\\t'" if suffix == ".tsv" else ""
    return f"select * from {_READERS[suffix]}({quoted(path)}{options})"


def _suffix(path: Path) -> str:
    return (Path(path.stem) if path.suffix in _COMPRESSED else path).suffix.lower()


def described(connection: duckdb.DuckDBPyConnection, sql: str, where: str) -> dict[str, str]:
    """Columns of a query and their DuckDB types, without running it.

    Raises:
        DataError: the query is wrong or a file cannot be read; ``where`` leads the message.
    """
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
