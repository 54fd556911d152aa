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
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from recd_dist.errors import DataError
from recd_dist.etl.deal.keys import I64, SIZE, Arrangement, Rules, arranged, partition_name, ranges, test_threshold
from recd_dist.etl.deal.prepare import Preparation, Tally
from recd_dist.etl.deal.spill import Runs, Spill
from recd_dist.files.whole_file import write_whole

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
        write_whole(path, json.dumps(value))

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
    piece = pieces_of(found, keys, shard_bytes)
    survey = Survey(kept=found.kept)
    if rules.test_share is None:
        where = np.stack([piece, found.test.astype(np.int64), found.partition])
        distinct, counts = np.unique(where, axis=1, return_counts=True)
        survey.counts = {(int(p), int(s), int(n)): int(c) for (p, s, n), c in zip(distinct.T, counts, strict=True)}
    else:
        where = np.stack([piece, found.partition, found.start, found.session])
        survey.sessions, survey.samples = np.unique(where, axis=1, return_counts=True)
    return survey


def pieces_of(found: Arrangement, keys: pa.Table, shard_bytes: int) -> I64:
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


def planned(
    surveys: Iterable[Survey],
    rules: Rules,
    splits: tuple[str, ...],
    first_parts: Mapping[str, int],
    first: Mapping[str, int],
    must_have: Collection[str],
) -> Plan:
    """Numbers the parts of all shards.

    Args:
        surveys: of the shards, in order.
        rules: of the source.
        splits: names of the splits.
        first_parts: per split the number of its first part.
        first: per split the number of its first sample.
        must_have: splits that need a sample; a table that is added to has some already.

    Raises:
        DataError: such a split without a sample, or no sample at all.
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
    if not parts:
        raise DataError("no sample is left: the policies leave out every one; check data.policy and data.sample")
    for number, name in enumerate(splits):
        if name in must_have and not any(part.split == number for part in parts):
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
