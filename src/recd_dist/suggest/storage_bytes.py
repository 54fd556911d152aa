"""Bytes of columns on disk, measured by writing the sample.

The table's own writer writes the columns; their bytes are scaled from the sample to the source.
The base line is the flat table in order of time, zstd-3, with the best encoding per column. Where only some sessions
were read, it is measured on pieces of the log without gaps: in the sample, equal values are nearer together.
"""

import tempfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recd_dist.etl.source.inspection import REQUEST, SESSION, TIMESTAMP
from recd_dist.etl.write.column_encodings import choose_encodings
from recd_dist.etl.write.history_windows import build_streams
from recd_dist.etl.write.part_files import PartWriter, required_table
from recd_dist.etl.write.stored_types import WEIGHTS, convert_column
from recd_dist.suggest.features import SampledFeature
from recd_dist.suggest.sample_columns import Flags, SampleColumns, as_column
from recd_dist.table.column import Column
from recd_dist.table.flat_columns import to_arrow
from recd_dist.table.manifest import ROW, STREAM, length_of, start_of
from recd_dist.table.schema import REQUEST_ID, SAMPLE_ID, SESSION_ID
from recd_dist.table.schema import TIMESTAMP as TIMESTAMP_COLUMN

_CHUNK_BYTES = 105  # footer of one column of one row group, measured
_ENCODED_BYTES = 24 << 20  # of one column: beyond that, row groups are chosen at even distances
_FLAT = "zstd"  # level 3: compression of the flat table, whatever ours is written in
_KEYS = {SESSION: SESSION_ID, REQUEST: REQUEST_ID, TIMESTAMP: TIMESTAMP_COLUMN}

Span = tuple[int, int]
"""The first of some samples, and the one after the last."""


class StorageBytes:
    """Measures bytes of columns on disk by writing them; what was measured once is remembered.

    Args:
        columns: the columns of the sample.
        features: every feature.
        labels: the labels of the source.
        compression: ``zstd`` or ``lz4``.
        readable_by: the engines that can read the table, ``newest`` or ``any``.
        after_column: called after each column, for a progress bar.
    """

    def __init__(
        self,
        columns: SampleColumns,
        features: Sequence[SampledFeature],
        labels: tuple[str, ...],
        compression: str,
        readable_by: str,
        after_column: Callable[[], None] = lambda: None,
    ) -> None:
        self._columns = columns
        self._sample = columns.sample
        self._features = {feature.name: feature for feature in features}
        self._labels = labels
        self._compression = compression
        self._readable_by = readable_by
        self._after_column = after_column
        self._known: dict[tuple[str, int], float] = {}
        self._by_time = np.argsort(self._sample.time_rank)

    def row_bytes(self, name: str, flags: Flags) -> float:
        """Bytes of a feature's stored rows in the whole table.

        Args:
            name: the feature.
            flags: bool [N], whether a stored row begins with a sample.
        """
        key = (name, _hash(flags))
        if key not in self._known:
            spans = self._pick_row_groups(name, flags)
            rows = (self._stored_columns(name, s, e, flags) for s, e in spans)
            self._known[key] = self._scale(self._write(rows), flags, spans)
            self._after_column()
        return self._known[key]

    def window_bytes(self, name: str, flags: Flags) -> float:
        """Bytes of a history in the whole table, as streams of ids with a start and a length for each row.

        Args:
            name: the feature.
            flags: bool [N], whether a stored row begins with a sample.
        """
        key = (f"{name}/window", _hash(flags))
        if key not in self._known:
            spans = self._pick_row_groups(name, flags)
            num_bytes = 0.0
            for file in range(2):  # the stream and its windows are files of different length
                num_bytes += self._write(self._cut_windows(name, flags, s, e)[file] for s, e in spans)
            self._known[key] = self._scale(num_bytes, flags, spans)
            self._after_column()
        return self._known[key]

    def _stored_columns(self, name: str, start: int, end: int, flags: Flags) -> pa.Table:
        """The stored rows of some samples: the feature, and its weights where it has some."""
        columns = {name: self._columns.stored_rows(name, start, end, flags)}
        weights = self._columns.features[name].weights
        if weights is not None:
            columns[weights] = self._columns.stored_weights(name, start, end, flags).cast(WEIGHTS)
        return required_table(columns, columns.values())

    def _cut_windows(self, name: str, flags: Flags, start: int, end: int) -> tuple[pa.Table, pa.Table]:
        """The streams of some samples' lists, and the stream, start and length of each list."""
        rows = as_column(self._columns.stored_rows(name, start, end, flags))
        streams = build_streams({name: rows}, np.array([0, len(rows)]))
        lists: Column = streams.lists[name]
        stored = to_arrow(lists, self._columns.stored_type(name), WEIGHTS)[0]
        windows = {
            STREAM: pa.array(streams.stream),
            start_of(name): pa.array(streams.starts[name]),
            length_of(name): pa.array(rows.lengths.astype(np.int32)),
        }
        return required_table([name], [stored]), required_table(windows, windows.values())

    def row_number_bytes(self, flags: Flags) -> float:
        """Bytes of a group's row numbers in the whole table: one for each stored row, and one for each sample.

        Args:
            flags: bool [N], whether a stored row begins with a sample.
        """
        key = ("row", _hash(flags))
        if key not in self._known:
            row = pa.array(np.cumsum(flags) - 1)
            per_sample = (required_table([ROW], [row.slice(s, e - s)]) for s, e in self._columns.row_groups())
            stored = row.filter(pa.array(flags))
            bounds = self._columns.row_bounds(flags).tolist()
            per_row = (required_table([ROW], [stored.slice(s, e - s)]) for s, e in pairwise(bounds))
            self._known[key] = self._scale(self._write(per_sample) + self._write(per_row))
        return self._known[key]

    def key_bytes(self, clustered: bool) -> float:
        """Bytes of keys and labels: of the table in clustered order, or of the flat table in order of time."""
        key = ("keys", int(clustered))
        if key not in self._known:
            tables = [self._key_columns(clustered, s, e) for s, e in self._columns.row_groups()]
            self._known[key] = self._scale(self._write(tables, None if clustered else _FLAT))
        return self._known[key]

    def _key_columns(self, clustered: bool, start: int, end: int) -> pa.Table:
        """Keys and labels of some samples, in clustered order or in order of time."""
        names = [name for name in _KEYS if name in self._sample.samples.column_names]
        order = np.arange(start, end) if clustered else self._by_time[start:end]
        rows = self._sample.samples.select([*names, *self._labels]).take(pa.array(order))
        columns = {_KEYS[name]: rows[name].combine_chunks().fill_null(0) for name in names}
        if clustered:  # the table has all keys, also those that the source lacks
            columns.setdefault(REQUEST_ID, columns[SESSION_ID])
            columns.setdefault(TIMESTAMP_COLUMN, pa.array(np.zeros(end - start, np.int64)))
            columns[SAMPLE_ID] = pa.array(np.arange(start, end))
        columns |= {label: rows[label].combine_chunks().fill_null(0).cast(pa.float32()) for label in self._labels}
        return required_table(columns.keys(), columns.values())

    def flat_bytes(self, name: str) -> float:
        """Bytes of a feature in the flat table, in order of time."""
        key = ("flat", zlib.crc32(name.encode()))
        if key not in self._known:
            feature, sample = self._features[name], self._sample
            num_samples = sample.num_samples if sample.log is None else sample.log.num_rows
            num_bytes = int(feature.num_values() * feature.width * num_samples / sample.num_samples)
            size = self._sample.rules.options.row_group_samples
            bounds = [*range(0, max(num_samples - size // 2, 1), size), num_samples]
            spans = _spread_evenly(list(pairwise(bounds)), num_bytes)
            written = self._write((required_table([name], [self._flat_rows(name, s, e)]) for s, e in spans), _FLAT)
            self._known[key] = written * sample.num_total / sum(e - s for s, e in spans)
            self._after_column()
        return self._known[key]

    def _flat_rows(self, name: str, start: int, end: int) -> pa.Array:
        """A feature of some samples in order of time: of the log's pieces, or of all samples where there are none."""
        sample, columns = self._sample, self._columns
        origin = columns.origin[name]
        if origin is not None:
            rows = sample.row_of[origin][self._by_time] if sample.log is None else sample.log_row_of[origin]
            return columns.linked_rows(name, rows[start:end])
        if sample.log is None:
            return columns.column(name).take(pa.array(self._by_time[start:end]))
        return self._log_rows(name, sample.log[name].slice(start, end - start))

    def _log_rows(self, name: str, column: pa.ChunkedArray) -> pa.Array:
        """Values of the log as stored. Ids that the sample lacks may need int64."""
        feature, stored = self._columns.features[name], self._columns.stored_type(name)
        wide = pa.int64() if feature.is_sparse else stored
        if pa.types.is_list(stored):
            wide = pa.list_(pa.field("element", pa.int64(), nullable=False))
        if column.null_count and not pa.types.is_list(wide):
            column = column.combine_chunks().fill_null(0)
        array, _ = convert_column(column, feature.kind, wide)
        try:
            return array.cast(stored)
        except pa.ArrowInvalid:
            return array

    def _pick_row_groups(self, name: str, flags: Flags) -> list[Span]:
        """The row groups that are written to measure a feature."""
        feature = self._features[name]
        return _spread_evenly(list(self._columns.row_groups()), feature.num_values(flags) * feature.width)

    def _scale(self, num_bytes: float, flags: Flags | None = None, spans: Sequence[Span] = ()) -> float:
        """Scales bytes from the rows that were written to all rows of the sample, and from the sample to the source."""
        if flags is not None:
            num_written = int(sum(flags[start:end].sum() for start, end in spans))
            num_bytes = num_bytes * int(flags.sum()) / max(num_written, 1)
        return num_bytes * self._sample.num_total / self._sample.num_samples

    def _write(self, row_groups: Iterable[pa.Table], compression: str | None = None) -> float:
        """Writes columns as the row groups of a file; returns their bytes, with their share of the file's footer."""
        with tempfile.TemporaryDirectory(prefix="recd-suggest-") as directory:
            tables = list(row_groups)
            bounds = np.cumsum([0, *(rows.num_rows for rows in tables)])
            table = pa.concat_tables(tables).combine_chunks()
            encodings = {}
            if compression is None:
                size = int(np.median(np.diff(bounds)))
                encodings["samples"] = choose_encodings(table, size, self._compression, self._readable_by)
            writer = PartWriter(Path(directory), 0, compression or self._compression, encodings)
            writer.write("samples", table, bounds)
            part = writer.close()
            metadata = pq.read_metadata(Path(directory) / part.samples.path)
        groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
        sizes = [group.column(j).total_compressed_size for group in groups for j in range(metadata.num_columns)]
        return float(sum(sizes) + _CHUNK_BYTES * len(sizes))


def _hash(flags: Flags) -> int:
    return zlib.crc32(np.packbits(flags).tobytes())


def _spread_evenly(spans: list[Span], num_bytes: int) -> list[Span]:
    """All row groups, or some at even distances that together have about ``_ENCODED_BYTES``.

    Args:
        spans: all row groups.
        num_bytes: bytes of the column in all of them.
    """
    num = max(1, min(len(spans), round(len(spans) * _ENCODED_BYTES / max(num_bytes, 1))))
    indices = np.linspace(0, len(spans) - 1, num).round().astype(int) if num > 1 else [len(spans) // 2]
    return [spans[i] for i in dict.fromkeys(int(index) for index in indices)]
