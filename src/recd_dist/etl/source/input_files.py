"""The raw files of a source: their names and sizes, and whether their columns agree.

DuckDB takes the columns of the first file and passes over further columns of the others. A log whose columns drift from
day to day would lose data without a word, so the footers of Parquet files are compared before anything is read.
"""

import os
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from recd_dist.errors import DataError
from recd_dist.etl.source.duckdb_sql import LEFT_TO_DUCKDB, fill_path, is_glob, match_glob, resolve_path, samples_query
from recd_dist.etl.source.source import Source
from recd_dist.table.announcement import Announcement
from recd_dist.table.location import Location, arrow_input, location, report_store_errors, stored_files

_READ = re.compile(r"read_parquet\(\s*'((?:[^']|'')*)'\s*(?P<more>,[^)]*union_by_name[^)]*)?")
_TEXT = re.compile(r"'((?:[^']|'')*)'")
_PARQUET = (".parquet", ".pq")
_TEXT_FACTOR = 3  # text takes about that much more in memory than on disk
_MAX_FOOTERS = 2000


@dataclass(frozen=True)
class SampleFile:
    """A file that the samples query reads.

    Attributes:
        name: its absolute path, or its address in a store.
        num_bytes: its size.
        content: what a store says of its content; empty where it is local.
    """

    name: str
    num_bytes: int
    content: str


@dataclass(frozen=True)
class InputFiles:
    """The raw files of a source.

    Attributes:
        files: path, size in bytes and version of each file, sorted by path. The version is the time of change in ns; in
            a store, it is a number that changes with the file.
        memory_bytes: about the bytes that the rows take in memory.
        num_rows: the rows of all files; None where not all of them are Parquet files.
        announcements: what was found in names, footers and types that people may not expect.
        of_samples: those of the files that the samples query reads.
    """

    files: tuple[tuple[str, int, int], ...]
    memory_bytes: int
    num_rows: int | None
    announcements: tuple[Announcement, ...] = ()
    of_samples: tuple[SampleFile, ...] = ()


@dataclass(frozen=True)
class _File:
    path: Location
    num_bytes: int
    version: int
    content: str = ""

    @property
    def is_parquet(self) -> bool:
        return self.path.suffix in _PARQUET


def find_input_files(source: Source) -> InputFiles:
    """Lists the raw files of a source, local or in a store; what only DuckDB reads (``http://``) is left out.

    Args:
        source: names a path, and queries that may read other Parquet files as well.

    Raises:
        DataError: no file is there, or Parquet files that one query reads together differ in their columns.
    """
    path = resolve_path(source.path)
    if path.lower().startswith(LEFT_TO_DUCKDB):
        return InputFiles((), 0, None)
    read_by_pattern = _find_read_files(source, path)
    read = (file for files in read_by_pattern.values() for file in files)
    files = sorted({*_list_files(path), *read}, key=lambda file: str(file.path))
    with ThreadPoolExecutor(8) as pool:
        parquet = [file.path for file in files[:_MAX_FOOTERS] if file.is_parquet]
        footers = list(pool.map(_read_footer, parquet))
    readable_footers = [footer for footer in footers if footer is not None]
    counted = len(readable_footers) == len(files) and len(read_by_pattern) <= 1
    text_bytes = sum(file.num_bytes for file in files if not file.is_parquet)
    return InputFiles(
        files=tuple((str(file.path), file.num_bytes, file.version) for file in files),
        memory_bytes=sum(num_bytes for _, num_bytes in readable_footers) + _TEXT_FACTOR * text_bytes,
        num_rows=sum(num_rows for num_rows, _ in readable_footers) if counted else None,
        of_samples=_find_sample_files(source, path, files),
    )


def _find_sample_files(source: Source, path: str, files: Iterable[_File]) -> tuple[SampleFile, ...]:
    """The files that the samples query reads: those that its texts name, or else all. Groups may read others."""
    texts = (text.replace("''", "'") for text in _TEXT.findall(samples_query(source.samples, path)))
    named = {file for text in texts if text.startswith(path) for file in _list_files(text)}
    chosen = sorted(named or files, key=lambda file: str(file.path))
    return tuple(
        SampleFile(os.path.abspath(file.path) if isinstance(file.path, Path) else str(file.path), *rest)
        for file, rest in ((file, (file.num_bytes, file.content)) for file in chosen)
    )


def _find_read_files(source: Source, path: str) -> dict[str, list[_File]]:
    """The Parquet files that the source's queries name, by pattern; files that are read together are compared."""
    queries = [samples_query(source.samples, path)]
    queries += [fill_path(group.sql, path) for group in (source.groups or {}).values() if group.sql]
    files: dict[str, list[_File]] = {}
    for query in queries:
        for call in _READ.finditer(query):
            pattern = call[1].replace("''", "'")
            files.setdefault(pattern, _list_files(pattern))
            if not call["more"]:
                _check_drift([file.path for file in files[pattern]][:_MAX_FOOTERS])
    return files


def _list_files(pattern: str) -> list[_File]:
    """The files of a path, directory or glob."""
    if pattern.lower().startswith(LEFT_TO_DUCKDB):
        return []
    path = location(pattern)
    if not isinstance(path, Path):
        return [_File(file.path, file.num_bytes, file.version, file.content) for file in stored_files(path)]
    stats = [(file, file.stat()) for file in _list_local_files(path, pattern)]
    return [_File(file, stat.st_size, stat.st_mtime_ns) for file, stat in stats]


def _list_local_files(path: Path, pattern: str) -> list[Path]:
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
    if path.exists() or not is_glob(pattern):
        return [path] if path.is_file() else []
    return sorted(file for file in match_glob(path) if file.is_file())


def _read_footer(file: Location) -> tuple[int, int] | None:
    """The rows of a Parquet file and about their bytes in memory; None where the footer cannot be read."""
    try:
        with report_store_errors(file):
            metadata = pq.read_metadata(arrow_input(file))
    except (pa.ArrowException, OSError):
        return None
    groups = range(metadata.num_row_groups)
    return metadata.num_rows, sum(metadata.row_group(i).total_byte_size for i in groups)


def _check_drift(files: Sequence[Location]) -> None:
    """Compares the columns of Parquet files that are read as one table.

    Raises:
        DataError: a file differs from the first one; the message names the column and both types.
    """
    with ThreadPoolExecutor(8) as pool:
        schemas = list(pool.map(_read_schema, files))
    first = schemas[0] if schemas else None
    for file, schema in zip(files[1:], schemas[1:], strict=True):
        if first is None or schema is None:
            continue  # a damaged file: the engine says so when it reads it
        for name, before, now in _differences(first, schema):
            raise DataError(
                f"{file}: column '{name}' is {now}, in {files[0]} it is {before}: the logs' columns have changed. "
                f"Give `data.samples`, a query that brings both to one form, such as {_remedy(name, before, now)}"
            )


def _differences(first: pa.Schema, other: pa.Schema) -> Iterable[tuple[str, str, str]]:
    """Each column that two files do not share, with its type in the first and in the other file."""
    for name in (*first.names, *(name for name in other.names if name not in first.names)):
        before, now = _column_type(first, name), _column_type(other, name)
        if before != now:
            yield name, before, now


def _remedy(name: str, before: str, now: str) -> str:
    if "absent" in (before, now):
        return "select ... from read_parquet([...], union_by_name = true): what is absent is null"
    if "list" in (before.split(maxsplit=1)[0], now.split(maxsplit=1)[0]):
        return f"select [{name}] as {name} ... union all by name select {name} ...: lists and single values apart"
    return f"select {name}::bigint as {name} ... from each, joined by union all by name"


def _read_schema(file: Location) -> pa.Schema | None:
    try:
        with report_store_errors(file):
            return pq.read_schema(arrow_input(file))
    except (pa.ArrowException, OSError):
        return None


def _column_type(schema: pa.Schema, name: str) -> str:
    """A column's type as far as it matters: integers of any width are alike, a list is not a single value."""
    places = schema.get_all_field_indices(name)
    return _type_name(schema.field(places[0]).type) if places else "absent"


def _type_name(kind: pa.DataType) -> str:
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return f"list of {_type_name(kind.value_type)}"
    if pa.types.is_dictionary(kind):
        return _type_name(kind.value_type)
    names = {
        "integer": pa.types.is_integer,
        "float": pa.types.is_floating,
        "text": lambda t: pa.types.is_string(t) or pa.types.is_large_string(t) or pa.types.is_binary(t),
        "timestamp": pa.types.is_timestamp,
    }
    return next((name for name, fits in names.items() if fits(kind)), str(kind))
