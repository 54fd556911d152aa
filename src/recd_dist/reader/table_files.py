"""Reads the files of a clustered table and checks them against the manifest.

Only the columns that are needed are read. A file that is missing, cut off, replaced or damaged is an error that names
the file, the row group and the remedy.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from recd_dist.errors import ConfigError, DataError, nearest
from recd_dist.reader.chunked_row_groups import ChunkedRowGroups
from recd_dist.reader.order import RowGroup
from recd_dist.reader.row_group_columns import (
    DecodedColumns,
    DecodedRowGroup,
    Origin,
    PlainColumn,
    is_plain,
    join_chunks,
    read_column,
    read_windows,
)
from recd_dist.reader.row_group_file import RowGroupFile
from recd_dist.table.clustered import REMEDY, ClusteredTable
from recd_dist.table.column import Array, Rows
from recd_dist.table.location import file_size, first_line, report_store_errors
from recd_dist.table.manifest import ROW, STREAM, FileEntry, Manifest, Part, length_of, start_of
from recd_dist.table.schema import REQUEST_ID, SAMPLE, SAMPLE_ID, SESSION_ID, Feature, Schema

_MAX_OPEN_FILES = 64


@dataclass(frozen=True)
class _DecodedGroup:
    """One group of a row group in memory.

    Attributes:
        plain: features that can stay as they are.
        columns: the rows of each other feature.
        row_numbers: int64 [stored rows], the numbers that samples refer to.
        origin: where the rows come from.
    """

    plain: Mapping[str, PlainColumn]
    columns: Mapping[str, Rows]
    row_numbers: Array
    origin: Origin


class TableFiles:
    """The files of a table, open for reading.

    Args:
        table: one split.
        schema: the features to read: all of the manifest's, or fewer.

    Raises:
        ConfigError: a feature, label or weights that the table does not have.
    """

    def __init__(self, table: ClusteredTable, schema: Schema | None = None) -> None:
        self.table = table
        self.schema = schema or table.manifest.schema
        self._open_files: OrderedDict[str, RowGroupFile] = OrderedDict()
        self._columns: dict[str, list[str]] = {}  # of each file that was opened: pyarrow builds them at every look
        self._plain: dict[str, frozenset[str]] = {}  # of each file that was opened, the features that stay as they are
        _check_schema(self.schema, table.manifest)
        self._features = {group: self._stored_features(group) for group in self.schema.groups}
        stats = table.manifest.labels
        may_miss = [name in stats and stats[name].num_null > 0 for name in self.schema.labels]
        self._chunks = ChunkedRowGroups(table.path, self._open, self._features, self.schema, may_miss)

    def check_sizes(self) -> None:
        """Refuses a table of which a file that the schema needs is missing or cut off; reads no file.

        Raises:
            DataError: the message names the first such file.
        """
        entries = []
        for part in self.table.manifest.parts:
            groups = self.schema.dedup_groups
            streamed = [g for g in groups if any(f.window for f in self._features[g]) and g in part.streams]
            entries += [part.samples, *(part.groups[g] for g in groups), *(part.streams[g] for g in streamed)]
        self.table.check_sizes(entries)

    def read(self, row_group: RowGroup) -> DecodedRowGroup:
        """Reads one row group of the samples and of every group that the schema needs.

        Raises:
            DataError: damaged files, missing columns, changed types, labels that are not numbers.
        """
        part = self.table.manifest.parts[row_group.part]
        if (quickly := self._chunks.read(part, row_group.index)) is not None:
            return quickly
        keys = [SAMPLE_ID, SESSION_ID, REQUEST_ID]
        references = {group: f"{group}_{ROW}" for group in self.schema.dedup_groups}
        own = self._features[SAMPLE]
        names = [*keys, *self.schema.labels, *references.values(), *_column_names(own)]
        samples, origin = self.read_columns(part.samples, row_group.index, names)
        plain, columns = self._keep_plain(part.samples, samples, own, origin)
        origins = {SAMPLE: origin}
        row_of_sample, num_rows = {}, {}
        for group, reference in references.items():
            stored = self._read_group(part, group, row_group.index)
            plain |= stored.plain
            columns |= stored.columns
            origins[group] = stored.origin
            numbers = read_key(samples, reference, origin)
            row_of_sample[group] = count_from_first(numbers, stored.row_numbers, reference, "group", origin)
            num_rows[group] = len(stored.row_numbers)
        ids, sessions, requests = (read_key(samples, key, origin) for key in keys)
        labels = self._read_labels(samples, origin)
        decoded = DecodedColumns.of(plain, columns)
        return DecodedRowGroup(ids, sessions, requests, labels, row_of_sample, num_rows, decoded, origins)

    def read_columns(self, entry: FileEntry, index: int, names: Sequence[str]) -> tuple[pa.Table, Origin]:
        """Reads some columns of a row group as they are stored.

        Args:
            entry: one of the table's files.
            index: place of the row group in it, counted from 0.
            names: the columns.

        Returns:
            The columns, and where they come from, for messages.

        Raises:
            DataError: a column is missing, or the file is damaged or gone.
        """
        origin = Origin(self.table.path / entry.path, index)
        file = self._open(entry)
        there = self._columns[entry.path]
        absent = [name for name in names if name not in there]
        if absent:
            raise DataError(f"{origin.file}: no column '{absent[0]}'{nearest(absent[0], there)}; {REMEDY}")
        try:
            with report_store_errors(origin.file):
                table = file.read(index, names)
        except FileNotFoundError as error:  # of a store: on a local disk an open file stays
            raise DataError(f"{origin.file}: gone; the table was replaced while it was read, start again") from error
        except (pa.ArrowException, OSError, ValueError) as error:
            raise DataError(f"{origin}: cannot be decoded ({first_line(error)}); {REMEDY}") from error
        return table, origin

    def _read_group(self, part: Part, group: str, index: int) -> _DecodedGroup:
        """Reads a row group of one group; its streams are opened only for features that are stored as windows."""
        features = self._features[group]
        plain, windowed = ([f for f in features if f.window is window] for window in (False, True))
        names = [ROW, *_column_names(plain), *([STREAM] if windowed else [])]
        names += [name for f in windowed for name in (start_of(f.name), length_of(f.name))]
        stored, origin = self.read_columns(part.groups[group], index, names)
        arrays, columns = self._keep_plain(part.groups[group], stored, plain, origin)
        if windowed:
            if group not in part.streams:
                raise DataError(f"{self.table.path}: the manifest names no streams of group '{group}'; {REMEDY}")
            streams, stream_origin = self.read_columns(part.streams[group], index, [STREAM, *_column_names(windowed)])
            numbers = read_key(stored, STREAM, origin), read_key(streams, STREAM, stream_origin)
            stream_of_row = count_from_first(*numbers, STREAM, STREAM, origin)
            for f in windowed:
                lists = read_column(streams, f, stream_origin)
                columns[f.name] = read_windows(stored, stream_of_row, f, origin, lists, stream_origin)
        return _DecodedGroup(arrays, columns, read_key(stored, ROW, origin), origin)

    def _keep_plain(
        self, entry: FileEntry, table: pa.Table, features: Sequence[Feature], origin: Origin
    ) -> tuple[dict[str, PlainColumn], dict[str, Rows]]:
        """The features that can stay as they are, and the rows of the others."""
        names = self._plain[entry.path]
        batches = table.to_batches()
        arrays = dict(zip(table.column_names, batches[0].columns, strict=True)) if len(batches) == 1 else {}
        plain = {f.name: PlainColumn.of_arrow(arrays[f.name]) for f in features if f.name in arrays and f.name in names}
        return plain, {f.name: read_column(table, f, origin) for f in features if f.name not in plain}

    def _read_labels(self, samples: pa.Table, origin: Origin) -> Array:
        """The labels, float32 [N, number of labels]; nan where one is missing, which the manifest must know of."""
        names, stats = self.schema.labels, self.table.manifest.labels
        labels = np.empty((samples.num_rows, len(names)), np.float32)
        for number, name in enumerate(names):
            column = samples.column(name)
            if not pa.types.is_floating(column.type):
                raise DataError(f"{origin}: label '{name}' is {column.type}, wanted float32; {REMEDY}")
            labels[:, number] = join_chunks(column, name, origin).to_numpy()
            may_miss = name in stats and stats[name].num_null > 0
            bad = np.isinf(labels[:, number]) if may_miss else ~np.isfinite(labels[:, number])
            if bad.any():
                row = int(bad.argmax())
                raise DataError(
                    f"{origin}, row {row}: label '{name}' is {labels[row, number]}; leave such samples out in the "
                    "samples query (where ... is not null) and make the table again"
                )
        return labels

    def _stored_features(self, group: str) -> tuple[Feature, ...]:
        """The features to read of a group, as the table has them; weights only where they are asked for."""
        stored = self.table.manifest.schema
        return tuple(replace(stored[f.name], weights=f.weights) for f in self.schema.of_group(group))

    def _open(self, entry: FileEntry) -> RowGroupFile:
        """Opens a file once; the least recently used is closed when too many are open."""
        if entry.path in self._open_files:
            self._open_files.move_to_end(entry.path)
            return self._open_files[entry.path]
        path = self.table.path / entry.path
        self.table.check_size(entry, file_size(path))
        try:
            with report_store_errors(path):
                opened = RowGroupFile(path)
                fields = {field.name: field for field in opened.parquet.schema_arrow}
        except (pa.ArrowException, OSError, ValueError) as error:  # ValueError: a name that is no text
            raise DataError(f"{path}: not a readable Parquet file ({first_line(error)}); {REMEDY}") from error
        file = opened.parquet
        row_groups = tuple(file.metadata.row_group(i).num_rows for i in range(file.num_row_groups))
        if row_groups != entry.row_groups:
            raise DataError(
                f"{path}: {len(row_groups)} row groups with {sum(row_groups)} rows, the manifest says "
                f"{len(entry.row_groups)} with {sum(entry.row_groups)}; the file was replaced, {REMEDY}"
            )
        if len(self._open_files) >= _MAX_OPEN_FILES:
            self._open_files.popitem(last=False)[1].close()
        self._open_files[entry.path] = opened
        stored = [feature for features in self._features.values() for feature in features]
        self._columns[entry.path] = list(fields)
        self._plain[entry.path] = frozenset(f.name for f in stored if f.name in fields and is_plain(f, fields[f.name]))
        return opened


def _check_schema(schema: Schema, manifest: Manifest) -> None:
    """Refuses features and labels to read that the table does not have as they are asked for."""
    there, name = {f.name: f for f in manifest.schema.features}, f"{manifest.name}/{manifest.split}"
    for f in schema.features:
        if f.name not in there:
            raise ConfigError(f"feature '{f.name}': table {name} has none{nearest(f.name, there)}")
        stored = there[f.name]
        if (f.kind, f.group) != (stored.kind, stored.group):
            raise ConfigError(
                f"feature '{f.name}': {f.kind} in group '{f.group}' asked for, table {name} has {stored.kind} in "
                f"group '{stored.group}'; {REMEDY}"
            )
        if f.weights not in (None, stored.weights):
            weights = f"'{stored.weights}'" if stored.weights else "none"
            raise ConfigError(
                f"feature '{f.name}': weights '{f.weights}' asked for, table {name} has {weights}; name them in the "
                f"data config (features.{f.name}.weights) and {REMEDY}"
            )
    for label in schema.labels:
        if label not in manifest.schema.labels:
            raise ConfigError(f"label '{label}': table {name} has none{nearest(label, manifest.schema.labels)}")


def read_key(table: pa.Table, name: str, origin: Origin) -> Array:
    """A key column, int64 [rows].

    Args:
        table: a row group, as it is stored.
        name: name of the column.
        origin: where the table comes from, for messages.

    Raises:
        DataError: it holds something else.
    """
    column = table.column(name)
    if column.type != pa.int64():
        raise DataError(f"{origin}: key column '{name}' is {column.type}, wanted int64; {REMEDY}")
    return join_chunks(column, name, origin).to_numpy()


def count_from_first(numbers: Array, stored: Array, column: str, kind: str, origin: Origin) -> Array:
    """Numbers that refer to rows of a row group, counted from its first row.

    Args:
        numbers: int64 [N], row numbers in the whole table.
        stored: int64 [rows], the numbers of the rows that the row group holds, one after the other.
        column: the column that holds the numbers, for messages.
        kind: ``group`` or ``stream``, what is referred to, for messages.
        origin: where the numbers come from, for messages.

    Returns:
        int32 [N], in [0, rows).

    Raises:
        DataError: a number of another row group.
    """
    first, size = (int(stored[0]), len(stored)) if len(stored) else (0, 0)
    local = numbers - first
    if len(local) and (not size or local.min() < 0 or local.max() >= size or stored[-1] - first != size - 1):
        raise DataError(
            f"{origin}: '{column}' goes from {numbers.min()} to {numbers.max()}, the {kind}'s row group holds {size} "
            f"rows from {first}; the files do not belong together, {REMEDY}"
        )
    return local.astype(np.int32)


def _column_names(features: Sequence[Feature]) -> list[str]:
    """The columns of some features that are stored as they are, with those of their weights."""
    return [name for f in features for name in (f.name, f.weights) if name is not None]
