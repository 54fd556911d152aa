"""Shards into memory: the samples of each part, a piece of a shard at a time."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Protocol

import numpy as np
import pyarrow as pa

from recd_dist.etl.deal.arrange import Arrangement, arrange
from recd_dist.etl.deal.assign_sessions import partition_name
from recd_dist.etl.deal.keys import I64, SIZE, Rules
from recd_dist.etl.deal.plan_parts import PartsPlan, PlannedPart, piece_numbers
from recd_dist.etl.deal.shards import Shards, ShardSamples
from recd_dist.etl.source.inspection import REQUEST, SESSION, TIMESTAMP


@dataclass(frozen=True)
class PartSamples:
    """The samples of a part in memory.

    Attributes:
        samples: the samples with their final session, request and timestamp columns; other samples may be among them.
        order: int64 [n], the rows of the part's samples in the order of the table.
        dropped: the samples that policies leave out of the shard, by reason. Only the first part of a shard has them.
        originals: for each sample that is dropped as a duplicate by its hash, the sample that it should equal.
    """

    samples: pa.Table
    order: I64
    dropped: Mapping[str, pa.Table] = field(default_factory=dict)
    originals: pa.Table | None = None


class ShardSource(Protocol):
    """Where the writing of parts gets its samples from."""

    def read_parts(self, shard: int, parts: Iterable[PlannedPart]) -> Iterable[tuple[PlannedPart, PartSamples]]:
        """The samples of some parts of a shard."""
        ...

    def read_left_out(self) -> Iterable[tuple[str, pa.Table]]:
        """The samples of the shards that have no part, since policies leave all of them out; each with the reason."""
        ...


@dataclass(frozen=True)
class PartReader:
    """Brings the samples of a shard into memory as the plan has cut it.

    Attributes:
        rules: what the source says about its keys.
        plan: the parts.
        shard_bytes: the most bytes that a piece of a shard may take in memory.
        has_time: whether the source names a timestamp; if not, the table's timestamps are 0.
    """

    rules: Rules
    plan: PartsPlan
    shard_bytes: int
    has_time: bool

    def read_parts(
        self, shard: ShardSamples, parts: Iterable[PlannedPart]
    ) -> Iterator[tuple[PlannedPart, PartSamples]]:
        """The samples of some parts of a shard, with one piece of it in memory at a time.

        Args:
            shard: the samples of the shard.
            parts: parts of this shard.
        """
        keys = shard.read_keys()
        arrangement = arrange(keys, self.rules)
        pieces = piece_numbers(arrangement, keys[SIZE].to_numpy(), self.shard_bytes)
        partitions = {partition_name(n, self.rules.partition): n for n in np.unique(arrangement.partition).tolist()}
        parts_by_piece: dict[int, list[PlannedPart]] = {}
        for part in parts:
            parts_by_piece.setdefault(part.piece, []).append(part)
        for number, parts_of_piece in sorted(parts_by_piece.items()):
            piece = arrangement.select(pieces == number)
            left_out = [*arrangement.dropped.values(), arrangement.originals] if number == 0 else []
            samples, (order, *places) = _read_rows(shard, [piece.rows, *left_out], keys.num_rows)
            samples = self._set_keys(samples, order, piece)
            is_test = piece.is_test(self.plan.threshold)
            for part in parts_of_piece:
                chosen = (is_test == bool(part.split)) & (piece.partition == partitions[part.partition])
                tables = [samples.take(pa.array(place)) for place in places]
                dropped = dict(zip(arrangement.dropped, tables, strict=False))  # the last table is that of originals
                yield part, PartSamples(samples, order[chosen], dropped, tables[-1] if tables else None)
                places = []  # only the first part of the shard receives the samples that are left out

    def read_left_out(self, shard: ShardSamples) -> Iterator[tuple[str, pa.Table]]:
        """The samples of a shard that has no part, since policies leave all of them out; each with the reason."""
        keys = shard.read_keys()
        arrangement = arrange(keys, self.rules)
        if not arrangement.dropped:
            return
        samples, places = _read_rows(shard, list(arrangement.dropped.values()), keys.num_rows)
        samples = self._set_keys(samples, np.empty(0, np.int64), arrangement)
        for reason, place in zip(arrangement.dropped, places, strict=True):
            yield reason, samples.take(pa.array(place))

    def _set_keys(self, samples: pa.Table, places: I64, arrangement: Arrangement) -> pa.Table:
        """Gives samples the sessions, requests and times of the arrangement; the others keep those of the source.

        Args:
            samples: samples of a shard [n].
            places: int64 [K], the row of each sample of the arrangement.
            arrangement: the K samples that are kept.
        """
        final = {SESSION: arrangement.session, REQUEST: arrangement.request, TIMESTAMP: arrangement.time}
        for name, values in final.items():
            column = np.zeros(samples.num_rows, np.int64)
            if name != TIMESTAMP or self.has_time:
                if len(places) < samples.num_rows and name in samples.column_names:
                    column = samples[name].to_numpy().copy()
                column[places] = values
            array = pa.array(column)
            if name in samples.column_names:
                samples = samples.set_column(samples.column_names.index(name), name, array)
            else:
                samples = samples.append_column(name, array)
        return samples


class ShardReader:
    """Reads the shards that lie in run files: the :class:`ShardSource` of a run without Spark.

    Args:
        shards: the samples on disk.
        rules: what the source says about its keys.
        plan: the parts.
        has_time: whether the source names a timestamp; if not, the table's timestamps are 0.
    """

    def __init__(self, shards: Shards, rules: Rules, plan: PartsPlan, has_time: bool) -> None:
        self._samples, self._plan = shards.samples, plan
        self._reader = PartReader(rules, plan, shards.shard_bytes, has_time)
        self._begun: dict[int, Iterator[tuple[PlannedPart, PartSamples]]] = {}

    def read_first_part(self, keep: bool = False) -> PartSamples:
        """The samples of the first part.

        Args:
            keep: whether they stay in memory until the parts of their shard are read, which then begins with them.
        """
        shard = self._plan.parts[0].shard
        parts = self._read_shard(shard, [part for part in self._plan.parts if part.shard == shard])
        first = next(parts)
        if keep:
            self._begun[shard] = chain([first], parts)
        return first[1]

    def read_parts(self, shard: int, parts: Iterable[PlannedPart]) -> Iterator[tuple[PlannedPart, PartSamples]]:
        """The samples of the parts of a shard, with one piece of it in memory at a time."""
        return self._begun.pop(shard, None) or self._read_shard(shard, parts)

    def _read_shard(self, shard: int, parts: Iterable[PlannedPart]) -> Iterator[tuple[PlannedPart, PartSamples]]:
        return self._reader.read_parts(self._samples[shard], parts)

    def read_left_out(self) -> Iterator[tuple[str, pa.Table]]:
        """The samples of the shards that have no part, since policies leave all of them out; each with the reason."""
        with_parts = {part.shard for part in self._plan.parts}
        for number, shard in enumerate(self._samples):
            if number not in with_parts:
                yield from self._reader.read_left_out(shard)


def _read_rows(shard: ShardSamples, rows_of_lists: list[I64], num_rows: int) -> tuple[pa.Table, list[I64]]:
    """Brings some rows of a shard into memory.

    Args:
        shard: the samples of the shard.
        rows_of_lists: lists of rows of the shard, int64 [n] each.
        num_rows: the number of rows of the shard.

    Returns:
        The rows of all lists in the order of the shard, and for each list its rows' places among them.
    """
    is_read = np.zeros(num_rows, bool)
    for rows in rows_of_lists:
        is_read[rows] = True
    if is_read.all():
        return _concatenate(shard.read_samples()), rows_of_lists
    tables, first = [], 0
    for table in shard.read_samples():
        is_read_here = is_read[first : first + table.num_rows]
        first += table.num_rows
        if is_read_here.any():
            tables.append(table.filter(pa.array(is_read_here)))
    place = np.cumsum(is_read) - 1
    return _concatenate(tables), [place[rows] for rows in rows_of_lists]


def _concatenate(tables: Iterable[pa.Table]) -> pa.Table:
    """Joins tables to one with a single chunk a column, column by column, so that only one column is there twice."""
    table = pa.concat_tables(tables)
    schema, columns = table.schema, table.columns
    del table
    for place, column in enumerate(columns):
        columns[place] = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    return pa.Table.from_arrays([c.chunk(0) if isinstance(c, pa.ChunkedArray) else c for c in columns], schema=schema)
