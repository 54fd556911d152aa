"""Reads units of flat Parquet files as row groups of unique rows, as ``TableFiles`` does of a clustered table."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from recd_dist.errors import ConfigError, DataError, nearest
from recd_dist.reader.chunked_units import ChunkedUnits
from recd_dist.reader.direct_table import HASH, DirectTable, Unit
from recd_dist.reader.equal_rows import find_equal_rows
from recd_dist.reader.normalised_columns import Normaliser
from recd_dist.reader.order import RowGroup
from recd_dist.reader.raw_rows import RawRows
from recd_dist.reader.row_group_columns import DecodedColumns, DecodedRowGroup, Origin, PlainColumn
from recd_dist.reader.stages import measure
from recd_dist.reader.taken_rows import take_columns
from recd_dist.table.column import Array, Column, Rows
from recd_dist.table.fill_nulls import fill_nulls
from recd_dist.table.flat_columns import in_one_chunk
from recd_dist.table.schema import REQUEST_ID, SAMPLE, SESSION_ID, Feature, Kind, Schema


class DirectFiles:
    """The files of a direct table, open for reading.

    Args:
        table: one split.
        schema: the features to read: all of the manifest's, or fewer.
        columns: the columns to read in place of those of the schema, for ``read_normalised`` alone.

    Raises:
        ConfigError: a feature, label or weights that the files do not have.
    """

    def __init__(self, table: DirectTable, schema: Schema | None = None, columns: Sequence[str] | None = None) -> None:
        self.table = table
        self.schema = schema or table.manifest.schema
        features = self.schema.features
        names = [SESSION_ID, REQUEST_ID, *self.schema.labels]
        names += [name for f in features for name in (f.name, f.weights) if name is not None]
        known = table.conversions
        for name in names[2:]:
            if name not in known and columns is None:
                raise ConfigError(f"column '{name}': {table.path} has none that is read{nearest(name, known)}")
        names = names if columns is None else list(columns)
        self._normaliser = Normaliser({name: known[name] for name in names if name in known and known[name].raw})
        self._rows = RawRows(table.raw_files, self._normaliser.raw_columns, self._normaliser.texts)
        weighted = {name for f in features if f.weights is not None for name in (f.name, f.weights)}
        self._as_they_are = {
            name: conversion.raw[0]
            for name, conversion in self._normaliser.conversions.items()
            if not conversion.sql and name not in weighted and not conversion.cast.startswith("list")
        }
        self._chunks = ChunkedUnits(self._rows, list(dict.fromkeys(self._as_they_are.values())))

    def check_sizes(self) -> None:
        """Refuses files that are gone or were changed since the table was opened; reads none.

        Raises:
            DataError: the message names the first such file.
        """
        self.table.check_sizes()

    def read_normalised(self, row_group: RowGroup) -> tuple[pa.Table, Origin]:
        """Reads the columns of a unit as the ETL's query would return them: nulls are there, nothing is merged.

        Raises:
            DataError: damaged, changed or missing files; keys that are missing, values that do not fit.
        """
        unit = self.table.units[row_group.part][row_group.index]
        return self._read_normalised(unit, self._normaliser.conversions)

    def _read_normalised(self, unit: Unit, names: Collection[str]) -> tuple[pa.Table, Origin]:
        """Some columns of a unit."""
        origin = self._rows.origin_of(unit)
        if not names:
            self._rows.check(unit)
            return pa.table({}), origin
        with measure("decode"):
            raw = self._rows.read(unit, self._normaliser.raw_columns_of(names))
        with measure("convert"):
            rows = self._normaliser.normalise(raw, origin, names)
        _check_keys(rows, origin)
        return rows, origin

    def read(self, row_group: RowGroup) -> DecodedRowGroup:
        """Reads a unit and finds the equal rows of each group in it.

        Raises:
            DataError: damaged, changed or missing files; keys or labels that are missing, values that do not fit.
        """
        unit = self.table.units[row_group.part][row_group.index]
        decoded = self._chunks.read(unit)
        ready = {name: decoded[raw] for name, raw in self._as_they_are.items() if raw in decoded}
        rows, origin = self._read_normalised(unit, [n for n in self._normaliser.conversions if n not in ready])
        samples = _Samples(ready, rows, origin, row_group.num_samples)
        plain, others, row_of_sample, num_rows = dict[str, PlainColumn](), dict[str, Rows](), {}, {}
        with measure("convert"):
            for group in self.schema.groups:
                columns = {f.name: samples.feature(f) for f in self.schema.of_group(group)}
                if group == SAMPLE:
                    first = np.arange(row_group.num_samples)
                else:
                    by_hash = self.table.ways.get(group) == HASH
                    row_of_sample[group], first = find_equal_rows(list(columns.values()), by_hash)
                    num_rows[group] = len(first)
                of_group, others_of_group = take_columns(columns, first)
                plain |= of_group
                others |= others_of_group
        ids = self.sample_ids(row_group)
        sessions = samples.key(SESSION_ID, ids)
        return DecodedRowGroup(
            sample_ids=ids,
            session_ids=sessions,
            request_ids=samples.key(REQUEST_ID, sessions),
            labels=self._read_labels(samples),
            row_of_sample=row_of_sample,
            num_rows=num_rows,
            columns=DecodedColumns.of(plain, others),
            origins=dict.fromkeys(self.schema.groups, origin),
        )

    def sample_ids(self, row_group: RowGroup) -> Array:
        """The numbers of a unit's samples in the whole table, int64 [N]."""
        part = self.table.manifest.parts[row_group.part]
        sizes = part.samples.row_groups
        first = part.first_sample + sum(sizes[: row_group.index])
        return np.arange(first, first + sizes[row_group.index])

    def _read_labels(self, samples: "_Samples") -> Array:
        """The labels, float32 [N, number of labels]; nan where one is missing, if that is allowed."""
        stats = self.table.manifest.labels
        labels = np.empty((samples.size, len(self.schema.labels)), np.float32)
        for number, name in enumerate(self.schema.labels):
            is_there = bool(self.table.conversions[name].raw)
            values = samples.numbers(name) if is_there else np.full(samples.size, np.nan, np.float32)
            may_miss = name in stats and stats[name].num_null > 0
            bad = np.isinf(values) if may_miss else ~np.isfinite(values)
            if bad.any():
                row = int(bad.argmax())
                found = "missing" if np.isnan(values[row]) else str(values[row])
                raise DataError(
                    f"{samples.origin}, row {row}: label '{name}' is {found}; data.policy.unlabelled=keep trains each "
                    "task on the samples that have its label; `recd etl` can leave such samples out"
                )
            labels[:, number] = values
        return labels


@dataclass(frozen=True)
class _Samples:
    """The columns of a unit, in whichever way they were read.

    Attributes:
        decoded: those that need no conversion and have no gaps.
        rows: the others, as the ETL's query would return them.
        origin: where they come from, for messages.
        size: the number of samples.
    """

    decoded: Mapping[str, Column]
    rows: pa.Table
    origin: Origin
    size: int

    def feature(self, feature: Feature) -> Column:
        """A feature without nulls, as the ETL stores it; offsets need not begin at 0."""
        column = self.decoded.get(feature.name)
        if column is None:
            return fill_nulls(self.rows, feature, lambda row: f"{self.origin}, row {row}").column
        if feature.kind is Kind.dense:
            numbers = column.values.astype(np.float32, copy=False)
            is_finite = np.isfinite(numbers)
            return Column(numbers if is_finite.all() else np.where(is_finite, numbers, np.float32(0)))
        if feature.kind is Kind.ids and column.offsets is None:
            return Column(column.values, np.arange(self.size + 1, dtype=np.int32))
        return column

    def numbers(self, name: str) -> Array:
        """A column of single numbers, float32 [N]; nan where one is missing."""
        if (column := self.decoded.get(name)) is not None:
            return column.values.astype(np.float32, copy=False)
        numbers: Array = in_one_chunk(self.rows[name]).to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
        return numbers

    def key(self, name: str, absent: Array) -> Array:
        """A key, int64 [N]; where the source names none, what stands for it."""
        if (column := self.decoded.get(name)) is not None:
            return column.values.astype(np.int64)
        return in_one_chunk(self.rows[name]).to_numpy() if name in self.rows.column_names else absent


def from_zero(column: Column) -> Column:
    """The column with offsets that begin at 0, and no values before or behind."""
    if column.offsets is None or not len(column.offsets):
        return column
    start, end = int(column.offsets[0]), int(column.offsets[-1])
    if start == 0 and end == len(column.values):
        return column
    weights = column.weights
    return replace(
        column,
        values=column.values[start:end],
        offsets=column.offsets - start,
        weights=weights if weights is None or len(weights) == end - start else weights[start:end],
    )


def _check_keys(rows: pa.Table, origin: Origin) -> None:
    """Refuses a row without a session or request, where the source names them."""
    for name in (SESSION_ID, REQUEST_ID):
        if name in rows.column_names and rows[name].null_count:
            row = int(np.argmax(rows[name].is_null().to_numpy()))
            raise DataError(
                f"{origin}, row {row}: no {name.removesuffix('_id')} id (null or empty); leave such rows out when the "
                "files are written, or make a table of them with `recd etl` and a query"
            )
