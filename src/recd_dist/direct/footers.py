"""What the footers of flat Parquet files tell: rows, columns and their types, ranges of numbers.

Everything that can be wrong with the files as such is said here, before a row is read.
"""

import logging
import re
from collections.abc import Container, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from recd_dist.direct.table_snapshots import snapshot_files
from recd_dist.errors import DataError
from recd_dist.etl.raw.common_types import arrow_type_name, common_types
from recd_dist.etl.raw.duckdb_sql import resolve_path
from recd_dist.etl.raw.found_files import FoundFile, find_files
from recd_dist.etl.raw.table_formats import refuse_files_of_tables
from recd_dist.reader.direct_table import NO_VALUE, RawFile
from recd_dist.table.location import arrow_input, first_line, is_remote, report_store_errors

logger = logging.getLogger(__name__)

SUFFIXES = (".parquet", ".pq", ".parq")
_FOLDER = re.compile(r"([^/=]+)=([^/]*)/")
_THREADS = 8
_MAGIC = b"PAR1"


@dataclass(frozen=True)
class ColumnRange:
    """What footers say of one column's numbers, over all files.

    Attributes:
        low, high: smallest and largest; None where a footer does not say.
        num_null: values that are missing; None where a footer does not say.
    """

    low: Any
    high: Any
    num_null: int | None


@dataclass(frozen=True)
class FlatFiles:
    """Flat Parquet files that are read as one table.

    Attributes:
        files: the files, in the order in which they are read: that of their names.
        metadata: the footer of each.
        types: the DuckDB type of each column, wide enough for every file.
        durations: the columns that are durations, with their unit.
        root: the beginning of the files' names that is the same for all and stands for their place.
    """

    files: tuple[RawFile, ...]
    metadata: tuple[pq.FileMetaData, ...]
    types: Mapping[str, str]
    durations: Mapping[str, str]
    root: str

    def range_of(self, column: str) -> ColumnRange:
        """The range of a column, or of the elements of its lists, by the footers."""
        if column in self.files[0].folders:
            values = [file.folders[column] for file in self.files]
            numbers = [int(text) for text in values if text is not None] if self.types[column] == "BIGINT" else []
            num_null = sum(file.num_rows for file in self.files if file.folders[column] is None)
            return ColumnRange(min(numbers, default=None), max(numbers, default=None), num_null)
        lows, highs, nulls = [], [], 0
        is_told, counts_nulls = True, True
        for metadata in self.metadata:
            leaf = _leaf_of(metadata, column)
            for number in range(metadata.num_row_groups):
                chunk = metadata.row_group(number).column(leaf) if leaf is not None else None
                stats = chunk.statistics if chunk is not None and chunk.is_stats_set else None
                num_values = chunk.num_values if chunk is not None else 0
                if stats is None or not stats.has_null_count:
                    counts_nulls = False
                else:
                    nulls += stats.null_count
                if stats is not None and stats.has_min_max:
                    lows.append(stats.min)
                    highs.append(stats.max)
                elif stats is None or not stats.has_null_count or stats.null_count < num_values:
                    is_told = is_told and metadata.row_group(number).num_rows == 0
        low, high = (min(lows), max(highs)) if is_told and lows else (None, None)
        return ColumnRange(low, high, nulls if counts_nulls else None)


def read_flat_files(
    path: str, drop: Container[str] = (), *, only_whole: bool = False, snapshot: str | None = None
) -> FlatFiles:
    """Finds the files of a path, and reads their footers.

    Args:
        path: a file, a folder or a pattern, here or in a store.
        drop: columns that nobody asks for, which may differ between files.
        only_whole: pass over files that have no footer yet, since they are being written.
        snapshot: of an Iceberg or Delta table; None for the newest.

    Raises:
        ConfigError: the store cannot be opened, or the library of a table is not installed.
        DataError: nothing is there, a file is no Parquet, or the columns of two files do not go together; the message
            names file and column.
    """
    place = resolve_path(path)
    if (of_table := snapshot_files(place, snapshot)) is not None:
        return flat_files_of(of_table, path, drop)
    found = find_files(place)
    kept = tuple(file for file in found if file.suffix in SUFFIXES)
    if not found:
        raise DataError(f"data.path={path}: no files there; the folder is empty")
    if not kept and len(found) == 1:
        kept = found  # one file may have any name
    if not kept:
        shown = PurePosixPath(found[0].name).name
        raise DataError(
            f"data.path={path}: none of its {len(found)} files is Parquet (such as {shown}); data.reader=direct reads "
            "Parquet only: make a table of other files with `recd etl`"
        )
    if len(kept) < len(found):
        other = next(file for file in found if file not in kept)
        logger.warning(
            "%s: %d files are no Parquet (such as %s) and are passed over",
            path, len(found) - len(kept), PurePosixPath(other.name).name,
        )  # fmt: skip
    refuse_files_of_tables(kept)
    if only_whole and not (kept := tuple(file for file in kept if has_footer(file))):
        raise DataError(f"data.path={path}: no file there is whole yet; a stream begins with at least one part")
    return flat_files_of(kept, path, drop)


def flat_files_of(found: Sequence[FoundFile], path: str, drop: Container[str] = ()) -> FlatFiles:
    """Reads the footers of files that were found.

    Args:
        found: the files, in the order in which they are read.
        path: what names them, for messages.
        drop: columns that may differ between files.

    Raises:
        DataError: as for :func:`read_flat_files`.
    """
    with ThreadPoolExecutor(_THREADS) as pool:
        footers = list(pool.map(_read_footer, found))
    schemas = [metadata.schema.to_arrow_schema() for metadata in footers]
    known = [
        (file.name, {f.name: arrow_type_name(f.type) for f in schema if f.name not in drop})
        for file, schema in zip(found, schemas, strict=True)
    ]
    types = _common(known)
    for schema in schemas:
        types |= {f.name: arrow_type_name(f.type) for f in schema if f.name in drop and f.name not in types}
    root = _root_of([file.name for file in found])
    files = []
    for file, metadata in zip(found, footers, strict=True):
        rows = tuple(metadata.row_group(n).num_rows for n in range(metadata.num_row_groups))
        folders = {k: _folder_value(v) for k, v in _FOLDER.findall(file.name) if k not in types}
        files.append(RawFile(file.name, file.num_bytes, file.version, rows, folders))
    if not any(file.num_rows for file in files):
        raise DataError(f"data.path={path}: {len(files)} files without a single row")
    types |= _folder_types(files)
    durations = {f.name: f.type.unit for schema in schemas[:1] for f in schema if pa.types.is_duration(f.type)}
    return FlatFiles(tuple(files), tuple(footers), types, durations, root)


def _common(known: Sequence[tuple[str, Mapping[str, str]]]) -> dict[str, str]:
    """The types of columns over all files; what has changed between files is named with what to type."""
    try:
        return common_types(known, "read_parquet")
    except DataError as error:
        text = str(error).partition(" Give `data.samples`")[0]
        raise DataError(
            f"{text} data.drop=[COLUMN] leaves a column out, data.path can name files of one form, and `recd etl` with "
            "a query brings them to one form"
        ) from error


def _folder_types(files: Sequence[RawFile]) -> dict[str, str]:
    """The types of columns that names of folders give: integers where all of them are, else texts."""
    names = {tuple(file.folders) for file in files}
    if len(names) > 1:
        every = sorted({name for of_file in names for name in of_file})
        raise DataError(
            f"{files[0].name} and others: not all folders have the same key=value names ({', '.join(every)}); name "
            "files of one kind in data.path"
        )
    types = {}
    for name in files[0].folders if files else ():
        texts = [text for file in files if (text := file.folders[name]) is not None]
        is_whole = bool(texts) and all(re.fullmatch(r"-?(0|[1-9]\d{0,17})", text) for text in texts)
        is_day = bool(texts) and all(re.fullmatch(r"\d{4}-\d{2}-\d{2}", text) for text in texts)
        types[name] = "BIGINT" if is_whole else "DATE" if is_day else "VARCHAR"
    return types


def _folder_value(text: str) -> str | None:
    """The value that a folder is named after, as DuckDB reads it for the ETL: %2F is a slash, null is none."""
    return None if text == NO_VALUE or text.lower() == "null" else unquote(text)


def has_footer(file: FoundFile) -> bool:
    """Whether a file ends as Parquet files do; an object in a store is there only when it is whole."""
    path = file.path
    if is_remote(path):
        return True
    try:
        with path.open("rb") as stream:
            stream.seek(-min(len(_MAGIC), file.num_bytes), 2)
            return stream.read() == _MAGIC
    except FileNotFoundError:
        return False


def _read_footer(file: FoundFile) -> pq.FileMetaData:
    try:
        with report_store_errors(file.path):
            return pq.read_metadata(arrow_input(file.path))
    except FileNotFoundError as error:
        raise DataError(f"{file.name}: gone while the files were looked at; start again") from error
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{file.name}: not a readable Parquet file ({first_line(error)}); is it still being written, or cut off?"
        ) from error


def _leaf_of(metadata: pq.FileMetaData, column: str) -> int | None:
    """The place of a column among those of the file, or of the elements of its lists."""
    for number in range(metadata.num_columns):
        path = metadata.schema.column(number).path
        if path == column or path.startswith((f"{column}.list.", f"{column}.bag.", f"{column}.array")):
            return number
    return None


def _root_of(names: Sequence[str]) -> str:
    """The folder that holds all files."""
    first, last = min(names), max(names)
    length = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    return first[: first[:length].rfind("/") + 1]
