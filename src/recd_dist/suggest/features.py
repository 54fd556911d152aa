"""What each feature of the sampled sessions does from one sample to the next.

::

    session     a    a    a    a    b
    history     12   12   123  234  56       ids
    changed     1    0    1    1    1        flags: what would be stored
    new         12        3    4    56       a history that shifts: a window stores only what is new
    d                1 of 3                  neighbours in a session between which it stays

A group with its own query changes where its key does, as in the table that the ETL writes. Its lists are compared row
by row and never expanded.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from recd_dist.etl.write.flat_columns import flag_array_changes
from recd_dist.suggest.sample_columns import I64, Flags, SampleColumns
from recd_dist.suggest.shifts import count_shifts
from recd_dist.table.schema import Feature

HISTORY_LENGTH = 4
"""Mean length from which a list counts as a history, for attention and windows."""

_DRAWN = 50_000  # rows that by_chance is estimated from
_RARE, _BEYOND_CHANCE = 0.05, 0.5


@dataclass(frozen=True)
class SampledFeature:
    """One feature over the sampled sessions, N samples in clustered order.

    Attributes:
        feature: name and kind of the feature; its group is the one that the config gives it.
        origin: the group with its own query that the feature comes from, or None.
        stored: the type of the feature on disk.
        lengths: int64 [N], number of ids of each sample; None for one value a sample.
        flags: bool [N], whether a stored row begins with a sample if the feature is deduplicated by itself.
        num_pairs: number of neighbouring samples in one session.
        num_same: number of these neighbours that have the same value.
        num_changes: number of changes inside a session.
        num_shifts: number of these changes that only append to a list, while old ids may fall out.
        num_new: number of ids that windows over an append-only stream would store.
        num_missing: number of values that are missing.
        by_chance: share of any two samples, of whatever sessions, that have the same value (of lists: both empty).
    """

    feature: Feature
    origin: str | None
    stored: pa.DataType
    lengths: I64 | None
    flags: Flags
    num_pairs: int
    num_same: int
    num_changes: int
    num_shifts: int
    num_new: int
    num_missing: int
    by_chance: float

    @property
    def name(self) -> str:
        """Name of the feature."""
        return self.feature.name

    @property
    def width(self) -> int:
        """Bytes of one value as stored."""
        value = self.stored.value_type if pa.types.is_list(self.stored) else self.stored
        return int(value.bit_width) // 8

    @property
    def num_rows(self) -> int:
        """Number of rows that are stored if the feature is deduplicated by itself."""
        return int(self.flags.sum())

    @property
    def stay_rate(self) -> float:
        """Share d of the neighbours in a session that have the same value; nan without neighbours."""
        return self.num_same / self.num_pairs if self.num_pairs else math.nan

    @property
    def shift_rate(self) -> float:
        """Share of the changes inside a session that only append; 0 without changes."""
        return self.num_shifts / self.num_changes if self.num_changes else 0.0

    @property
    def is_of_session(self) -> bool:
        """Whether the feature stays the same more often than by chance.

        A column of few values often has the value of the row before without belonging to the session: hotels without
        a pool follow hotels without a pool. The stay rate must fill half of the room between chance and always
        (Cohen's kappa).
        """
        if not self.num_pairs or not _RARE < self.by_chance < 1:
            return True
        return (self.stay_rate - self.by_chance) / (1 - self.by_chance) >= _BEYOND_CHANCE

    @property
    def is_history(self) -> bool:
        """Whether samples carry lists of ``HISTORY_LENGTH`` ids or more, on average."""
        return self.lengths is not None and self.num_values() >= HISTORY_LENGTH * len(self.flags)

    @property
    def windows_pay(self) -> bool:
        """Whether windows over a stream of ids save much: long rows, most of whose changes only append."""
        if self.lengths is None or not self.num_shifts:
            return False
        num_stored = self.num_values(self.flags)
        is_long = num_stored >= HISTORY_LENGTH * self.num_rows
        return is_long and self.shift_rate >= 0.5 and self.num_new < 0.8 * num_stored

    def num_values(self, flags: Flags | None = None) -> int:
        """Number of values in the flagged rows.

        Args:
            flags: bool [N], the rows to count; None counts those of every sample.
        """
        if self.lengths is None:
            return int(len(self.flags) if flags is None else flags.sum())
        return int(self.lengths.sum() if flags is None else self.lengths[flags].sum())


def measure_features(columns: SampleColumns) -> Iterator[SampledFeature]:
    """Measures every feature, in the order of the schema."""
    for name in columns.features:
        yield _measure_linked(columns, name) if columns.origin[name] else _measure(columns, name)


def _measure(columns: SampleColumns, name: str) -> SampledFeature:
    """Measures a feature of the samples' own columns."""
    column = columns.column(name)
    same_session = ~columns.new_session
    changed = flag_array_changes(column)
    is_list = pa.types.is_list(column.type)
    num_shifts, num_new = count_shifts(column, same_session) if is_list else (0, 0)
    return SampledFeature(
        feature=columns.features[name],
        origin=None,
        stored=columns.stored_type(name),
        lengths=np.diff(column.offsets.to_numpy()).astype(np.int64) if is_list else None,
        flags=changed | columns.new_row_group,
        num_pairs=int(same_session.sum()),
        num_same=int((same_session & ~changed).sum()),
        num_changes=int((same_session & changed).sum()),
        num_shifts=num_shifts,
        num_new=num_new,
        num_missing=columns.num_missing(name),
        by_chance=_chance_of_same(column),
    )


def _chance_of_same(column: pa.Array) -> float:
    """Probability that two rows drawn at random have the same value; of lists, that both are empty."""
    if pa.types.is_list(column.type):
        return float((np.diff(column.offsets.to_numpy()) == 0).mean()) ** 2
    values = column.to_numpy(zero_copy_only=False)
    _, counts = np.unique(values[:: max(1, len(values) // _DRAWN)], return_counts=True)
    return float(((counts / counts.sum()) ** 2).sum())


def _measure_linked(columns: SampleColumns, name: str) -> SampledFeature:
    """Measures a feature of a group that has its own query."""
    origin = str(columns.origin[name])
    flags, row_of = columns.new_row[origin], columns.sample.row_of[origin]
    num_pairs = int((~columns.new_session).sum())
    num_changes = num_shifts = num_new = 0
    for start, end in columns.row_groups():
        rows = columns.stored_rows(name, start, end, flags)
        same_session = ~columns.new_session[start:end][flags[start:end]]
        num_changes += int((flag_array_changes(rows) & same_session).sum())
        if pa.types.is_list(rows.type):
            more_shifts, more_new = count_shifts(rows, same_session)
            num_shifts, num_new = num_shifts + more_shifts, num_new + more_new
    lengths = None
    if pa.types.is_list(columns.stored_type(name)):
        row_lengths = np.append(np.diff(columns.column(name).offsets.to_numpy()), 0).astype(np.int64)
        lengths = row_lengths[row_of]  # -1, no row, takes the 0 at the end
    return SampledFeature(
        feature=columns.features[name],
        origin=origin,
        stored=columns.stored_type(name),
        lengths=lengths,
        flags=flags,
        num_pairs=num_pairs,
        num_same=num_pairs - num_changes,
        num_changes=num_changes,
        num_shifts=num_shifts,
        num_new=num_new,
        num_missing=columns.num_missing(name),
        by_chance=0.0,
    )
