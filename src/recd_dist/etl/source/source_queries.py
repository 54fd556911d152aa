"""The queries of a source, with its path in them and every read of raw files pinned."""

import re
from pathlib import Path

from recd_dist.errors import DataError
from recd_dist.etl.raw.duckdb_sql import resolve_path
from recd_dist.etl.raw.found_files import find_files, format_suffix
from recd_dist.etl.raw.pin_reads import PinnedQuery, pin_reads
from recd_dist.etl.raw.reader_calls import READERS
from recd_dist.etl.raw.sql_errors import WrittenSql
from recd_dist.etl.raw.table_formats import foreign_table
from recd_dist.etl.source.source import Source
from recd_dist.table.flat import string_literal
from recd_dist.table.location import location
from recd_dist.table.one_query import second_statement

_NO_WORDS = re.compile(r"'(?:[^']|'')*'|\"[^\"]*\"|--[^\n]*|/\*.*?\*/", re.DOTALL)
_JOIN = re.compile(r"\bjoin\b", re.IGNORECASE)
_ORDER = re.compile(r"\border\s+by\b", re.IGNORECASE)


def samples_query(source: Source) -> PinnedQuery:
    """The query of a source's samples; without one of its own, every row and column of its path.

    Raises:
        DataError: nothing is there, the name of the path does not tell its format, or files do not go together.
    """
    path = resolve_path(source.path)
    text = source.samples
    written = WrittenSql.of(text).fill_path(path) if text else WrittenSql("", _query_of_all(path))
    return _pin(written, source, "data.samples")


def group_query(source: Source, group: str) -> PinnedQuery:
    """The query of a group that has its own.

    Raises:
        DataError: as for :func:`samples_query`.
    """
    sql = (source.groups or {})[group].sql or ""
    return _pin(WrittenSql.of(sql).fill_path(resolve_path(source.path)), source, f"data.groups.{group}.sql")


def _pin(written: WrittenSql, source: Source, option: str) -> PinnedQuery:
    if mistake := second_statement(written.sql):
        raise DataError(f"{option}: must be {mistake}")
    return pin_reads(written, source.reading)


def joins_without_order(sql: str) -> bool:
    """Whether a query joins and does not say an order: then its rows come in another order from run to run."""
    words = _NO_WORDS.sub(" ", sql)
    ends = [words[match.end() :] for match in _ORDER.finditer(words)]
    is_ordered = any(end.count("(") == end.count(")") for end in ends)  # and not inside a window or a subquery
    return _JOIN.search(words) is not None and not is_ordered


def _query_of_all(path: str) -> str:
    """A query of every row and column of a file, directory or pattern, by its suffix."""
    if (table := foreign_table(path)) is not None:
        return table.query()
    files = find_files(path)
    suffixes = sorted({file.suffix for file in files} & set(READERS)) or [format_suffix(path)]
    readers = sorted({READERS[suffix] for suffix in suffixes if suffix in READERS})
    place = location(path) if files else None
    is_directory = isinstance(place, Path) and place.is_dir()
    if len(readers) > 1 or (len(suffixes) > 1 and "read_csv" in readers):
        raise DataError(
            f"path {path}: files of several kinds ({', '.join(suffixes)}) in this directory; name the files, such as "
            f"{path.rstrip('/')}/*{suffixes[-1]}"
        )
    if not readers and is_directory:
        raise DataError(f"path {path}: no Parquet, CSV, TSV or JSON files in this directory; name the files")
    if not readers:
        raise DataError(f"path {path}: cannot tell its format by its name; give `samples`, an SQL query that reads it")
    options = ", delim = '\\t'" if suffixes == [".tsv"] else ""
    return f"select * from {readers[0]}({string_literal(path)}{options})"
