"""The work of each sample of a shuffle window, from the lengths of its lists alone.

Of the table are read: sessions, the numbers of the rows that samples have, and the lengths of lists. Of a list that is
stored as windows over a stream that is one small column; of another one the list itself, since Parquet keeps lengths
and values together. Nothing stays in memory but the last few shuffle windows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recd_dist.reader.order import TIME, RowGroup, Shuffle, ShuffleWindow, order_in_time, sample_order, shuffle_windows
from recd_dist.reader.row_group_columns import Origin, join_chunks
from recd_dist.reader.table_files import TableFiles, count_from_first, read_key
from recd_dist.reader.time_slices import order_of, times_of
from recd_dist.reader.work import CountedList, Work
from recd_dist.table.clustered import ClusteredTable
from recd_dist.table.column import Array
from recd_dist.table.manifest import ROW, FileEntry, length_of
from recd_dist.table.schema import SAMPLE, SESSION_ID, Kind, Schema

KEPT = 32
"""Shuffle windows whose work stays in memory: an epoch of fewer is read once, not twice. At 65,536 samples a shuffle
window they take 50 MB."""


@dataclass(frozen=True)
class SampleWork:
    """The work of a shuffle window's samples, in the order of the epoch.

    Attributes:
        before: float64 [N + 1], the work of all samples before a sample; that of all at the end.
        repeated: float64 [N + 1], what a sample's rows cost once more if a batch begins with it: 0 where rows begin.
        sessions: int64, where sessions begin, and N at the end.
    """

    before: Array
    repeated: Array
    sessions: Array


class WorkReader:
    """Tells the work of samples.

    Args:
        table: one split, perhaps some of its partitions only.
        schema: the features that are trained; lists of groups that are trained expanded cost each sample.
        lists: the lists that count, and features of one id each.
        work: what they cost.
        shuffle: how epochs are ordered.
    """

    def __init__(
        self, table: ClusteredTable, schema: Schema, lists: Sequence[CountedList], work: Work, shuffle: Shuffle
    ) -> None:
        self._files, self._schema, self._lists = TableFiles(table), schema, tuple(lists)
        self.work, self._shuffle = work, order_of(table, shuffle)
        self.read = lru_cache(KEPT)(self._read)

    def shuffle_windows(self, epoch: int) -> tuple[ShuffleWindow, ...]:
        """The shuffle windows of an epoch, in its order."""
        return shuffle_windows(self._files.table.manifest, self._shuffle, epoch)

    def _read(self, epoch: int, shuffle_window: ShuffleWindow) -> SampleWork:
        """Reads the work of a shuffle window's samples.

        Args:
            epoch: counted from 0.
            shuffle_window: what to read.

        Raises:
            DataError: damaged files.
        """
        row_groups = [self._read_row_group(row_group) for row_group in shuffle_window.row_groups]
        _, work, repeated, begins = (np.concatenate(columns) for columns in zip(*row_groups, strict=True))
        ids = [row_group[0] for row_group in row_groups]
        if self._shuffle.order == TIME:
            order = order_in_time([times_of(self._files, g) for g in shuffle_window.row_groups], shuffle_window)
            begins = np.ones(len(begins), bool)  # sessions lie apart: each sample is by itself
        else:
            order = sample_order(ids, self._shuffle, epoch, shuffle_window.number)
        return SampleWork(
            before=np.concatenate([[0.0], np.cumsum(work[order])]),
            repeated=np.append(repeated[order], 0.0),
            sessions=np.append(np.flatnonzero(begins[order]), len(order)),
        )

    def _read_row_group(self, row_group: RowGroup) -> tuple[Array, Array, Array, Array]:
        """The samples of a row group, in the table's order.

        Returns:
            For each sample its session, its work, what its rows cost once more where a batch begins with it, and
            whether its session begins with it.
        """
        schema, part = self._schema, self._files.table.manifest.parts[row_group.part]
        by_group: dict[str, list[CountedList]] = {}
        for counted in self._lists:
            by_group.setdefault(schema[counted.name].home, []).append(counted)
        own = by_group.pop(SAMPLE, [])
        names = [SESSION_ID, *(f"{group}_{ROW}" for group in by_group), *self._length_columns(own)]
        samples, origin = self._files.read_columns(part.samples, row_group.index, names)
        sessions = read_key(samples, SESSION_ID, origin)
        begins = np.append(True, sessions[1:] != sessions[:-1])[: len(sessions)]
        work, repeated = np.full(len(sessions), float(self.work.sample)), np.zeros(len(sessions))
        for counted in own:
            lengths = self._lengths(samples, counted, origin)
            work += self.work.of_rows(lengths, counted.is_history) + self.work.of_looks(lengths, counted.is_history)
        for group, lists in by_group.items():
            once, each, numbers = self._read_rows(part.groups[group], row_group.index, lists)
            column = f"{group}_{ROW}"
            rows = count_from_first(read_key(samples, column, origin), numbers, column, "group", origin)
            # In order of time sessions lie apart: which samples of a batch share rows is not known beforehand.
            is_expanded = schema[lists[0].name].group == SAMPLE or self._shuffle.order == TIME
            is_first = is_expanded | begins | np.append(True, rows[1:] != rows[:-1])[: len(rows)]
            work += each[rows] + np.where(is_first, once[rows], 0.0)
            repeated += np.where(is_first, 0.0, once[rows])
        return sessions, work, repeated, begins

    def _read_rows(self, entry: FileEntry, index: int, lists: Sequence[CountedList]) -> tuple[Array, Array, Array]:
        """What each row of a group costs once, and each sample that has it; and the rows' numbers."""
        rows, origin = self._files.read_columns(entry, index, [ROW, *self._length_columns(lists)])
        once, each = np.zeros(len(rows)), np.zeros(len(rows))
        for counted in lists:
            lengths = self._lengths(rows, counted, origin)
            once += self.work.of_rows(lengths, counted.is_history)
            each += self.work.of_looks(lengths, counted.is_history)
        return once, each, read_key(rows, ROW, origin)

    def _length_column(self, counted: CountedList) -> str:
        """The column that tells the lengths of a list."""
        is_window = self._files.table.manifest.schema[counted.name].window
        return length_of(counted.name) if is_window else counted.name

    def _length_columns(self, lists: Sequence[CountedList]) -> list[str]:
        """The columns that tell the lengths of some lists; none for features that hold one id each."""
        return [self._length_column(c) for c in lists if self._schema[c.name].kind is Kind.ids]

    def _lengths(self, table: pa.Table, counted: CountedList, origin: Origin) -> Array:
        """The ids that count of a list, in each row."""
        if self._schema[counted.name].kind is Kind.id:
            return np.ones(len(table), np.int32)
        name = self._length_column(counted)
        column = join_chunks(table.column(name), name, origin)
        lengths = column if name != counted.name else pc.list_value_length(column)
        return counted.count(lengths.to_numpy(zero_copy_only=False))
