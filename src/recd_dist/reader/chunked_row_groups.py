"""Reads row groups of a table by ``column_chunks``, where all of their columns are as the ETL writes them.

What is not, for whatever reason, is not judged here: ``read`` returns nothing, and ``table_files`` reads it by pyarrow,
with a look at everything and an error that says what is wrong.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from recd_dist.errors import DataError
from recd_dist.reader import kernels
from recd_dist.reader.chunks.column_chunks import ChunkReader, DecodedChunks
from recd_dist.reader.row_group_columns import DecodedColumns, DecodedRowGroup, Origin, PlainColumn, place_windows
from recd_dist.reader.stages import measure
from recd_dist.table.column import Array, Column, Rows
from recd_dist.table.location import Location
from recd_dist.table.manifest import ROW, STREAM, FileEntry, Part, length_of, start_of
from recd_dist.table.schema import REQUEST_ID, SAMPLE, SAMPLE_ID, SESSION_ID, Feature, Kind, Schema

_KEYS = (SAMPLE_ID, SESSION_ID, REQUEST_ID)


class _Unusual(Exception):
    """A row group is not as this module reads it."""


class ChunkedRowGroups:
    """Row groups of a table, decoded without pyarrow's reader.

    Args:
        path: the directory of the table.
        open_file: opens and checks a file of it.
        features: for each group the features to read, as the table has them.
        schema: the same features, and the labels.
        may_miss: for each label whether it may be missing in some samples.
    """

    def __init__(
        self,
        path: Location,
        open_file: Callable[[FileEntry], pq.ParquetFile],
        features: Mapping[str, Sequence[Feature]],
        schema: Schema,
        may_miss: Sequence[bool],
    ) -> None:
        self._path, self._open_file, self._features = path, open_file, features
        self._groups, self._labels, self._may_miss = schema.dedup_groups, schema.labels, may_miss
        self._readers: dict[str, ChunkReader | None] = {}
        own = features.get(SAMPLE, ())
        self._of_samples = [*_KEYS, *self._labels, *(f"{g}_{ROW}" for g in self._groups), *_stored_names(own)]
        self._of_rows, self._of_streams = {}, {}
        for group in self._groups:
            windowed = [f for f in features[group] if f.window]
            names = [ROW, *_stored_names([f for f in features[group] if not f.window]), *([STREAM] if windowed else [])]
            names += [name for f in windowed for name in (start_of(f.name), length_of(f.name))]
            self._of_rows[group], self._of_streams[group] = names, [STREAM, *_stored_names(windowed)]

    def close(self, path: str) -> None:
        """Closes a file.

        Args:
            path: of the file in the table.
        """
        if reader := self._readers.pop(path, None):
            reader.close()

    def read(self, part: Part, index: int) -> DecodedRowGroup | None:
        """Reads one row group of the samples and of every group; None where something is not as usual.

        Args:
            part: a part of the table.
            index: place of the row group in it, counted from 0.

        Raises:
            DataError: a file is missing, cut off or replaced.
        """
        if not isinstance(self._path, Path):
            return None
        try:
            return self._read(part, index)
        except _Unusual:
            return None

    def _read(self, part: Part, index: int) -> DecodedRowGroup:
        samples = self._columns(part.samples, index, self._of_samples)
        origins = {SAMPLE: Origin(self._path / part.samples.path, index)}
        plain, others, row_of_sample, num_rows = dict[str, PlainColumn](), dict[str, Rows](), {}, {}
        for f in self._features.get(SAMPLE, ()):
            samples.place(f, plain, others)
        for group in self._groups:
            rows = self._columns(part.groups[group], index, self._of_rows[group])
            origins[group] = Origin(self._path / part.groups[group].path, index)
            windowed = [f for f in self._features[group] if f.window]
            for f in self._features[group]:
                if not f.window:
                    rows.place(f, plain, others)
            if windowed:
                others |= self._windows(part, group, index, rows, windowed)
            numbers = rows.key(ROW)
            row_of_sample[group] = _count(samples.key(f"{group}_{ROW}"), numbers)
            num_rows[group] = len(numbers)
        ids, sessions, requests = (samples.key(name) for name in _KEYS)
        labels, columns = self._read_labels(samples), DecodedColumns(plain, others)
        return DecodedRowGroup(ids, sessions, requests, labels, row_of_sample, num_rows, columns, origins)

    def _windows(
        self, part: Part, group: str, index: int, rows: "_Columns", features: Sequence[Feature]
    ) -> dict[str, Rows]:
        """The rows of features that are stored as windows."""
        if group not in part.streams:
            raise _Unusual
        streams = self._columns(part.streams[group], index, self._of_streams[group])
        stream_of_row = _count(rows.key(STREAM), streams.key(STREAM))
        origin = Origin(self._path / part.groups[group].path, index)
        found: dict[str, Rows] = {}
        for f in features:
            starts, lengths = (rows.numbers(name(f.name), np.int32) for name in (start_of, length_of))
            try:
                found[f.name] = place_windows(starts, lengths, stream_of_row, f, origin, streams.lists(f), origin)
            except DataError as error:  # the other way finds it again, and names the file of the streams
                raise _Unusual from error
        return found

    def _read_labels(self, samples: "_Columns") -> Array:
        """The labels, float32 [N, number of labels]; nan where one is missing and may be."""
        labels = np.empty((samples.chunks.num_rows, len(self._labels)), np.float32)
        for number, (name, may_miss) in enumerate(zip(self._labels, self._may_miss, strict=True)):
            labels[:, number] = samples.numbers(name, np.float32)
            if np.isinf(labels[:, number]).any() or (not may_miss and np.isnan(labels[:, number]).any()):
                raise _Unusual
        return labels

    def _columns(self, entry: FileEntry, index: int, names: Sequence[str]) -> "_Columns":
        """Some columns of a row group of a file."""
        file = self._open_file(entry)
        if entry.path not in self._readers:
            try:
                self._readers[entry.path] = ChunkReader(Path(str(self._path / entry.path)), file, names)
            except (ValueError, KeyError, OSError):
                self._readers[entry.path] = None
        reader = self._readers[entry.path]
        if reader is None:
            raise _Unusual
        try:
            with measure("io"):
                fetched = reader.fetch(index)
            with measure("decode"):
                return _Columns(reader.decode(index, *fetched), reader.numbers)
        except (ValueError, OSError) as error:
            raise _Unusual from error


class _Columns:
    """Columns of a row group of one file.

    Args:
        chunks: the decoded columns.
        numbers: for each column its number there.
    """

    def __init__(self, chunks: DecodedChunks, numbers: Mapping[str, int]) -> None:
        self.chunks, self._numbers = chunks, numbers

    def numbers(self, name: str, dtype: type[np.generic]) -> Array:
        """Single values, which must be of a type."""
        number = self._numbers[name]
        if self.chunks.types[number] != dtype or self.chunks.is_list[number]:
            raise _Unusual
        return self.chunks.array(number)

    def key(self, name: str) -> Array:
        """A key column, int64 [rows]."""
        return self.numbers(name, np.int64)

    def lists(self, feature: Feature) -> Column:
        """Lists of ids, with their weights where they are asked for."""
        values, offsets = self._lists_of(feature.name)
        if values.dtype == np.float32:
            raise _Unusual
        if feature.weights is None:
            return Column(values, offsets)
        weights, ends = self._lists_of(feature.weights)
        if weights.dtype != np.float32 or not np.array_equal(ends, offsets):
            raise _Unusual
        return Column(values, offsets, weights)

    def _lists_of(self, name: str) -> tuple[Array, Array]:
        """The values of lists, and their offsets."""
        number = self._numbers[name]
        if not self.chunks.is_list[number]:
            raise _Unusual
        return self.chunks.array(number), self.chunks.offsets_of(number)

    def place(self, feature: Feature, plain: dict[str, PlainColumn], others: dict[str, Rows]) -> None:
        """Puts the rows of a feature among those that stay where they are, or among the others."""
        number, chunks = self._numbers[feature.name], self.chunks
        dtype, is_list = chunks.types[number], chunks.is_list[number]
        if is_list != (feature.kind is Kind.ids) or (dtype == np.float32) != (feature.kind is Kind.dense):
            raise _Unusual
        if feature.weights is None and dtype.itemsize == 4:
            place = int(chunks.values[number]), int(chunks.offsets[number])
            plain[feature.name] = PlainColumn(*place, chunks.num_rows, partial(chunks.column, number), chunks.block)
        else:
            others[feature.name] = self.lists(feature) if is_list else chunks.column(number)


def _count(numbers: Array, stored: Array) -> Array:
    """Numbers that refer to rows, counted from the first row, int32 [N]."""
    first, size = (int(stored[0]), len(stored)) if len(stored) else (0, 0)
    local = np.empty(len(numbers), np.int32)
    are_there = kernels.count_from(numbers, first, size, local)
    if len(local) and (not are_there or stored[-1] - first != size - 1):
        raise _Unusual
    return local


def _stored_names(features: Sequence[Feature]) -> list[str]:
    """The columns of features that are no windows, with those of their weights."""
    return [name for f in features for name in (f.name, f.weights) if name is not None]
