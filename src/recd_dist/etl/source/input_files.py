"""The raw files of a source: their names and sizes, and what was found when they were compared."""

import os
from dataclasses import dataclass
from pathlib import Path

from recd_dist.etl.raw.duckdb_sql import resolve_path
from recd_dist.etl.raw.found_files import FoundFile, find_files
from recd_dist.etl.raw.parquet_call import read_footers
from recd_dist.etl.raw.pin_reads import PinnedQuery
from recd_dist.etl.source.source import Source
from recd_dist.etl.source.source_queries import group_query, samples_query
from recd_dist.table.announcement import Announcement

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


def find_input_files(source: Source) -> InputFiles:
    """Lists the raw files of a source, local or in a store; what only DuckDB reads (``http://``) is left out.

    Args:
        source: names a path, and queries that may read other files as well.

    Raises:
        DataError: no file is there, or files that one query reads together do not go together.
    """
    queries = [samples_query(source)]
    queries += [group_query(source, name) for name, group in (source.groups or {}).items() if group.sql]
    files = _all_files(source, queries)
    footers = read_footers([file for file in files[:_MAX_FOOTERS] if file.suffix in _PARQUET])
    readable_footers = [footer for footer in footers if footer is not None]
    counted = len(readable_footers) == len(files) and len({read for query in queries for read in query.files}) <= 1
    text_bytes = sum(file.num_bytes for file in files if file.suffix not in _PARQUET)
    return InputFiles(
        files=tuple((file.name, file.num_bytes, file.version) for file in files),
        memory_bytes=sum(footer.num_bytes for footer in readable_footers) + _TEXT_FACTOR * text_bytes,
        num_rows=sum(footer.num_rows for footer in readable_footers) if counted else None,
        announcements=tuple(dict.fromkeys(notice for query in queries for notice in query.notices)),
        of_samples=tuple(_sample_file(file) for file in _all_files(source, queries[:1])),
    )


def _all_files(source: Source, queries: list[PinnedQuery]) -> list[FoundFile]:
    """The files that the queries read; without any, those of the path. Sorted by path."""
    read = {file for query in queries for files in query.files for file in files}
    return sorted(read or find_files(resolve_path(source.path)), key=lambda file: file.name)


def _sample_file(file: FoundFile) -> SampleFile:
    name = os.path.abspath(file.name) if isinstance(file.path, Path) else file.name
    return SampleFile(name, file.num_bytes, file.content)
