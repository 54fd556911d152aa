"""Reads the raw rows of a unit, as they stand in their Parquet files.

A file is looked at when it is opened and after each read: one that was deleted, rewritten or cut off while a job reads
it is an error that names it, and what was read of it is not trained.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from recd_dist.errors import DataError
from recd_dist.reader.direct_table import CHANGED, Piece, RawFile, Unit
from recd_dist.reader.row_group_columns import Origin
from recd_dist.reader.row_group_file import check_rows
from recd_dist.table.flat_columns import as_lists, in_one_chunk, is_any_list
from recd_dist.table.location import arrow_input, first_line, report_store_errors

_MAX_OPEN_FILES = 64
_CUT_ROWS = 8192


@dataclass(frozen=True)
class UnitOrigin(Origin):
    """Where the rows of a unit come from, where they are not one whole row group.

    Attributes:
        rows: which rows they are, in words.
    """

    rows: str = ""

    def __str__(self) -> str:
        return f"{self.file}, row group {self.row_group}{self.rows}"


class _RowGroupCursor:
    """Where reading stands in a row group that is read in pieces, one after another."""

    def __init__(self, file: pq.ParquetFile, row_group: int, columns: Sequence[str]) -> None:
        self.place = 0
        self._rest: pa.Table | None = None
        self._batches: Iterator[pa.RecordBatch] = file.iter_batches(
            _CUT_ROWS, row_groups=[row_group], columns=list(columns), use_threads=False
        )

    def read(self, start: int, end: int) -> pa.Table:
        """The rows [start, end); what lies before them is passed over."""
        tables = []
        while self.place < end:
            if self._rest is None or not len(self._rest):
                self._rest = pa.Table.from_batches([next(self._batches)])
            skip = min(max(start - self.place, 0), len(self._rest))
            taken = self._rest.slice(skip, max(end - self.place - skip, 0))
            tables.append(taken)
            self._rest = self._rest.slice(skip + len(taken))
            self.place += skip + len(taken)
        return pa.concat_tables(tables)


class RawRows:
    """The raw files of a table, open for reading.

    Args:
        files: the files.
        columns: the raw columns to read.
        texts: those of them that are texts; they are decoded as dictionaries, so that each text is converted once.
    """

    def __init__(self, files: Sequence[RawFile], columns: Sequence[str], texts: Sequence[str] = ()) -> None:
        self.files, self._texts = files, frozenset(texts)
        self._columns = list(dict.fromkeys(columns))
        self._open_files: OrderedDict[int, pq.ParquetFile] = OrderedDict()
        self._cursor: tuple[tuple[int, int, tuple[str, ...]], _RowGroupCursor] | None = None
        self._close_also: Callable[[int], None] = lambda _: None

    def on_close(self, close: Callable[[int], None]) -> None:
        """What closes the file of a number wherever else it is open, when this closes it."""
        self._close_also = close

    def read(self, unit: Unit, columns: Collection[str] | None = None) -> pa.Table:
        """Reads a unit.

        Args:
            unit: rows of the files.
            columns: some of the raw columns; None for all.

        Returns:
            The raw columns, with those that names of folders give.

        Raises:
            DataError: a file is gone, was changed, is damaged or lacks a column.
        """
        names, origin = [c for c in self._columns if columns is None or c in columns], self.origin_of(unit)
        tables = [self._read_run(run, names, origin) for run in _runs_of(unit, self.files)]
        self.check(unit)
        return _join(tables)

    def check(self, unit: Unit) -> None:
        """Refuses files of a unit that are gone or were changed.

        Raises:
            DataError: the message names the first such file.
        """
        for number in dict.fromkeys(piece.file for piece in unit):
            self.files[number].check()

    def _read_run(self, run: Sequence[Piece], names: Sequence[str], origin: Origin) -> pa.Table:
        """Reads pieces of one file: whole row groups at once, or rows of one."""
        first = run[0]
        raw = self.files[first.file]
        file = self.open(first.file)
        there = [name for name in names if name not in raw.folders]
        try:
            with report_store_errors(raw.path):
                if _is_whole(first, self.files):
                    table = _read_row_groups(file, [piece.row_group for piece in run], there)
                else:
                    table = self._read_rows(file, first, there)
            check_rows(table, sum(piece.end - piece.start for piece in run))
        except FileNotFoundError as error:
            raise DataError(f"{raw.name}: gone while it was read; {CHANGED}") from error
        except (pa.ArrowException, OSError, StopIteration) as error:
            raw.check()
            raise DataError(
                f"{origin}: cannot be decoded ({first_line(error)}); it is damaged, or written in a way that pyarrow "
                "does not read: fetch the file again, or make a table of it with `recd etl`, which reads it by DuckDB"
            ) from error
        if missing := [name for name in there if name not in table.column_names]:
            raise DataError(f"{raw.name}: no column '{missing[0]}', which it had when this job opened it; {CHANGED}")
        for name in names:
            if name in raw.folders:
                table = table.append_column(name, pa.repeat(pa.scalar(raw.folders[name], pa.string()), len(table)))
        return table

    def _read_rows(self, file: pq.ParquetFile, piece: Piece, columns: Sequence[str]) -> pa.Table:
        """Some rows of a row group; decoding goes on where it stopped, or begins anew where they lie before that."""
        key = (piece.file, piece.row_group, tuple(columns))
        if self._cursor is None or self._cursor[0] != key or self._cursor[1].place > piece.start:
            self._cursor = (key, _RowGroupCursor(file, piece.row_group, columns))
        return self._cursor[1].read(piece.start, piece.end)

    def origin_of(self, unit: Unit) -> Origin:
        """Where the rows of a unit come from, for messages."""
        first, last = unit[0], unit[-1]
        raw = self.files[first.file]
        if len(unit) > 1:
            of = f" of {self.files[last.file].name}" if last.file != first.file else ""
            return UnitOrigin(raw.path, first.row_group, f" to {last.row_group}{of}, rows counted from its first")
        if first.end - first.start < raw.row_groups[first.row_group]:
            return UnitOrigin(raw.path, first.row_group, f", rows counted from its row {first.start:,}")
        return Origin(raw.path, first.row_group)

    def open(self, number: int) -> pq.ParquetFile:
        """Opens a file once; the least recently used is closed when too many are open."""
        if number in self._open_files:
            self._open_files.move_to_end(number)
            return self._open_files[number]
        raw = self.files[number]
        raw.check()
        try:
            with report_store_errors(raw.path):
                metadata = pq.read_metadata(source := arrow_input(raw.path))
                paths = [metadata.schema.column(n).path for n in range(metadata.num_columns)]
                # Of lists pyarrow cannot join dictionaries, and of texts that are stored as differences it makes none.
                texts = [path for n, path in enumerate(paths) if path in self._texts and not _is_delta(metadata, n)]
                file = pq.ParquetFile(source, metadata=metadata, read_dictionary=texts)
        except FileNotFoundError as error:
            raise DataError(f"{raw.name}: gone since this job has opened it; {CHANGED}") from error
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{raw.name}: not a readable Parquet file ({first_line(error)})") from error
        row_groups = tuple(file.metadata.row_group(i).num_rows for i in range(file.num_row_groups))
        if row_groups != raw.row_groups:
            raise DataError(f"{raw.name}: other row groups than when this job opened it: it was changed; {CHANGED}")
        if len(self._open_files) >= _MAX_OPEN_FILES:
            closed, oldest = self._open_files.popitem(last=False)
            oldest.close(force=True)
            self._close_also(closed)
        self._open_files[number] = file
        return file


def _is_delta(metadata: pq.FileMetaData, column: int) -> bool:
    """Whether a column is stored as differences of texts in some row group."""
    chunks = (metadata.row_group(i).column(column) for i in range(metadata.num_row_groups))
    return any(encoding.startswith("DELTA") for chunk in chunks for encoding in chunk.encodings)


def _join(tables: Sequence[pa.Table]) -> pa.Table:
    """One table of several; texts that are dictionaries in some of them only are texts."""
    if len(tables) == 1:
        return tables[0]
    plain = {field.name for table in tables for field in table.schema if not pa.types.is_dictionary(field.type)}
    kinds = {f.name: f.type.value_type for t in tables for f in t.schema if pa.types.is_dictionary(f.type)}
    texts = {name: kind for name, kind in kinds.items() if name in plain}
    joined = [t.cast(pa.schema([f.with_type(texts.get(f.name, f.type)) for f in t.schema])) for t in tables]
    return pa.concat_tables(joined, promote_options="permissive")


def _read_row_groups(file: pq.ParquetFile, row_groups: Sequence[int], columns: Sequence[str]) -> pa.Table:
    """Whole row groups; one by one where pyarrow cannot join them, that is, with dictionaries in lists."""
    kinds = [(field.name, field.type) for field in file.schema_arrow if field.name in columns]
    plain = {
        name: pa.list_(kind.value_type.value_type)
        for name, kind in kinds
        if is_any_list(kind) and pa.types.is_dictionary(kind.value_type)
    }
    if not plain:
        return file.read_row_groups(row_groups, columns=columns, use_threads=False)
    tables = []
    for row_group in row_groups:
        table = file.read_row_group(row_group, columns=columns, use_threads=False)
        for name, kind in plain.items():
            lists = as_lists(in_one_chunk(table[name])).cast(kind)
            table = table.set_column(table.schema.get_field_index(name), name, lists)
        tables.append(table)
    return pa.concat_tables(tables, promote_options="permissive")


def _runs_of(unit: Unit, files: Sequence[RawFile]) -> list[list[Piece]]:
    """The pieces of a unit: whole row groups of one file together, everything else by itself."""
    runs: list[list[Piece]] = []
    for piece in unit:
        before = runs[-1][-1] if runs else None
        if before is not None and before.file == piece.file and _is_whole(before, files) and _is_whole(piece, files):
            runs[-1].append(piece)
        else:
            runs.append([piece])
    return runs


def _is_whole(piece: Piece, files: Sequence[RawFile]) -> bool:
    """Whether a piece is a whole row group."""
    return piece.start == 0 and piece.end == files[piece.file].row_groups[piece.row_group]
