"""What a clustered table holds, and what each group costs expanded and unique.

::

    S                 samples per session         d   the share of neighbours in a session whose row is the same
    dedup factor      samples per unique row: over the table, and within batches of consecutive samples
    predicted         S / (1 + (S - 1)(1 - d)): what S and d alone would give
    a step            ids and bytes of one batch, if every sample carries its own row, and if each row goes once

Everything is read from the manifest, the Parquet footers, the labels and the int64 keys; no list is decoded.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recd_dist.table.location import Location, location
from recd_dist.table.manifest import Manifest
from recd_dist.table.schema import REQUEST_ID, SAMPLE, SESSION_ID, TIMESTAMP, Kind
from recd_dist.table.stats.disk import Footer, opened, raw_bytes, table_bytes

BATCH_SIZES = (512, 2048, 4096)
"""Batch sizes at which dedup factors are measured."""

STEP = 2048
"""Samples of the batch whose cost is shown; one of BATCH_SIZES."""

DIM = 64
"""Width of an embedding row in the cost shown, float32."""

_WINDOW = 4096
_LENGTH_BYTES = 4

I64 = NDArray[np.int64]


@dataclass(frozen=True)
class FeatureStat:
    """One feature.

    Attributes:
        name, kind, group, table: as in the schema.
        num_per_sample: ids (or numbers) a sample carries, mean.
        max_length: longest list.
        stay_rate: d (nan where no session has two samples).
        num_stored, num_expanded: ids (or numbers) in the table, and if every sample carried its own.
        dedup_factor: expanded per stored.
        id_bytes: width of an id as stored (0 for dense features).
        num_bytes: compressed bytes on disk.
    """

    name: str
    kind: str
    group: str
    table: str | None
    num_per_sample: float
    max_length: int
    stay_rate: float
    num_stored: int
    num_expanded: int
    dedup_factor: float
    id_bytes: int
    num_bytes: int


@dataclass(frozen=True)
class Cost:
    """What a batch costs to move: ids, bytes of ids and int32 lengths, bytes of pooled rows (``DIM`` float32 each)."""

    ids: float
    input_bytes: float
    output_bytes: float

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.ids + other.ids, self.input_bytes + other.input_bytes, self.output_bytes + other.output_bytes)

    def __mul__(self, rows: float) -> "Cost":
        return Cost(self.ids * rows, self.input_bytes * rows, self.output_bytes * rows)


@dataclass(frozen=True)
class GroupStat:
    """One group, or all together (named ``total``; its dedup factors are those of ids).

    Attributes:
        name: of the group; ``sample`` is never deduplicated.
        num_features: how many.
        num_rows: unique rows stored.
        stay_rate: d of the group's rows (nan where no session has two samples).
        dedup_factor: samples per stored row.
        dedup_factor_at: batch size -> samples per unique row in batches of consecutive samples.
        predicted: the factor that S and d predict.
        expanded, unique: what a batch of ``STEP`` consecutive samples costs with a row per sample, and per unique row.
        num_bytes: compressed bytes on disk.
    """

    name: str
    num_features: int
    num_rows: int
    stay_rate: float
    dedup_factor: float
    dedup_factor_at: dict[int, float]
    predicted: float
    expanded: Cost
    unique: Cost
    num_bytes: int


@dataclass(frozen=True)
class Spread:
    """Mean, median and largest of a count."""

    mean: float
    median: float
    max: int


@dataclass(frozen=True)
class TableStats:
    """A clustered table in numbers.

    Attributes:
        name, split: of the table.
        num_samples, num_sessions, num_requests: counts.
        session, request: samples per session and per request.
        per_session_in_time_order: samples per session in batches of 4096 sorted by time (nan without timestamps).
        per_session_clustered: the same in batches of 4096 as stored.
        label_means: mean of each label.
        features, groups: in schema order.
        total: all groups together.
        num_bytes: of this split's Parquet files.
        num_table_bytes: of all splits of the table.
        num_raw_bytes: of the raw files that the table was made of, where they still lie there; else None.
    """

    name: str
    split: str
    num_samples: int
    num_sessions: int
    num_requests: int
    session: Spread
    request: Spread
    per_session_in_time_order: float
    per_session_clustered: float
    label_means: dict[str, float]
    features: tuple[FeatureStat, ...]
    groups: tuple[GroupStat, ...]
    total: GroupStat
    num_bytes: int
    num_table_bytes: int
    num_raw_bytes: int | None

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict; a number that does not exist is None."""
        value: dict[str, Any] = _plain(asdict(self) | {"step_samples": STEP, "dim": DIM})
        return value


def table_stats(table: Location) -> TableStats:
    """Measures a clustered table.

    Args:
        table: its directory (one split).

    Raises:
        DataError: no table there, or a file that is missing or cut off.
    """
    table = location(table)
    manifest = Manifest.load(table)
    seen = _Seen.of(table, manifest)
    sizes = _run_lengths(seen.sessions)
    footers = {group: Footer.of(table, manifest, group) for group in manifest.schema.groups}
    features = tuple(_feature(manifest, name, footers) for name in (f.name for f in manifest.schema.features))
    groups = tuple(_group(manifest, group, features, seen, footers) for group in manifest.schema.groups)
    return TableStats(
        name=manifest.name,
        split=manifest.split,
        num_samples=manifest.num_samples,
        num_sessions=manifest.num_sessions,
        num_requests=manifest.num_requests,
        session=_spread(sizes),
        request=_spread(_run_lengths(seen.sessions, seen.requests)),
        per_session_in_time_order=seen.per_session(by_time=True),
        per_session_clustered=seen.per_session(by_time=False),
        label_means=seen.label_means,
        features=features,
        groups=groups,
        total=_total(manifest, features, groups),
        num_bytes=manifest.num_bytes,
        num_table_bytes=table_bytes(table, manifest),
        num_raw_bytes=raw_bytes(manifest),
    )


@dataclass(frozen=True)
class _Repeats:
    """A group's rows over all samples: neighbours in a session, those with the same row, and unique rows by batch."""

    num_pairs: int
    num_same: int
    unique_at: dict[int, int]


@dataclass(frozen=True)
class _Seen:
    """Keys of all samples, int64 [N] in table order, and what the row numbers say about each group."""

    sessions: I64
    requests: I64
    times: I64
    label_means: dict[str, float]
    groups: dict[str, _Repeats]

    @staticmethod
    def of(table: Location, manifest: Manifest) -> "_Seen":
        """Reads the samples' keys, labels and row numbers, one part at a time."""
        names, labels = manifest.schema.dedup_groups, manifest.schema.labels
        columns = [SESSION_ID, REQUEST_ID, TIMESTAMP, *labels, *(f"{name}_row" for name in names)]
        keys: dict[str, list[I64]] = {SESSION_ID: [], REQUEST_ID: [], TIMESTAMP: []}
        sums = dict.fromkeys(labels, 0.0)
        repeats = {name: _Repeats(0, 0, dict.fromkeys(BATCH_SIZES, 0)) for name in names}
        for part in manifest.parts:
            with opened(table, part.samples) as file:
                samples = file.read(columns)
            for name, chunks in keys.items():
                chunks.append(samples[name].to_numpy())
            for label in labels:
                sums[label] += float(samples[label].to_numpy().sum(dtype=np.float64))
            same_session = keys[SESSION_ID][-1][1:] == keys[SESSION_ID][-1][:-1]
            for name in names:
                repeats[name] = _with_rows(repeats[name], samples[f"{name}_row"].to_numpy(), same_session)
        whole = {name: np.concatenate([np.empty(0, np.int64), *chunks]) for name, chunks in keys.items()}
        means = {label: total / max(manifest.num_samples, 1) for label, total in sums.items()}
        return _Seen(whole[SESSION_ID], whole[REQUEST_ID], whole[TIMESTAMP], means, repeats)

    def per_session(self, by_time: bool) -> float:
        """Samples per session in batches of 4096 consecutive samples."""
        sessions = self.sessions
        if by_time:
            if not len(self.times) or self.times.min() == self.times.max():
                return math.nan
            sessions = sessions[np.argsort(self.times, kind="stable")]
        windows = [sessions[start : start + _WINDOW] for start in range(0, len(sessions), _WINDOW)]
        return len(sessions) / max(1, sum(len(np.unique(window)) for window in windows))


def _with_rows(before: _Repeats, rows: I64, same_session: NDArray[np.bool_]) -> _Repeats:
    """Adds a part's row numbers, which never decrease: unique rows of a batch are its changes."""
    same = rows[1:] == rows[:-1]
    changed = np.append(True, ~same)
    unique_at = {
        # A row that a batch shares with the one before is unique in both.
        size: before.unique_at[size] + int(changed.sum() + (~changed[::size]).sum())
        for size in BATCH_SIZES
    }
    return _Repeats(
        before.num_pairs + int(same_session.sum()), before.num_same + int((same_session & same).sum()), unique_at
    )


def _feature(manifest: Manifest, name: str, footers: dict[str, Footer]) -> FeatureStat:
    """One feature's numbers."""
    feature, stats = manifest.schema[name], manifest.features[name]
    footer = footers[feature.group]
    return FeatureStat(
        name=name,
        kind=str(feature.kind),
        group=feature.group,
        table=feature.table,
        num_per_sample=stats.num_values_expanded / max(manifest.num_samples, 1),
        max_length=stats.max_length,
        stay_rate=stats.stay_rate,
        num_stored=stats.num_values_unique,
        num_expanded=stats.num_values_expanded,
        dedup_factor=stats.num_values_expanded / stats.num_values_unique if stats.num_values_unique else 1.0,
        id_bytes=footer.widths.get(name, 4) if feature.kind is not Kind.dense else 0,
        num_bytes=footer.num_bytes.get(name, 0),
    )


def _group(
    manifest: Manifest, name: str, features: tuple[FeatureStat, ...], seen: _Seen, footers: dict[str, Footer]
) -> GroupStat:
    """One group's numbers."""
    mine = tuple(f for f in features if f.group == name)
    num_samples = max(manifest.num_samples, 1)
    num_rows = num_samples if name == SAMPLE else max(manifest.group_rows[name], 1)
    per_sample = _row_cost(mine, [f.num_expanded / num_samples for f in mine])
    if name == SAMPLE:
        # Keys, labels and row numbers are of no feature but lie in the same files: they count here.
        ones = dict.fromkeys(BATCH_SIZES, 1.0)
        cost = per_sample * STEP
        return GroupStat(
            name, len(mine), num_rows, math.nan, 1.0, ones, 1.0, cost, cost, sum(footers[name].num_bytes.values())
        )
    repeats = seen.groups[name]
    stay = repeats.num_same / repeats.num_pairs if repeats.num_pairs else math.nan
    factor_at = {size: manifest.num_samples / max(unique, 1) for size, unique in repeats.unique_at.items()}
    mean_session = manifest.num_samples / max(manifest.num_sessions, 1)
    per_row = _row_cost(mine, [f.num_stored / num_rows for f in mine])
    return GroupStat(
        name=name,
        num_features=len(mine),
        num_rows=manifest.group_rows[name],
        stay_rate=stay,
        dedup_factor=manifest.dedup_factor(name),
        dedup_factor_at=factor_at,
        predicted=mean_session / (1 + (mean_session - 1) * (1 - (0.0 if math.isnan(stay) else stay))),
        expanded=per_sample * STEP,
        unique=per_row * (STEP / factor_at[STEP]),
        num_bytes=sum(footers[name].num_bytes.values()),
    )


def _row_cost(features: tuple[FeatureStat, ...], ids: list[float]) -> Cost:
    """What one row of some features costs to move, given the mean ids of each."""
    sparse = [(f, num) for f, num in zip(features, ids, strict=True) if f.kind != Kind.dense]
    return Cost(
        ids=sum(num for _, num in sparse),
        input_bytes=sum(num * f.id_bytes + _LENGTH_BYTES for f, num in sparse),
        output_bytes=float(len(sparse) * DIM * 4),
    )


def _total(manifest: Manifest, features: tuple[FeatureStat, ...], groups: tuple[GroupStat, ...]) -> GroupStat:
    """All groups together, weighted by their ids."""
    sparse = [f for f in features if f.kind != Kind.dense]
    stored, expanded = sum(f.num_stored for f in sparse), sum(f.num_expanded for f in sparse)
    nothing = Cost(0.0, 0.0, 0.0)
    per_batch = {
        size: sum(g.unique.ids * g.dedup_factor_at[STEP] / g.dedup_factor_at[size] for g in groups)
        for size in BATCH_SIZES
    }
    all_ids = sum(g.expanded.ids for g in groups)
    pairs = [(g.stay_rate, g.expanded.ids) for g in groups if not math.isnan(g.stay_rate)]
    weight = sum(ids for _, ids in pairs)
    factor = expanded / stored if stored else 1.0
    return GroupStat(
        name="total",
        num_features=len(features),
        num_rows=manifest.num_samples,
        stay_rate=sum(stay * ids for stay, ids in pairs) / weight if weight else math.nan,
        dedup_factor=factor,
        dedup_factor_at={size: all_ids / ids if ids else 1.0 for size, ids in per_batch.items()},
        predicted=all_ids / ids if (ids := sum(g.expanded.ids / g.predicted for g in groups)) else 1.0,
        expanded=sum((g.expanded for g in groups), nothing),
        unique=sum((g.unique for g in groups), nothing),
        num_bytes=manifest.num_bytes,
    )


def _run_lengths(*keys: I64) -> I64:
    """Lengths of the runs in which no key changes, int64."""
    num = len(keys[0])
    if not num:
        return np.zeros(0, np.int64)
    changed = np.append(True, np.logical_or.reduce([key[1:] != key[:-1] for key in keys]))
    return np.diff(np.append(np.flatnonzero(changed), num))


def _spread(counts: I64) -> Spread:
    if not len(counts):
        return Spread(0.0, 0.0, 0)
    return Spread(float(counts.mean()), float(np.median(counts)), int(counts.max()))


def _plain(value: Any) -> Any:
    """JSON has no nan and only strings for keys."""
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and math.isnan(value) else value
