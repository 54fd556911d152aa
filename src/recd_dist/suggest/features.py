"""What each feature of the sampled sessions does from one sample to the next.

::

    session     a    a    a    a    b
    history     12   12   123  234  56       ids
    changed     1    0    1    1    1        flags: what would be stored
    new         12        3    4    56       a history that shifts: a window stores only what is new
    d                1 of 3                  neighbours in a session between which it stays

A group with its own query changes where its key does, as in the table that the ETL writes; its lists are looked at row
by row and never expanded.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numba
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recd_dist.etl.deal.value_range import ValueRange
from recd_dist.etl.source.inspection import SESSION, Inspection
from recd_dist.etl.write import cluster
from recd_dist.etl.write.stored_types import converted, stored_type
from recd_dist.suggest.sample import Sampled
from recd_dist.table.schema import Feature, Kind

Flags = npt.NDArray[np.bool_]
I64 = npt.NDArray[np.int64]

ROW_GROUP = 8192
"""Samples of a row group, about: a row that two row groups share is stored twice."""

_DRAWN = 50_000
_RARE, _BEYOND_CHANCE = 0.05, 0.5


@dataclass(frozen=True)
class Look:
    """One feature over the sampled sessions, [N] samples in clustered order.

    Attributes:
        feature: name and kind; its group is the one that the config gives it.
        origin: the group with its own query that it comes from, or None.
        stored: its type on disk.
        lengths: int64 [N], ids of each sample; None for one value a sample.
        flags: bool [N], where a row is stored if it is deduplicated by itself.
        num_pairs, num_same: neighbours in one session, and those with the same value.
        num_changes, num_shifts: changes inside a session, and those that only append to a list (old ids may fall out).
        num_new: ids that windows over an append-only stream would store.
        num_missing: values that are missing.
        by_chance: share of any two samples, of whatever sessions, that have the same value (lists: that are empty).
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
        """Of the feature."""
        return self.feature.name

    @property
    def width(self) -> int:
        """Bytes of one value as stored."""
        value = self.stored.value_type if pa.types.is_list(self.stored) else self.stored
        return int(value.bit_width) // 8

    @property
    def stay_rate(self) -> float:
        """Share d of neighbours in a session that are the same; nan without neighbours."""
        return self.num_same / self.num_pairs if self.num_pairs else math.nan

    @property
    def is_of_session(self) -> bool:
        """It stays the same more often than chance would have it.

        A column of few values is often the same as the row before without belonging to the session: hotels without a
        pool follow hotels without one. Measured as the share that the stay rate fills of the room between chance and
        always (Cohen's kappa).
        """
        if not self.num_pairs or not _RARE < self.by_chance < 1:
            return True
        return (self.stay_rate - self.by_chance) / (1 - self.by_chance) >= _BEYOND_CHANCE

    @property
    def shift_rate(self) -> float:
        """Share of the changes inside a session that are shifts; 0 without changes."""
        return self.num_shifts / self.num_changes if self.num_changes else 0.0

    def num_values(self, flags: Flags | None = None) -> int:
        """Values of the rows that are flagged, or of every sample."""
        if self.lengths is None:
            return int(len(self.flags) if flags is None else flags.sum())
        return int(self.lengths.sum() if flags is None else self.lengths[flags].sum())


class Columns:
    """The features of the sampled sessions, converted as the ETL stores them, one at a time.

    Args:
        found: the inspected source.
        sampled: its sessions.
    """

    def __init__(self, found: Inspection, sampled: Sampled) -> None:
        self.sampled = sampled
        self.origin = {f.name: (f.group if f.group in found.groups else None) for f in found.schema.features}
        session = sampled.samples[SESSION].to_numpy()
        self.bounds, _ = cluster.row_group_bounds(session, ROW_GROUP)
        self.new_session = cluster.changed_numbers(session)
        self.starts = np.zeros(len(session), np.bool_)
        self.starts[self.bounds[:-1]] = True
        self.links = {name: cluster.changed_numbers(place) | self.starts for name, place in sampled.place.items()}
        self._seen: dict[str, ValueRange] = {}
        self.features = {f.name: self._settled(f) for f in found.schema.features}
        self._held: tuple[str, pa.Array, int] | None = None

    def _settled(self, feature: Feature) -> Feature:
        """A single id that is missing in some rows is a list of no or one id, as in the ETL."""
        seen = ValueRange()
        origin = self.origin[feature.name]
        for chunk in (self.sampled.samples if origin is None else self.sampled.rows[origin])[feature.name].chunks:
            seen.include(chunk)
        if origin is not None:
            seen.num_missing += int((self.sampled.place[origin] < 0).sum())
        self._seen[feature.name] = seen
        is_list = bool(seen.num_missing) and feature.kind is Kind.id
        return Feature(feature.name, Kind.ids if is_list else feature.kind, feature.group, feature.table)

    def stored(self, name: str) -> pa.DataType:
        """A feature's type on disk."""
        return stored_type(self.features[name], self._seen[name])

    def num_missing(self, name: str) -> int:
        """Values of a feature that are missing."""
        return self._seen[name].num_missing

    def whole(self, name: str) -> pa.Array:
        """A feature of the samples' columns, [N]; of a group with its own query, the group's rows."""
        if self._held is None or self._held[0] != name:
            origin = self.origin[name]
            table = self.sampled.samples if origin is None else self.sampled.rows[origin]
            self._held = (name, *converted(table[name], self.features[name].kind, self.stored(name)))
        return self._held[1]

    def rows(self, name: str, start: int, end: int, flags: Flags) -> pa.Array:
        """Rows of samples start..end that are flagged, as stored."""
        origin, column = self.origin[name], self.whole(name)
        if origin is None:
            chunk = column.slice(start, end - start)
            kept = flags[start:end]
            return chunk if kept.all() else chunk.take(pa.array(np.flatnonzero(kept)))
        return self.linked(name, self.sampled.place[origin][start:end][flags[start:end]])

    def linked(self, name: str, place: I64) -> pa.Array:
        """Rows of a group with its own query; what is not there is empty or 0."""
        column = self.whole(name)
        return _filled(column.take(pa.array(place, mask=place < 0)))

    def row_groups(self) -> Iterator[tuple[int, int]]:
        """Where row groups begin and end."""
        return pairwise(self.bounds.tolist())


def _filled(column: pa.Array) -> pa.Array:
    if not column.null_count:
        return column
    if not pa.types.is_list(column.type):
        return column.fill_null(0)
    lengths = np.diff(column.offsets.to_numpy())
    lengths[column.is_null().to_numpy(zero_copy_only=False)] = 0
    offsets = np.zeros(len(lengths) + 1, np.int32)
    np.cumsum(lengths, out=offsets[1:])
    return pa.ListArray.from_arrays(pa.array(offsets), column.flatten(), type=column.type)


def looks(columns: Columns) -> Iterator[Look]:
    """Looks at every feature, in the order of the schema."""
    for name in columns.features:
        yield _linked_look(columns, name) if columns.origin[name] else _look(columns, name)


def _look(columns: Columns, name: str) -> Look:
    column = columns.whole(name)
    same_session = ~columns.new_session
    changed = cluster.changed(column)
    is_list = pa.types.is_list(column.type)
    shifts, new = _shifts(column, same_session) if is_list else (0, 0)
    return Look(
        feature=columns.features[name],
        origin=None,
        stored=columns.stored(name),
        lengths=np.diff(column.offsets.to_numpy()).astype(np.int64) if is_list else None,
        flags=changed | columns.starts,
        num_pairs=int(same_session.sum()),
        num_same=int((same_session & ~changed).sum()),
        num_changes=int((same_session & changed).sum()),
        num_shifts=shifts,
        num_new=new,
        num_missing=columns.num_missing(name),
        by_chance=_by_chance(column),
    )


def _by_chance(column: pa.Array) -> float:
    """Probability that two rows drawn at random are the same; of lists, that both are empty."""
    if pa.types.is_list(column.type):
        return float((np.diff(column.offsets.to_numpy()) == 0).mean()) ** 2
    values = column.to_numpy(zero_copy_only=False)
    _, counts = np.unique(values[:: max(1, len(values) // _DRAWN)], return_counts=True)
    return float(((counts / counts.sum()) ** 2).sum())


def _linked_look(columns: Columns, name: str) -> Look:
    origin = str(columns.origin[name])
    flags, place = columns.links[origin], columns.sampled.place[origin]
    num_pairs = int((~columns.new_session).sum())
    num_changes = num_shifts = num_new = 0
    for start, end in columns.row_groups():
        rows = columns.rows(name, start, end, flags)
        same_session = ~columns.new_session[start:end][flags[start:end]]
        num_changes += int((cluster.changed(rows) & same_session).sum())
        if pa.types.is_list(rows.type):
            shifts, new = _shifts(rows, same_session)
            num_shifts, num_new = num_shifts + shifts, num_new + new
    lengths = None
    if pa.types.is_list(columns.stored(name)):
        of_row = np.append(np.diff(columns.whole(name).offsets.to_numpy()), 0).astype(np.int64)
        lengths = of_row[place]  # -1, no row, is the 0 at the end
    return Look(
        feature=columns.features[name],
        origin=origin,
        stored=columns.stored(name),
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


def _shifts(column: pa.Array, same_session: Flags) -> tuple[int, int]:
    """Changes that append (at the end or at the front), and ids that are new over all rows."""
    offsets = column.offsets.to_numpy()
    values = column.values.to_numpy(zero_copy_only=False)
    found = []
    for front in (False, True):
        new = np.empty(len(column), np.int64)
        found.append((_new_values(offsets, values, same_session, front, new), int(new.sum())))
    return min(found, key=lambda each: each[1])


def stream(column: pa.Array, same_session: Flags) -> tuple[pa.Array, I64]:
    """Lists as windows: the ids that an append-only stream would store, and how many of them each row adds.

    Args:
        column: [U] lists, neighbours in clustered order.
        same_session: bool [U], the row before is of the same session.
    """
    offsets = column.offsets.to_numpy()
    values = column.values.to_numpy(zero_copy_only=False)
    best: tuple[I64, I64] | None = None
    for front in (False, True):
        new = np.empty(len(column), np.int64)
        _new_values(offsets, values, same_session, front, new)
        if best is None or new.sum() < best[1].sum():
            best = (offsets[:-1].astype(np.int64) if front else offsets[1:] - new, new)
    first, new = best if best is not None else (np.empty(0, np.int64), np.empty(0, np.int64))
    index = np.repeat(first - (np.cumsum(new) - new), new) + np.arange(int(new.sum()))
    return pa.array(values[index]), new


@numba.njit(cache=True, nogil=True)
def _new_values(
    offsets: npt.NDArray[np.int32],
    values: npt.NDArray[np.int64],
    same_session: Flags,
    front: bool,
    num_new: I64,
) -> int:
    """A list overlaps the one before by its longest suffix that the new one begins with (at the front: mirrored).

    Fills in the new ids of each row; returns the number of shifts. What takes too long to compare counts as new: lists
    of a few values, each many times.
    """
    num_shifts = 0
    for row in range(len(offsets) - 1):
        start, length = offsets[row], offsets[row + 1] - offsets[row]
        num_new[row] = length
        if row == 0 or not same_session[row]:
            continue
        before = offsets[row - 1]
        length_before = start - before
        overlap = min(length, length_before)
        budget = 16 * length + 64
        while overlap > 0:
            old = before if front else start - overlap
            new = start + length - overlap if front else start
            i = 0
            while i < overlap and values[old + i] == values[new + i]:
                i += 1
            if i == overlap:
                break
            budget -= i + 1
            overlap = overlap - 1 if budget > 0 else 0
        num_new[row] = length - overlap
        if overlap < length_before or overlap < length:  # it changed
            num_shifts += 2 * overlap >= length_before and length > 0
    return num_shifts
