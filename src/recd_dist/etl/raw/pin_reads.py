"""Every read of raw files in a query is pinned: to the files that are there, and to types that hold for all their rows.

::

    select * from read_csv('logs/*.csv')
    select * from read_csv(['logs/a.csv', 'logs/b.csv'], columns = {'item': 'BIGINT'}, header = true, ...)

Whoever runs the pinned query (the ETL, ``--verify``, Spark) reads the same values, and no engine guesses.
"""

from dataclasses import dataclass
from functools import lru_cache

import duckdb

from recd_dist.errors import DataError
from recd_dist.etl.raw.csv_call import pin_csv
from recd_dist.etl.raw.duckdb_sql import connect, register_stores, short_message
from recd_dist.etl.raw.found_files import FoundFile, find_files, list_literal
from recd_dist.etl.raw.json_call import pin_json
from recd_dist.etl.raw.parquet_call import pin_parquet
from recd_dist.etl.raw.read_options import ReadOptions
from recd_dist.etl.raw.reader_calls import READERS, ReaderCall, find_calls
from recd_dist.etl.raw.sql_errors import WrittenSql
from recd_dist.etl.raw.table_formats import refuse_files_of_tables
from recd_dist.table.announcement import Announcement

_MEMORY = "256MB"
_THREADS = 4


@dataclass(frozen=True)
class PinnedQuery:
    """A query that leaves nothing about its files to be guessed.

    Attributes:
        written: the query as its author wrote it, and what was replaced in it.
        files: for each read of it, the files.
        notices: what was decided about them.
    """

    written: WrittenSql
    files: tuple[tuple[FoundFile, ...], ...]
    notices: tuple[Announcement, ...]

    @property
    def sql(self) -> str:
        """The query."""
        return self.written.sql


def pin_reads(written: WrittenSql, options: ReadOptions) -> PinnedQuery:
    """Pins every read of raw files in a query; the rows of text files are looked at for it, once in a process.

    Args:
        written: the query, with the path in its place.
        options: what the data config says of text files.

    Raises:
        DataError: files that are not there, cannot be read, or do not go together.
    """
    calls = find_calls(written.sql)
    replaced, files, notices = dict[tuple[int, int], str](), list[tuple[FoundFile, ...]](), list[Announcement]()
    for call in calls:
        found = _find_files_of(call)
        if found is None:
            if call.reader != "read_parquet" and not {"sample_size", "columns"} & dict(call.options).keys():
                replaced[call.span] = _look_at_all_rows(call)
            continue
        refuse_files_of_tables(found)
        text, said = _pin_call(call.reader, call.options, found, options)
        replaced[call.span] = text
        files.append(found)
        notices += said
    return PinnedQuery(written.replace(replaced), tuple(files), tuple(dict.fromkeys(notices)))


def _find_files_of(call: ReaderCall) -> tuple[FoundFile, ...] | None:
    """The files of a call; None where only DuckDB can tell them.

    Raises:
        DataError: nothing is there.
    """
    try:
        with connect(_MEMORY, threads=1) as connection:
            value = connection.execute(f"select {call.files}").fetchall()[0][0]
    except duckdb.Error:
        return None
    patterns = [value] if isinstance(value, str) else list(value or ())
    suffixes = {suffix for suffix, reader in READERS.items() if reader == call.reader}
    found = list[FoundFile]()
    for pattern in map(str, patterns):
        files = find_files(pattern)
        below = [file for file in files if file.name == pattern or file.suffix in suffixes]
        found += below if any(file.suffix in suffixes for file in files) else files
    return tuple(found) or None


def _look_at_all_rows(call: ReaderCall) -> str:
    text = "".join(f", {name} = {value}" for name, value in call.options)
    return f"{call.reader}({call.files}{text}, sample_size = -1)"


@lru_cache(maxsize=64)
def _pin_call(
    reader: str, call_options: tuple[tuple[str, str], ...], files: tuple[FoundFile, ...], options: ReadOptions
) -> tuple[str, tuple[Announcement, ...]]:
    """The pinned call, and what was decided."""
    notices: list[Announcement] = []
    given = dict(call_options)
    if reader == "read_parquet":
        return pin_parquet(files, given, options, notices), tuple(notices)
    pin = pin_csv if reader == "read_csv" else pin_json
    with connect(_MEMORY, threads=_THREADS) as connection:
        register_stores(connection, list_literal(files))
        try:
            return pin(connection, files, given, options, notices), tuple(notices)
        except duckdb.Error as error:
            raise DataError(f"{files[0].name}: {short_message(error)}") from error
