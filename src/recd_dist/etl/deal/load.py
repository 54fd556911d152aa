"""Shards into memory: the samples of each part, a piece of a shard at a time."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from recd_dist.etl.deal.keys import I64, Arrangement, Rules, arranged, is_test, partition_name
from recd_dist.etl.deal.shards import PartPlan, Plan, Shards, pieces_of
from recd_dist.etl.source.inspection import REQUEST, SESSION, TIMESTAMP


@dataclass(frozen=True)
class Loaded:
    """Samples of a part in memory.

    Attributes:
        samples: with final session, request and timestamp columns.
        order: int64 [n], its rows in the order of the table.
        dropped: samples that a policy leaves out, by reason; told once a shard, with its first part.
        originals: for each sample dropped as a duplicate by its hash the one that it should equal.
    """

    samples: pa.Table
    order: I64
    dropped: Mapping[str, pa.Table] = field(default_factory=dict)
    originals: pa.Table | None = None


class ShardReader:
    """Reads shards as the plan has cut them.

    Args:
        shards: on disk.
        rules: of the source.
        plan: of the parts.
        has_time: the source names a timestamp; else the table's timestamps are 0.
    """

    def __init__(self, shards: Shards, rules: Rules, plan: Plan, has_time: bool) -> None:
        self._shards, self._rules, self._plan, self._has_time = shards, rules, plan, has_time
        self._buckets = shards.buckets

    def first(self) -> Loaded:
        """The samples of the first part."""
        part = self._plan.parts[0]
        return next(iter(self.parts(part.shard, [part])))[1]

    def parts(self, shard: int, wanted: Iterable[PartPlan]) -> Iterable[tuple[PartPlan, Loaded]]:
        """The samples of some parts of a shard, one piece of it in memory at a time."""
        buckets = self._buckets[shard]
        keys = self._shards.runs.keys(buckets)
        found = arranged(keys, self._rules)
        piece = pieces_of(found, keys, self._shards.shard_bytes)
        test = is_test(found, self._plan.threshold)
        numbers = {partition_name(n, self._rules.partition): n for n in np.unique(found.partition).tolist()}
        wanted = list(wanted)
        for number in sorted({part.piece for part in wanted}):
            inside = piece == number
            rows = found.rows[inside]
            extra = found.dropped if number == 0 else {}
            originals = found.originals if number == 0 else found.originals[:0]
            samples, places = self._samples(buckets, [rows, *extra.values(), originals], keys.num_rows)
            samples = self._keyed(samples, places[0], found.where(inside))
            for part in wanted:
                if part.piece == number:
                    mine = test[inside] == bool(part.split)
                    partition = found.partition[inside] == numbers[part.partition]
                    left_out = dict(zip((*extra, ""), places[1:], strict=False))  # of the first part only
                    tables = {reason: samples.take(pa.array(place)) for reason, place in left_out.items()}
                    same = tables.pop("", None)
                    extra, places = {}, places[:1]
                    yield part, Loaded(samples, places[0][mine & partition], tables, same)

    def left_out(self) -> Iterator[tuple[str, pa.Table]]:
        """Samples of the shards that have no part, since a policy leaves out all that they hold; with the reason."""
        for shard in sorted(set(range(len(self._buckets))) - {part.shard for part in self._plan.parts}):
            keys = self._shards.runs.keys(self._buckets[shard])
            found = arranged(keys, self._rules)
            if not found.dropped:
                continue
            samples, places = self._samples(self._buckets[shard], list(found.dropped.values()), keys.num_rows)
            samples = self._keyed(samples, np.empty(0, np.int64), found)
            yield from ((reason, samples.take(pa.array(p))) for reason, p in zip(found.dropped, places, strict=True))

    def _samples(self, buckets: list[int], wanted: list[I64], num_rows: int) -> tuple[pa.Table, list[I64]]:
        """Some rows of a shard, and where each list of rows lies in what is returned."""
        taken = np.zeros(num_rows, bool)
        for rows in wanted:
            taken[rows] = True
        if taken.all():
            return _in_one(self._shards.runs.pieces(buckets)), wanted
        pieces, first = [], 0
        for table in self._shards.runs.pieces(buckets):
            mine = taken[first : first + table.num_rows]
            first += table.num_rows
            if mine.any():
                pieces.append(table.filter(pa.array(mine)))
        place = np.cumsum(taken) - 1
        return _in_one(pieces), [place[rows] for rows in wanted]

    def _keyed(self, samples: pa.Table, places: I64, found: Arrangement) -> pa.Table:
        """The samples with the sessions, requests and times of the arrangement; those left out keep the source's."""
        for name, values in ((SESSION, found.session), (REQUEST, found.request), (TIMESTAMP, found.time)):
            column = np.zeros(samples.num_rows, np.int64)
            if name != TIMESTAMP or self._has_time:
                if len(places) < samples.num_rows and name in samples.column_names:
                    column = samples[name].to_numpy().copy()
                column[places] = values
            array = pa.array(column)
            if name in samples.column_names:
                samples = samples.set_column(samples.column_names.index(name), name, array)
            else:
                samples = samples.append_column(name, array)
        return samples


def _in_one(pieces: Iterable[pa.Table]) -> pa.Table:
    """Tables one after the other, each column in one piece; a column at a time, so that only one is there twice."""
    table = pa.concat_tables(pieces)
    schema, columns = table.schema, table.columns
    del table
    for place, column in enumerate(columns):
        columns[place] = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    return pa.Table.from_arrays([c.chunk(0) if isinstance(c, pa.ChunkedArray) else c for c in columns], schema=schema)
