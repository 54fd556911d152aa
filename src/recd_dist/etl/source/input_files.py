"""The raw files behind a source: which they are, how large, and whether their columns agree.

DuckDB takes the columns of the first file and passes over what others have more. A log whose columns drift from day to
day would lose data without a word, so the footers of Parquet files are compared before anything is read.
"""

import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from recd_dist.errors import DataError
from recd_dist.etl.source.duckdb_sql import LEFT_TO_DUCKDB, checked_path, default_samples, filled
from recd_dist.etl.source.source import Source
from recd_dist.table.location import Location, arrow_input, location, report_store_errors, stored_files

_READ = re.compile(r"read_parquet\(\s*'((?:[^']|'')*)'\s*(?P<more>,[^)]*union_by_name[^)]*)?")
_GLOB = re.compile(r"[*?\[]")
_TEXT_FACTOR = 3  # text takes about that much in memory
_MAX_FOOTERS = 2000


@dataclass(frozen=True)
class Inputs:
    """Raw files.

    Attributes:
        files: path, bytes and time of change (ns; in a store a number that changes with the file) of each, sorted.
        memory_bytes: about what their rows take in memory.
        num_rows: of Parquet files together; None where others are among them.
    """

    files: tuple[tuple[str, int, int], ...]
    memory_bytes: int
    num_rows: int | None


def inputs(source: Source) -> Inputs:
    """Looks at the raw files of a source, local or in a store; what only the engine reads (``http://``) is left to it.

    Raises:
        DataError: no such file, or Parquet files that are read as one whose columns differ.
    """
    path = checked_path(source.path)
    if path.lower().startswith(LEFT_TO_DUCKDB):
        return Inputs((), 0, None)
    sql = [filled(source.samples, path) if source.samples else default_samples(path)]
    sql += [filled(group.sql, path) for group in (source.groups or {}).values() if group.sql]
    read: dict[str, list[_File]] = {}
    for query in sql:
        for found in _READ.finditer(query):
            pattern = found[1].replace("''", "'")
            read.setdefault(pattern, _matching(pattern))
            if not found["more"]:
                _check_drift([file.path for file in read[pattern]])
    files = sorted({*_matching(path), *(f for files in read.values() for f in files)}, key=lambda f: str(f.path))
    stats = [(str(file.path), file.num_bytes, file.version) for file in files]
    with ThreadPoolExecutor(8) as pool:
        footers = [file.path for file in files[:_MAX_FOOTERS] if file.path.suffix in (".parquet", ".pq")]
        metadata = list(pool.map(_metadata, footers))
    all_parquet = len(metadata) == len(files) and all(metadata)
    known = sum(found[1] for found in metadata if found)
    other = sum(size for name, size, _ in stats if Path(name).suffix not in (".parquet", ".pq"))
    num_rows = sum(found[0] for found in metadata if found) if all_parquet and len(read) <= 1 else None
    return Inputs(tuple(stats), known + _TEXT_FACTOR * other, num_rows)


@dataclass(frozen=True)
class _File:
    path: Location
    num_bytes: int
    version: int


def _matching(pattern: str) -> list[_File]:
    """Files of a path, directory or glob."""
    if pattern.lower().startswith(LEFT_TO_DUCKDB):
        return []
    path = location(pattern)
    if not isinstance(path, Path):
        return [_File(file.path, file.num_bytes, file.version) for file in stored_files(path)]
    found = [(file, file.stat()) for file in _local(path, pattern)]
    return [_File(file, stat.st_size, stat.st_mtime_ns) for file, stat in found]


def _local(path: Path, pattern: str) -> list[Path]:
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
    if path.exists() or not _GLOB.search(pattern):
        return [path] if path.is_file() else []
    root = Path(path.anchor)
    return sorted(file for file in root.glob(str(path.relative_to(root))) if file.is_file())


def _metadata(file: Location) -> tuple[int, int] | None:
    """Rows of a Parquet file and about their bytes in memory; None where the footer cannot be read."""
    try:
        with report_store_errors(file):
            metadata = pq.read_metadata(arrow_input(file))
    except (pa.ArrowException, OSError):
        return None
    groups = range(metadata.num_row_groups)
    return metadata.num_rows, sum(metadata.row_group(i).total_byte_size for i in groups)


def _check_drift(files: Iterable[Location]) -> None:
    """Compares the columns of Parquet files that are read as one table.

    Raises:
        DataError: the first file whose columns are not those of the first, with column and types.
    """
    files = list(files)[:_MAX_FOOTERS]
    with ThreadPoolExecutor(8) as pool:
        schemas = list(pool.map(_schema, files))
    first = schemas[0] if schemas else None
    for file, schema in zip(files[1:], schemas[1:], strict=True):
        if first is None or schema is None:
            continue  # a damaged file: the engine says so when it reads it
        for name in (*first.names, *(n for n in schema.names if n not in first.names)):
            before, now = _type(first, name), _type(schema, name)
            if before != now:
                raise DataError(
                    f"{file}: column '{name}' is {now}, in {files[0]} it is {before}: the logs' columns have changed. "
                    "Give `data.samples`, a query that brings both to one form, such as "
                    f"{_remedy(name, before, now)}"
                )


def _remedy(name: str, before: str, now: str) -> str:
    if "absent" in (before, now):
        return "select ... from read_parquet([...], union_by_name = true): what is absent is null"
    if "list" in (before.split(maxsplit=1)[0], now.split(maxsplit=1)[0]):
        return f"select [{name}] as {name} ... union all by name select {name} ...: lists and single values apart"
    return f"select {name}::bigint as {name} ... from each, joined by union all by name"


def _schema(file: Location) -> pa.Schema | None:
    try:
        with report_store_errors(file):
            return pq.read_schema(arrow_input(file))
    except (pa.ArrowException, OSError):
        return None


def _type(schema: pa.Schema, name: str) -> str:
    """A column's type as far as it matters: integers of any width are one, a list is not a single value."""
    places = schema.get_all_field_indices(name)
    return _plain(schema.field(places[0]).type) if places else "absent"


def _plain(kind: pa.DataType) -> str:
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return f"list of {_plain(kind.value_type)}"
    if pa.types.is_dictionary(kind):
        return _plain(kind.value_type)
    names = {
        "integer": pa.types.is_integer,
        "float": pa.types.is_floating,
        "text": lambda t: pa.types.is_string(t) or pa.types.is_large_string(t) or pa.types.is_binary(t),
        "timestamp": pa.types.is_timestamp,
    }
    return next((name for name, fits in names.items() if fits(kind)), str(kind))
