"""One row group of a clustered table: read with only the columns needed, checked against manifest and schema.

A file that is missing, truncated, replaced or damaged is an error that names the file, the row group and the remedy.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recd_dist.errors import ConfigError, DataError, nearest
from recd_dist.reader.order import RowGroup
from recd_dist.reader.row_group_columns import Place, column, no_nulls, windowed
from recd_dist.table.clustered import REMEDY, ClusteredTable
from recd_dist.table.column import Array, Column
from recd_dist.table.location import file_size, reaching, readable
from recd_dist.table.manifest import STREAM, FileEntry, Manifest, Part, length_of, start_of
from recd_dist.table.schema import REQUEST_ID, SAMPLE, SAMPLE_ID, SESSION_ID, Feature, Schema

_MAX_OPEN_FILES = 64


@dataclass(frozen=True)
class Rows:
    """A decoded row group.

    Attributes:
        sample_ids, session_ids, request_ids: int64 [N].
        labels: float32 [N, number of labels].
        rows: per deduplicated group the stored row of each sample, int32 [N] in [0, num_rows).
        num_rows: per deduplicated group its stored rows.
        columns: per feature; ``sample`` features have a row per sample.
        places: per group where its rows come from.
    """

    sample_ids: Array
    session_ids: Array
    request_ids: Array
    labels: Array
    rows: Mapping[str, Array]
    num_rows: Mapping[str, int]
    columns: Mapping[str, Column]
    places: Mapping[str, Place]


@dataclass(frozen=True)
class _GroupRows:
    """A group's columns, its row numbers, and where they stand."""

    columns: Mapping[str, Column]
    rows: Array
    place: Place


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
        self._open: OrderedDict[str, pq.ParquetFile] = OrderedDict()
        _check_schema(self.schema, table.manifest)

    def check_sizes(self) -> None:
        """Refuses a table of which a file that the schema needs is missing or cut off; reads no file.

        Raises:
            DataError: names the first such file.
        """
        entries = []
        for part in self.table.manifest.parts:
            groups = self.schema.dedup_groups
            streamed = [g for g in groups if any(f.window for f in self._stored(g)) and g in part.streams]
            entries += [part.samples, *(part.groups[g] for g in groups), *(part.streams[g] for g in streamed)]
        self.table.check_sizes(entries)

    def read(self, row_group: RowGroup) -> Rows:
        """One row group of the samples and of every group that the schema needs.

        Raises:
            DataError: damaged files, missing columns, changed types, labels that are not numbers.
        """
        part = self.table.manifest.parts[row_group.part]
        groups = self.schema.dedup_groups
        keys = [SAMPLE_ID, SESSION_ID, REQUEST_ID]
        wanted = [*keys, *self.schema.labels, *(f"{g}_row" for g in groups)]
        own = self._stored(SAMPLE)
        samples, place = self._table(part.samples, row_group.index, [*wanted, *_names(own)])
        columns, places = {f.name: column(samples, f, place) for f in own}, {SAMPLE: place}
        rows, num_rows = {}, {}
        for group in groups:
            read = self._group(part, group, row_group.index)
            columns |= read.columns
            places[group] = read.place
            rows[group] = _local_rows(_keys(samples, f"{group}_row", place), read.rows, group, place)
            num_rows[group] = len(read.rows)
        ids, sessions, requests = (_keys(samples, key, place) for key in keys)
        labels = _labels(samples, self.schema.labels, place)
        return Rows(ids, sessions, requests, labels, rows, num_rows, columns, places)

    def _group(self, part: Part, group: str, index: int) -> "_GroupRows":
        """A row group of one group; its streams are opened only for features that are stored as windows."""
        features = self._stored(group)
        plain, windows = ([f for f in features if f.window is window] for window in (False, True))
        names = ["row", *_names(plain), *([STREAM] if windows else [])]
        names += [name for f in windows for name in (start_of(f.name), length_of(f.name))]
        stored, place = self._table(part.groups[group], index, names)
        columns = {f.name: column(stored, f, place) for f in plain}
        if windows:
            if group not in part.streams:
                raise DataError(f"{self.table.path}: the manifest names no streams of group '{group}'; {REMEDY}")
            streams, at = self._table(part.streams[group], index, [STREAM, *_names(windows)])
            rows = _local_rows(_keys(stored, STREAM, place), _keys(streams, STREAM, at), group, place, STREAM)
            columns |= {f.name: windowed(stored, rows, f, place, column(streams, f, at), at) for f in windows}
        return _GroupRows(columns, _keys(stored, "row", place), place)

    def _stored(self, group: str) -> tuple[Feature, ...]:
        """The features to read of a group, as the table has them; weights only where they are asked for."""
        return tuple(
            replace(self.table.manifest.schema[f.name], weights=f.weights) for f in self.schema.of_group(group)
        )

    def _table(self, entry: FileEntry, index: int, names: Sequence[str]) -> tuple[pa.Table, Place]:
        """Some columns of a row group, and where they stand."""
        place = Place(self.table.path / entry.path, index)
        file = self._file(entry)
        there = file.schema_arrow.names  # pyarrow builds it anew at every look
        absent = [name for name in names if name not in there]
        if absent:
            raise DataError(f"{place.file}: no column '{absent[0]}'{nearest(absent[0], there)}; {REMEDY}")
        try:
            with reaching(place.file):
                table = file.read_row_group(index, columns=list(names), use_threads=False)
        except FileNotFoundError as error:  # of a store: on a local disk an open file stays
            raise DataError(f"{place.file}: gone; the table was replaced while it was read, start again") from error
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{place}: cannot be decoded ({_first_line(error)}); {REMEDY}") from error
        return table, place

    def _file(self, entry: FileEntry) -> pq.ParquetFile:
        """A file, opened once; the least recently used is closed when too many are open."""
        if entry.path in self._open:
            self._open.move_to_end(entry.path)
            return self._open[entry.path]
        path = self.table.path / entry.path
        self.table.check_size(entry, file_size(path))
        try:
            with reaching(path):
                file = pq.ParquetFile(readable(path))
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path}: not a readable Parquet file ({_first_line(error)}); {REMEDY}") from error
        found = tuple(file.metadata.row_group(i).num_rows for i in range(file.num_row_groups))
        if found != entry.row_groups:
            raise DataError(
                f"{path}: {len(found)} row groups with {sum(found)} rows, the manifest says {len(entry.row_groups)} "
                f"with {sum(entry.row_groups)}; the file was replaced, {REMEDY}"
            )
        if len(self._open) >= _MAX_OPEN_FILES:
            self._open.popitem(last=False)[1].close(force=True)
        self._open[entry.path] = file
        return file


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0]


def _check_schema(schema: Schema, manifest: Manifest) -> None:
    """The features to read exist in the table as the same kind in the same group."""
    there = {f.name: f for f in manifest.schema.features}
    for f in schema.features:
        if f.name not in there:
            raise ConfigError(
                f"feature '{f.name}': table {manifest.name}/{manifest.split} has none{nearest(f.name, there)}"
            )
        stored = there[f.name]
        if (f.kind, f.group) != (stored.kind, stored.group):
            raise ConfigError(
                f"feature '{f.name}': {f.kind} in group '{f.group}' asked for, table {manifest.name}/{manifest.split} "
                f"has {stored.kind} in group '{stored.group}'; {REMEDY}"
            )
        if f.weights not in (None, stored.weights):
            found = f"'{stored.weights}'" if stored.weights else "none"
            raise ConfigError(
                f"feature '{f.name}': weights '{f.weights}' asked for, table {manifest.name}/{manifest.split} has "
                f"{found}; name them in the data config (features.{f.name}.weights) and {REMEDY}"
            )
    for label in schema.labels:
        if label not in manifest.schema.labels:
            raise ConfigError(
                f"label '{label}': table {manifest.name}/{manifest.split} has none"
                f"{nearest(label, manifest.schema.labels)}"
            )


def _keys(table: pa.Table, name: str, place: Place) -> Array:
    """A key column, int64."""
    column = table.column(name)
    if column.type != pa.int64():
        raise DataError(f"{place}: key column '{name}' is {column.type}, wanted int64; {REMEDY}")
    return no_nulls(column, name, place).to_numpy()


def _labels(table: pa.Table, names: Sequence[str], place: Place) -> Array:
    """float32 [N, number of labels], every one a finite number."""
    labels = np.empty((table.num_rows, len(names)), np.float32)
    for number, name in enumerate(names):
        column = table.column(name)
        if not pa.types.is_floating(column.type):
            raise DataError(f"{place}: label '{name}' is {column.type}, wanted float32; {REMEDY}")
        labels[:, number] = no_nulls(column, name, place).to_numpy()
        bad = ~np.isfinite(labels[:, number])
        if bad.any():
            row = int(bad.argmax())
            raise DataError(
                f"{place}, row {row}: label '{name}' is {labels[row, number]}; leave such samples out in the samples "
                "query (where ... is not null) and make the table again"
            )
    return labels


def _local_rows(rows: Array, stored: Array, group: str, place: Place, what: str = "") -> Array:
    """Row numbers counted from the row group's first stored row, int32 [N]."""
    first, size = (int(stored[0]), len(stored)) if len(stored) else (0, 0)
    local = rows - first
    if len(local) and (local.min() < 0 or local.max() >= size or stored[-1] - first != size - 1):
        raise DataError(
            f"{place}: '{what or group + '_row'}' goes from {rows.min()} to {rows.max()}, the "
            f"{'stream' if what else 'group'}'s row group holds {size} rows from {first}; the files do not belong "
            f"together, {REMEDY}"
        )
    return local.astype(np.int32)


def _names(features: Sequence[Feature]) -> list[str]:
    """The columns of some features that are stored as they are."""
    return [name for f in features for name in (f.name, f.weights) if name is not None]
