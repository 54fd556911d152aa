"""The unique rows of one group among a part's samples.

::

    row group   |    0      |   1     |
    history      x  x  y  y   y  z      compared with the neighbour, by value
    new          1  0  1  0   1  1      a row group begins with a row of its own, so that it can be read alone
    rows         x     y      y  z      what is stored
    inverse      0  0  1  1   2  3
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recd_dist.etl.deal.lookup import Lookup
from recd_dist.etl.source.inspection import REQUEST, SESSION, TIMESTAMP, link
from recd_dist.etl.write.cluster import changed_numbers
from recd_dist.etl.write.flat_columns import Flags, Order, changed, filled, taken, whole
from recd_dist.table.column import Column
from recd_dist.table.schema import Feature

Types = Mapping[str, pa.DataType]


@dataclass(frozen=True)
class Samples:
    """The samples of a part: rows of a shard in clustered order, dealt into row groups.

    Attributes:
        shard: normalised samples.
        order: int64 [N], rows of the shard.
        bounds: int64 [row groups + 1], from 0 to N.
    """

    shard: pa.Table
    order: Order
    bounds: Order

    def __len__(self) -> int:
        return len(self.order)

    def row_groups(self) -> Iterator["Samples"]:
        """The samples of each row group."""
        for start, end in pairwise(self.bounds.tolist()):
            yield Samples(self.shard, self.order[start:end], np.array([0, end - start]))

    def key(self, name: str) -> npt.NDArray[np.int64]:
        """A column of numbers, in clustered order."""
        numbers: npt.NDArray[np.int64] = whole(self.shard[name]).to_numpy(zero_copy_only=False)[self.order]
        return numbers

    @cached_property
    def begins(self) -> Flags:
        """Bool [N]: a row group begins."""
        flags = np.zeros(len(self), np.bool_)
        flags[self.bounds[:-1]] = True
        return flags

    @cached_property
    def new_session(self) -> Flags:
        """Bool [N]."""
        return changed_numbers(self.key(SESSION))

    @cached_property
    def new_request(self) -> Flags:
        """Bool [N]."""
        return self.new_session | changed_numbers(self.key(REQUEST))

    @cached_property
    def pairs(self) -> Flags:
        """Bool [N]: the sample before is of the same session and in the same row group."""
        return ~(self.new_session | self.begins)

    def where(self, row: int) -> str:
        """Names a row of the shard."""
        session, time = self.shard[SESSION][row].as_py(), self.shard[TIMESTAMP][row].as_py()
        return f"samples query, the sample of session {session} at {time}"


@dataclass(frozen=True)
class GroupRows:
    """Unique rows of a group.

    Attributes:
        columns: per feature [U].
        new: bool [N], a row begins with this sample; the first sample of a row group always begins one.
        bounds: int64 [row groups + 1], from 0 to U.
        changes: per feature the pairs of neighbours between which it changes.
        missing: per feature the values that were missing, once per sample.
    """

    columns: dict[str, Column]
    new: Flags
    bounds: Order
    changes: dict[str, int]
    missing: dict[str, int]

    @cached_property
    def inverse(self) -> Order:
        """int64 [N], the row of each sample."""
        return np.cumsum(self.new) - 1

    @cached_property
    def repeats(self) -> Order:
        """int64 [U], samples of each row."""
        return np.bincount(self.inverse)


def every(samples: Samples, features: tuple[Feature, ...], types: Types) -> GroupRows:
    """A row per sample: the group that is never deduplicated."""
    columns, changes, missing = {}, {}, {}
    for f in features:  # one column at a time is whole in memory
        raw = filled(samples.shard, f, samples.where)
        columns[f.name] = taken(raw.column, samples.order, dtype(types[f.name]), f.name)
        changes[f.name] = int((changed(raw.column, samples.order) & samples.pairs).sum())
        missing[f.name] = 0 if raw.missing is None else int(raw.missing[samples.order].sum())
    return GroupRows(columns, np.ones(len(samples), np.bool_), samples.bounds, changes, missing)


def compared(samples: Samples, features: tuple[Feature, ...], types: Types) -> GroupRows:
    """Rows of a group of the samples' columns."""
    raw = {f.name: filled(samples.shard, f, samples.where) for f in features}
    flags = {name: changed(one.column, samples.order) for name, one in raw.items()}
    new = np.logical_or.reduce([samples.begins, *flags.values()])
    rows = samples.order[new]
    return GroupRows(
        {f.name: taken(raw[f.name].column, rows, dtype(types[f.name]), f.name) for f in features},
        new,
        _bounds(new, samples),
        {name: int((flag & samples.pairs).sum()) for name, flag in flags.items()},
        {n: 0 if one.missing is None else int(one.missing[samples.order].sum()) for n, one in raw.items()},
    )


def linked(samples: Samples, group: str, features: tuple[Feature, ...], types: Types, lookup: Lookup) -> GroupRows:
    """Rows of a group with its own query: only those are read, and merged where neighbours are equal."""
    place = samples.key(link(group))
    first = changed_numbers(place) | samples.begins
    table = lookup.take(place[first])
    everything = np.arange(table.num_rows)
    raw = {f.name: filled(table, f, lambda row: f"query of group '{group}', row {place[first][row]}") for f in features}
    flags = {name: changed(one.column, everything) for name, one in raw.items()}
    kept = np.logical_or.reduce([samples.begins[first], *flags.values()])
    new = np.zeros(len(samples), np.bool_)
    new[np.flatnonzero(first)[kept]] = True
    inside, repeats = samples.pairs[first], np.bincount(np.cumsum(first) - 1)
    return GroupRows(
        {f.name: taken(raw[f.name].column, everything[kept], dtype(types[f.name]), f.name) for f in features},
        new,
        _bounds(new, samples),
        {name: int((flag & inside).sum()) for name, flag in flags.items()},
        {n: 0 if one.missing is None else int((one.missing * repeats).sum()) for n, one in raw.items()},
    )


def dtype(stored: pa.DataType) -> "np.dtype[Any]":
    """Of a column's values."""
    item = stored.value_type if pa.types.is_list(stored) else stored
    return np.dtype(item.to_pandas_dtype())


def _bounds(new: Flags, samples: Samples) -> Order:
    rows = np.zeros(len(new) + 1, np.int64)
    np.cumsum(new, out=rows[1:])
    return rows[samples.bounds]
