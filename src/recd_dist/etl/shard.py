"""Samples into shards: read once, dealt by session, then planned by their keys alone.

::

    query      a1 b1 a2 c1 b2 ...        (a..c: sessions)                                    (RecD's O1)
    shard 0    a1 a2                     every sample of a session is in one shard
    shard 1    b1 b2 c1                  a shard is at most ``shard_bytes``: it is sorted in memory          (O2)
    parts      (shard, piece, split, partition), each with its number and the number of its first sample

The plan is made before the first part is written, so that parts can be written in any order, by any number of threads,
and again after a kill: what they hold and what they are called does not depend on it.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from recd_dist.errors import DataError
from recd_dist.etl.columns import REQUEST, SESSION, TIMESTAMP
from recd_dist.etl.keys import (
    I64,
    SIZE,
    Arrangement,
    Rules,
    arranged,
    is_test,
    partition_name,
    ranges,
    test_threshold,
)
from recd_dist.etl.prepare import Preparation, Tally
from recd_dist.etl.spill import Runs, Spill

MIN_BUCKETS, MAX_BUCKETS = 64, 1024


@dataclass(frozen=True)
class PartPlan:
    """A part that is to be written.

    Attributes:
        shard, piece: where its samples come from; a shard too large for memory has several pieces.
        split: number of the split.
        partition: name, or nothing.
        number: of the part in its split's table.
        num_samples: of the part.
        first_sample: ``sample_id`` of its first sample.
    """

    shard: int
    piece: int
    split: int
    partition: str
    number: int
    num_samples: int
    first_sample: int


@dataclass(frozen=True)
class Shards:
    """Samples in shards, and what was noted on the way; kept on disk, so that a run can go on.

    Attributes:
        runs: the samples.
        tally: of all batches.
        shard_bytes: the most that a piece of a shard has in memory.
    """

    runs: Runs
    tally: Tally
    shard_bytes: int

    @property
    def buckets(self) -> list[list[int]]:
        """Buckets of each shard."""
        return self.runs.groups(self.shard_bytes)

    def save(self, path: Path) -> None:
        """Writes what is needed beside the run files, whole or not at all."""
        value = {
            "tally": asdict(self.tally),
            "num_rows": self.runs.num_rows.tolist(),
            "num_bytes": self.runs.num_bytes.tolist(),
            "shard_bytes": self.shard_bytes,
        }
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(value))
        partial.replace(path)

    @staticmethod
    def load(path: Path, directory: Path) -> "Shards":
        """What ``save`` wrote."""
        value = json.loads(path.read_text())
        runs = Runs(directory, np.array(value["num_rows"], np.int64), np.array(value["num_bytes"], np.int64))
        return Shards(runs, Tally.from_json(value["tally"]), value["shard_bytes"])


def sharded(
    batches: Iterable[pa.RecordBatch],
    preparation: Preparation,
    directory: Path,
    *,
    buffer_bytes: int,
    shard_bytes: int,
    num_buckets: int,
    done: Callable[[int], None],
) -> Shards:
    """Reads all samples and deals them into run files.

    Args:
        batches: the normalised samples query's result.
        preparation: of each batch.
        directory: for run files.
        buffer_bytes: samples held before a run is written.
        shard_bytes: the aim for a shard.
        num_buckets: a power of two.
        done: called with the number of rows of each batch.

    Raises:
        DataError: no samples, or one that cannot be used.
    """
    tally = Tally()
    spill = Spill(directory, buffer_bytes, num_buckets)
    try:
        for batch in batches:
            if batch.num_rows:
                table, noted = preparation.prepared(batch, tally.num_rows)
                tally.merge(noted)
                spill.add(table)
                done(batch.num_rows)
        runs = spill.finished()
    finally:
        spill.close()
    check_left(tally, int(runs.num_rows.sum()))
    return Shards(runs, tally, shard_bytes)


def check_left(tally: Tally, num_samples: int) -> None:
    """Refuses to go on with nothing.

    Raises:
        DataError: no samples, before or after the policies.
    """
    if not tally.num_rows:
        raise DataError("the samples query returned no rows; check path and query")
    if not num_samples:
        left = ", ".join(f"{reason} {count:,}" for reason, count in tally.dropped.counts.items())
        raise DataError(f"no sample of {tally.num_rows:,} is left after the policies ({left}); check data.policy")


@dataclass
class Survey:
    """What the keys of one shard say: samples per (piece, split, partition), or per session until the split is known.

    Attributes:
        counts: (piece, split, partition number) -> samples.
        kept: what policies kept but want told.
        sessions: int64 [4, n]: piece, partition, start, session, where the split is a share of the sessions.
        samples: int64 [n], samples of each.
    """

    counts: dict[tuple[int, int, int], int] = field(default_factory=dict)
    kept: dict[str, int] = field(default_factory=dict)
    sessions: I64 = field(default_factory=lambda: np.zeros((4, 0), np.int64))
    samples: I64 = field(default_factory=lambda: np.zeros(0, np.int64))


def surveyed(keys: pa.Table, rules: Rules, shard_bytes: int) -> Survey:
    """Looks at the keys of one shard.

    Raises:
        DataError: what ``arranged`` refuses.
    """
    found = arranged(keys, rules)
    piece = _pieces(found, keys, shard_bytes)
    survey = Survey(kept=found.kept)
    if rules.test_share is None:
        where = np.stack([piece, found.test.astype(np.int64), found.partition])
        distinct, counts = np.unique(where, axis=1, return_counts=True)
        survey.counts = {(int(p), int(s), int(n)): int(c) for (p, s, n), c in zip(distinct.T, counts, strict=True)}
    else:
        where = np.stack([piece, found.partition, found.start, found.session])
        survey.sessions, survey.samples = np.unique(where, axis=1, return_counts=True)
    return survey


def _pieces(found: Arrangement, keys: pa.Table, shard_bytes: int) -> I64:
    """The piece of each sample: int64 [K]."""
    bounds = ranges(found, keys[SIZE].to_numpy(), shard_bytes)
    return np.repeat(np.arange(len(bounds) - 1), np.diff(bounds))


@dataclass(frozen=True)
class Plan:
    """Every part that is to be written.

    Attributes:
        parts: in order of shard, piece, split, partition.
        threshold: the first (start, session) of the test split where it is a share of the sessions.
        kept: what policies kept but want told.
    """

    parts: tuple[PartPlan, ...]
    threshold: tuple[int, int] | None
    kept: dict[str, int]

    def of_split(self, split: int) -> tuple[PartPlan, ...]:
        """The parts of one split."""
        return tuple(part for part in self.parts if part.split == split)


def planned(
    surveys: Iterable[Survey],
    rules: Rules,
    splits: tuple[str, ...],
    first_parts: Mapping[str, int],
    first: Mapping[str, int],
) -> Plan:
    """Numbers the parts of all shards.

    Args:
        surveys: of the shards, in order.
        rules: of the source.
        splits: names of the splits.
        first_parts: per split the number of its first part.
        first: per split the number of its first sample.

    Raises:
        DataError: a split without a sample.
    """
    surveys = list(surveys)
    threshold = None
    if rules.test_share is not None:
        every = np.concatenate([s.sessions for s in surveys], axis=1)
        distinct = np.unique(every[2:], axis=1)
        threshold = test_threshold(distinct[1], distinct[0], rules.test_share)
    parts: list[PartPlan] = []
    next_part, next_sample = dict(first_parts), dict(first)
    kept: dict[str, int] = {}
    for shard, survey in enumerate(surveys):
        for reason, count in survey.kept.items():
            kept[reason] = kept.get(reason, 0) + count
        for (piece, split, partition), count in sorted(_counts(survey, threshold).items()):
            name = splits[min(split, len(splits) - 1)]
            label = partition_name(partition, rules.partition)
            parts.append(PartPlan(shard, piece, split, label, next_part[name], count, next_sample[name]))
            next_part[name] += 1
            next_sample[name] += count
    for number, name in enumerate(splits):
        if not any(part.split == number for part in parts):
            raise DataError(f"split: no sample is in '{name}'; check the predicate or share against the data")
    return Plan(tuple(parts), threshold, kept)


def _counts(survey: Survey, threshold: tuple[int, int] | None) -> dict[tuple[int, int, int], int]:
    if threshold is None:
        return survey.counts
    piece, partition, start, session = survey.sessions
    test = (start > threshold[0]) | ((start == threshold[0]) & (session >= threshold[1]))
    counts: dict[tuple[int, int, int], int] = {}
    for key in zip(piece.tolist(), test.astype(int).tolist(), partition.tolist(), survey.samples.tolist(), strict=True):
        counts[key[:3]] = counts.get(key[:3], 0) + key[3]
    return counts


@dataclass(frozen=True)
class Loaded:
    """Samples of a part in memory.

    Attributes:
        samples: with final session, request and timestamp columns.
        order: int64 [n], its rows in the order of the table.
        dropped: samples that a policy leaves out, by reason; told once a shard, with its first part.
    """

    samples: pa.Table
    order: I64
    dropped: Mapping[str, pa.Table] = field(default_factory=dict)


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
        piece = _pieces(found, keys, self._shards.shard_bytes)
        test = is_test(found, self._plan.threshold)
        numbers = {partition_name(n, self._rules.partition): n for n in np.unique(found.partition).tolist()}
        wanted = list(wanted)
        for number in sorted({part.piece for part in wanted}):
            inside = piece == number
            rows = found.rows[inside]
            extra = found.dropped if number == 0 else {}
            samples, places = self._samples(buckets, [rows, *extra.values()], keys.num_rows)
            samples = self._keyed(samples, places[0], found.where(inside))
            for part in wanted:
                if part.piece == number:
                    mine = test[inside] == bool(part.split)
                    partition = found.partition[inside] == numbers[part.partition]
                    dropped = {
                        reason: samples.take(pa.array(place)) for reason, place in zip(extra, places[1:], strict=True)
                    }
                    extra, places = {}, places[:1]
                    yield part, Loaded(samples, places[0][mine & partition], dropped)

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


def survey_all(shards: Shards, rules: Rules, num_threads: int) -> list[Survey]:
    """Looks at the keys of every shard."""

    def one(buckets: list[int]) -> Survey:
        return surveyed(shards.runs.keys(buckets), rules, shards.shard_bytes)

    with ThreadPoolExecutor(num_threads) as pool:
        return list(pool.map(one, shards.buckets))


def plan_to_json(plan: Plan) -> dict[str, Any]:
    """A JSON-ready dict; ``plan_from_json`` is its inverse."""
    return asdict(plan)


def plan_from_json(value: Mapping[str, Any]) -> Plan:
    """The plan that ``plan_to_json`` wrote."""
    threshold = tuple(value["threshold"]) if value["threshold"] else None
    return Plan(tuple(PartPlan(**part) for part in value["parts"]), threshold, dict(value["kept"]))
