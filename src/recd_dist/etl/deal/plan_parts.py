"""The plan of all parts of a table, made from keys before a part is written.

::

    keys of shard 0   --survey-->  piece 0: train 2026-11-25 300 samples, test 40      part 0 of train, part 0 of test
    keys of shard 1   --survey-->  piece 0: train 2026-11-25 280 samples               part 1 of train
                                   piece 1: train 2026-11-25 110 samples               part 2 of train

So parts can be written in any order, by any number of threads, and again after a kill: neither their content nor their
names depend on it.
"""

import json
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recd_dist.errors import DataError
from recd_dist.etl.deal.arrange import Arrangement, arrange
from recd_dist.etl.deal.assign_sessions import Threshold, is_from_threshold, partition_name, split_threshold
from recd_dist.etl.deal.keys import I64, SIZE, Rules
from recd_dist.etl.deal.shards import Shards, ShardSamples
from recd_dist.files.whole_file import write_whole


@dataclass(frozen=True)
class PlannedPart:
    """A part that is to be written.

    Attributes:
        shard, piece: where its samples come from. A shard that is too large for memory has several pieces.
        split: the number of its split.
        partition: the name of its partition, or an empty string.
        number: the number of the part in its split's table.
        num_samples: the number of its samples.
        first_sample: the ``sample_id`` of its first sample.
    """

    shard: int
    piece: int
    split: int
    partition: str
    number: int
    num_samples: int
    first_sample: int


@dataclass(frozen=True)
class PartsPlan:
    """Every part that is to be written.

    Attributes:
        parts: the parts, in order of shard, piece, split and partition.
        threshold: where the test split begins, if it is a share of the sessions; else None.
        kept: the numbers of samples or sessions that policies keep but count, by reason.
    """

    parts: tuple[PlannedPart, ...]
    threshold: Threshold | None
    kept: dict[str, int]

    def save(self, path: Path) -> None:
        """Writes the plan to a file, whole or not at all."""
        write_whole(path, json.dumps(asdict(self)))

    @staticmethod
    def load(path: Path) -> "PartsPlan":
        """Reads the plan that ``save`` wrote."""
        value = json.loads(path.read_text())
        threshold = tuple(value["threshold"]) if value["threshold"] else None
        return PartsPlan(tuple(PlannedPart(**part) for part in value["parts"]), threshold, dict(value["kept"]))


@dataclass
class Survey:
    """How many samples each part of one shard will hold, as far as the keys of the shard tell.

    Attributes:
        counts: the number of samples by (piece, number of the split, number of the partition). It is empty where the
            split is a share of the sessions: then only all shards together tell which sessions are test sessions.
        kept: the numbers of samples or sessions that policies keep but count, by reason.
        sessions: int64 [4, n], piece, partition number, first time and id of each session, where the split is a share.
        samples: int64 [n], the number of samples of each of these sessions.
    """

    counts: dict[tuple[int, int, int], int] = field(default_factory=dict)
    kept: dict[str, int] = field(default_factory=dict)
    sessions: I64 = field(default_factory=lambda: np.zeros((4, 0), np.int64))
    samples: I64 = field(default_factory=lambda: np.zeros(0, np.int64))


def survey_shard(keys: pa.Table, rules: Rules, shard_bytes: int) -> Survey:
    """Counts the samples of one shard by the part to which they belong.

    Args:
        keys: the key columns of the shard's samples.
        rules: what the source says about its keys.
        shard_bytes: the most bytes that a piece of the shard may take in memory.

    Raises:
        DataError: a policy ends the run (:func:`recd_dist.etl.deal.arrange.arrange`).
    """
    arrangement = arrange(keys, rules)
    piece = piece_numbers(arrangement, keys[SIZE].to_numpy(), shard_bytes)
    survey = Survey(kept=arrangement.kept)
    if rules.test_share is None:
        part = np.stack([piece, arrangement.test.astype(np.int64), arrangement.partition])
        distinct, counts = np.unique(part, axis=1, return_counts=True)
        survey.counts = {(int(p), int(s), int(n)): int(c) for (p, s, n), c in zip(distinct.T, counts, strict=True)}
    else:
        session = np.stack([piece, arrangement.partition, arrangement.start, arrangement.session])
        survey.sessions, survey.samples = np.unique(session, axis=1, return_counts=True)
    return survey


def survey_shards(shards: Shards, rules: Rules, num_threads: int) -> list[Survey]:
    """Surveys all shards, ``num_threads`` at a time; the result has the order of the shards."""

    def survey(samples: ShardSamples) -> Survey:
        return survey_shard(samples.read_keys(), rules, shards.shard_bytes)

    with ThreadPoolExecutor(num_threads) as pool:
        return list(pool.map(survey, shards.samples))


def plan_parts(
    surveys: Iterable[Survey],
    rules: Rules,
    splits: tuple[str, ...],
    first_parts: Mapping[str, int],
    first_samples: Mapping[str, int],
    must_have: Collection[str],
) -> PartsPlan:
    """Numbers the parts of all shards and their samples.

    Args:
        surveys: one survey for each shard, in the order of the shards.
        rules: what the source says about its keys.
        splits: the names of the splits.
        first_parts: the number of the first part to write, by split.
        first_samples: the number of the first sample to write, by split.
        must_have: the splits that need a new sample; a table that is added to has some already.

    Raises:
        DataError: such a split gets no sample, or there is no sample at all.
    """
    surveys = list(surveys)
    threshold = None if rules.test_share is None else _find_threshold(surveys, rules.test_share)
    parts: list[PlannedPart] = []
    next_part, next_sample = dict(first_parts), dict(first_samples)
    kept: dict[str, int] = {}
    for shard, survey in enumerate(surveys):
        for reason, count in survey.kept.items():
            kept[reason] = kept.get(reason, 0) + count
        for (piece, split, partition), count in sorted(_count_samples(survey, threshold).items()):
            name = splits[min(split, len(splits) - 1)]
            label = partition_name(partition, rules.partition)
            parts.append(PlannedPart(shard, piece, split, label, next_part[name], count, next_sample[name]))
            next_part[name] += 1
            next_sample[name] += count
    if not parts:
        raise DataError("no sample is left: the policies leave out every one; check data.policy and data.sample")
    for number, name in enumerate(splits):
        if name in must_have and not any(part.split == number for part in parts):
            raise DataError(f"split: no sample is in '{name}'; check the predicate or share against the data")
    return PartsPlan(tuple(parts), threshold, kept)


def _find_threshold(surveys: Iterable[Survey], test_share: float) -> Threshold:
    """Where the test split begins among the sessions of all shards; a session in several pieces counts once."""
    sessions = np.unique(np.concatenate([survey.sessions[2:] for survey in surveys], axis=1), axis=1)
    return split_threshold(sessions[1], sessions[0], test_share)


def _count_samples(survey: Survey, threshold: Threshold | None) -> dict[tuple[int, int, int], int]:
    """The number of samples by (piece, number of the split, number of the partition)."""
    if threshold is None:
        return survey.counts
    piece, partition, start, session = survey.sessions
    split = is_from_threshold(session, start, threshold).astype(int)
    counts: dict[tuple[int, int, int], int] = {}
    parts = zip(piece.tolist(), split.tolist(), partition.tolist(), strict=True)
    for part, count in zip(parts, survey.samples.tolist(), strict=True):
        counts[part] = counts.get(part, 0) + count
    return counts


def piece_bounds(arrangement: Arrangement, sizes: npt.NDArray[np.int32], max_bytes: int) -> I64:
    """Where to cut a shard so that no piece of it is larger than a limit; slices of sessions stay whole.

    Args:
        arrangement: the K samples of the shard that are kept.
        sizes: int32 [all samples of the shard], the bytes of each sample.
        max_bytes: the limit; a piece of a single slice may be larger.

    Returns:
        int64 [pieces + 1], from 0 to K.
    """
    total = np.cumsum(sizes[arrangement.rows], dtype=np.int64)
    ends = np.append(np.flatnonzero(np.diff(arrangement.session_slice)) + 1, len(arrangement.rows))
    bounds = [0]
    while bounds[-1] < len(arrangement.rows):
        before = int(total[bounds[-1] - 1]) if bounds[-1] else 0
        fits = np.searchsorted(total[ends - 1], before + max_bytes, side="right") - 1
        place = max(int(fits), int(np.searchsorted(ends, bounds[-1], side="right")))
        bounds.append(int(ends[place]))
    return np.asarray(bounds, np.int64)


def piece_numbers(arrangement: Arrangement, sizes: npt.NDArray[np.int32], max_bytes: int) -> I64:
    """The number of each sample's piece: int64 [K]; :func:`piece_bounds` says what pieces are and what it takes."""
    bounds = piece_bounds(arrangement, sizes, max_bytes)
    return np.repeat(np.arange(len(bounds) - 1), np.diff(bounds))
