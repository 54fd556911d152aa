"""Columns of the sampled sessions, converted as the ETL stores them, one at a time."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recd_dist.etl.deal.value_range import ValueRange
from recd_dist.etl.source.inspection import SESSION, Inspection
from recd_dist.etl.write.stored_types import convert_column, stored_type
from recd_dist.suggest.sample import SessionSample
from recd_dist.table.column import Column
from recd_dist.table.flat_columns import flag_array_changes, flag_number_changes
from recd_dist.table.schema import Feature, Kind

Flags = npt.NDArray[np.bool_]
I64 = npt.NDArray[np.int64]


class SampleColumns:
    """The features of the sampled sessions as columns; only the column used last stays in memory.

    Args:
        inspection: the inspected source.
        sample: its sampled sessions, N samples.

    Attributes:
        sample: the sampled sessions.
        features: name -> feature with the kind that it has on disk, in the order of the schema.
        origin: name of a feature -> the group with its own query that it comes from, or None.
        bounds: int64 [number of row groups + 1], where row groups begin and end.
        new_session: bool [N], whether a sample is the first of its session.
        new_row_group: bool [N], whether a sample is the first of its row group.
        new_row: group with its own query -> bool [N], whether a stored row begins with a sample.
    """

    def __init__(self, inspection: Inspection, sample: SessionSample) -> None:
        schema = inspection.schema
        self.sample = sample
        self.origin = {f.name: (f.group if f.group in inspection.groups else None) for f in schema.features}
        session = sample.samples[SESSION].to_numpy()
        self.bounds = sample.bounds
        self.new_session = flag_number_changes(session)
        self.new_row_group = np.zeros(len(session), np.bool_)
        self.new_row_group[self.bounds[:-1]] = True
        self._new_key, self._new_block = sample.key_starts()
        self._draws = np.random.default_rng(0).random(int(self._new_block.sum()))
        self.new_row = {
            name: self.settle_block_starts(flag_number_changes(rows)) | self.new_row_group
            for name, rows in sample.row_of.items()
        }
        self._ranges = {f.name: self._value_range(f.name) for f in schema.features}
        self.features = {f.name: self._stored_feature(f) for f in schema.features}
        self._last: tuple[str, pa.Array] | None = None

    def _table(self, name: str) -> pa.Table:
        """The samples, or the rows of the group with its own query that a feature comes from."""
        origin = self.origin[name]
        return self.sample.samples if origin is None else self.sample.linked_rows[origin]

    def _value_range(self, name: str) -> ValueRange:
        """The range of a feature's ids, and how many of its values are missing."""
        seen = ValueRange()
        for chunk in self._table(name)[name].chunks:
            seen.include(chunk)
        origin = self.origin[name]
        if origin is not None:
            seen.num_missing += int((self.sample.row_of[origin] < 0).sum())
        return seen

    def _stored_feature(self, feature: Feature) -> Feature:
        """A single id that is missing in some rows becomes a list of no or one id, as in the ETL."""
        is_list = bool(self._ranges[feature.name].num_missing) and feature.kind is Kind.id
        return replace(feature, kind=Kind.ids) if is_list else feature

    def stored_type(self, name: str) -> pa.DataType:
        """The type of a feature on disk."""
        return stored_type(self.features[name], self._ranges[name])

    def num_missing(self, name: str) -> int:
        """How many values of a feature are missing."""
        return self._ranges[name].num_missing

    def column(self, name: str) -> pa.Array:
        """A feature as stored: [N] values of the samples, or all rows of the group with its own query."""
        if self._last is None or self._last[0] != name:
            column, _ = convert_column(self._table(name)[name], self.features[name].kind, self.stored_type(name))
            self._last = (name, column)
        return self._last[1]

    def settle_block_starts(self, changed: Flags) -> Flags:
        """Settles whether a row begins where a block of sessions does, whose neighbour in the table was not read.

        It begins there as often as where other sessions begin. Each block draws once for all features, so that those
        which change together stay together.

        Args:
            changed: bool [N], whether a feature differs from the sample before.
        """
        others = self._new_key & ~self._new_block
        if not self._new_block.any() or not others.any():
            return changed
        settled = changed.copy()
        settled[self._new_block] = self._draws < changed[others].mean()
        return settled

    def weight_changes(self, name: str) -> Flags:
        """Where the weights of a feature's ids differ from those of the sample before, bool [N]."""
        weights = self.features[name].weights
        if weights is None or self.origin[name] is not None:
            return np.zeros(len(self.new_session), np.bool_)
        return flag_array_changes(_fill_nulls(self._table(name)[weights].combine_chunks()))

    def row_bounds(self, flags: Flags) -> I64:
        """Where the stored rows of each row group begin and end, int64 [row groups + 1].

        Args:
            flags: bool [N], whether a stored row begins with a sample.
        """
        return np.append(0, np.cumsum(flags))[self.bounds]

    def stored_rows(self, name: str, start: int, end: int, flags: Flags) -> pa.Array:
        """The rows that a feature stores for some samples.

        Args:
            name: the feature.
            start: the first of the samples.
            end: the sample after the last one.
            flags: bool [N], whether a stored row begins with a sample.
        """
        origin, column = self.origin[name], self.column(name)
        is_stored = flags[start:end]
        if origin is not None:
            return self.linked_rows(name, self.sample.row_of[origin][start:end][is_stored])
        rows = column.slice(start, end - start)
        return rows if is_stored.all() else rows.take(pa.array(np.flatnonzero(is_stored)))

    def stored_weights(self, name: str, start: int, end: int, flags: Flags) -> pa.Array:
        """The weights of the rows that :meth:`stored_rows` returns."""
        weights, origin = str(self.features[name].weights), self.origin[name]
        column = _fill_nulls(self._table(name)[weights].combine_chunks())
        if origin is None:
            return column.take(pa.array(np.arange(start, end)[flags[start:end]]))
        rows = self.sample.row_of[origin][start:end][flags[start:end]]
        return _fill_nulls(column.take(pa.array(rows, mask=rows < 0)))

    def linked_rows(self, name: str, rows: I64) -> pa.Array:
        """Rows of a feature whose group has its own query.

        Args:
            name: the feature.
            rows: int64 [n], numbers of rows; -1 gives an empty list or 0.
        """
        return _fill_nulls(self.column(name).take(pa.array(rows, mask=rows < 0)))

    def row_groups(self) -> Iterator[tuple[int, int]]:
        """For each row group its first sample, and the one after its last."""
        return pairwise(self.bounds.tolist())


def as_column(array: pa.Array) -> Column:
    """A stored column, numbers or lists without nulls, as flat arrays."""
    if not pa.types.is_list(array.type):
        return Column(array.to_numpy(zero_copy_only=False))
    return Column(array.values.to_numpy(zero_copy_only=False), array.offsets.to_numpy())


def _fill_nulls(column: pa.Array) -> pa.Array:
    """Empty lists or zeros for nulls."""
    if not column.null_count:
        return column
    if not pa.types.is_list(column.type):
        return column.fill_null(0)
    lengths = np.diff(column.offsets.to_numpy())
    lengths[column.is_null().to_numpy(zero_copy_only=False)] = 0
    offsets = np.zeros(len(lengths) + 1, np.int32)
    np.cumsum(lengths, out=offsets[1:])
    return pa.ListArray.from_arrays(pa.array(offsets), column.flatten(), type=column.type)
