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

from recd_dist.table.location import Location, location
from recd_dist.table.manifest import Manifest
from recd_dist.table.schema import SAMPLE, Kind
from recd_dist.table.stats.batch_cost import DIM, STEP, Cost, row_cost
from recd_dist.table.stats.disk import Footer, raw_bytes, table_bytes
from recd_dist.table.stats.json_values import to_json_value
from recd_dist.table.stats.row_repeats import BATCH_SIZES, RowRepeats, SampleKeys, Spread, run_lengths


@dataclass(frozen=True)
class FeatureStat:
    """One feature.

    Attributes:
        name, kind, group, table: name, kind, group and embedding table of the feature, as in the schema.
        num_per_sample: mean number of ids (or of dense numbers) that a sample carries.
        max_length: length of the longest list.
        stay_rate: d of the feature; nan where no session has two samples.
        num_stored: number of ids (or dense numbers) in the table.
        num_expanded: number of ids (or dense numbers) if every sample carried its own.
        dedup_factor: ``num_expanded`` over ``num_stored``.
        id_bytes: bytes of an id as stored; 0 for dense features.
        num_bytes: compressed bytes on disk.
        window: whether the feature is stored as windows over streams of ids.
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
    window: bool


@dataclass(frozen=True)
class GroupStat:
    """One group; or all groups together, named ``total``, whose dedup factors are those of ids.

    Attributes:
        name: name of the group; ``sample`` is never deduplicated.
        num_features: number of its features.
        num_rows: number of unique rows that are stored.
        stay_rate: d of the group's rows; nan where no session has two samples.
        dedup_factor: samples per stored row.
        dedup_factor_at: batch size -> samples per unique row in batches of consecutive samples.
        predicted: the dedup factor that S and d alone would give.
        expanded: what a batch of ``STEP`` consecutive samples costs with one row for each sample.
        unique: what the same batch costs with each unique row once.
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
class TableStats:
    """A clustered table in numbers.

    Attributes:
        name, split: name and split of the table.
        num_samples, num_sessions, num_requests: number of samples, sessions and requests.
        session, request: samples per session and per request.
        per_session_in_time_order: samples per session in batches of 4096 sorted by time; nan without timestamps.
        per_session_clustered: samples per session in batches of 4096 as they are stored.
        label_means: the mean of each label, over the samples that have it.
        features, groups: features and groups in schema order.
        total: all groups together.
        num_bytes: bytes of this split's Parquet files.
        num_table_bytes: bytes of all splits of the table.
        num_raw_bytes: bytes of the raw files that the table was made from; None where nothing is known of them.
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
        """A dict that JSON can hold; a number that does not exist is None."""
        value: dict[str, Any] = to_json_value(asdict(self) | {"step_samples": STEP, "dim": DIM})
        return value


def measure_table(table: Location) -> TableStats:
    """Measures a clustered table.

    Args:
        table: the directory of one split.

    Raises:
        DataError: no table is there, or a file is missing or cut off.
    """
    table = location(table)
    manifest = Manifest.load(table)
    keys = SampleKeys.read(table, manifest)
    footers = {group: Footer.read(table, manifest, group) for group in manifest.schema.groups}
    features = tuple(_feature_stat(manifest, f.name, footers) for f in manifest.schema.features)
    groups = tuple(_group_stat(manifest, group, features, keys, footers) for group in manifest.schema.groups)
    return TableStats(
        name=manifest.name,
        split=manifest.split,
        num_samples=manifest.num_samples,
        num_sessions=manifest.num_sessions,
        num_requests=manifest.num_requests,
        session=Spread.of(run_lengths(keys.sessions)),
        request=Spread.of(run_lengths(keys.sessions, keys.requests)),
        per_session_in_time_order=keys.samples_per_session(in_time_order=True),
        per_session_clustered=keys.samples_per_session(in_time_order=False),
        label_means=keys.label_means,
        features=features,
        groups=groups,
        total=_total_stat(manifest, features, groups),
        num_bytes=manifest.num_bytes,
        num_table_bytes=table_bytes(table, manifest),
        num_raw_bytes=raw_bytes(manifest),
    )


def _feature_stat(manifest: Manifest, name: str, footers: dict[str, Footer]) -> FeatureStat:
    """The numbers of one feature."""
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
        window=feature.window,
    )


def _group_stat(
    manifest: Manifest, name: str, features: tuple[FeatureStat, ...], keys: SampleKeys, footers: dict[str, Footer]
) -> GroupStat:
    """The numbers of one group."""
    members = tuple(f for f in features if f.group == name)
    sparse = [f for f in members if f.kind != Kind.dense]
    num_samples, num_bytes = max(manifest.num_samples, 1), sum(footers[name].num_bytes.values())
    expanded = row_cost((f.num_expanded / num_samples, f.id_bytes) for f in sparse) * STEP
    if name == SAMPLE:
        # Keys, labels and row numbers belong to no feature but lie in the same files: their bytes count here.
        ones = dict.fromkeys(BATCH_SIZES, 1.0)
        return GroupStat(name, len(members), num_samples, math.nan, 1.0, ones, 1.0, expanded, expanded, num_bytes)
    num_rows = max(manifest.group_rows[name], 1)
    repeats = keys.repeats[name]
    factor_at = {size: manifest.num_samples / max(unique, 1) for size, unique in repeats.unique_at.items()}
    return GroupStat(
        name=name,
        num_features=len(members),
        num_rows=manifest.group_rows[name],
        stay_rate=repeats.stay_rate,
        dedup_factor=manifest.dedup_factor(name),
        dedup_factor_at=factor_at,
        predicted=_predicted_factor(manifest, repeats),
        expanded=expanded,
        unique=row_cost((f.num_stored / num_rows, f.id_bytes) for f in sparse) * (STEP / factor_at[STEP]),
        num_bytes=num_bytes,
    )


def _predicted_factor(manifest: Manifest, repeats: RowRepeats) -> float:
    """The dedup factor that S and d alone would give."""
    per_session = manifest.num_samples / max(manifest.num_sessions, 1)
    stay_rate = 0.0 if math.isnan(repeats.stay_rate) else repeats.stay_rate
    return per_session / (1 + (per_session - 1) * (1 - stay_rate))


def _total_stat(manifest: Manifest, features: tuple[FeatureStat, ...], groups: tuple[GroupStat, ...]) -> GroupStat:
    """All groups together, weighted by their ids."""
    sparse = [f for f in features if f.kind != Kind.dense]
    num_stored, num_expanded = sum(f.num_stored for f in sparse), sum(f.num_expanded for f in sparse)
    all_ids = sum(g.expanded.ids for g in groups)
    ids_at = {
        size: sum(g.unique.ids * g.dedup_factor_at[STEP] / g.dedup_factor_at[size] for g in groups)
        for size in BATCH_SIZES
    }
    predicted_ids = sum(g.expanded.ids / g.predicted for g in groups)
    stay_rates = [(g.stay_rate, g.expanded.ids) for g in groups if not math.isnan(g.stay_rate)]
    weight = sum(ids for _, ids in stay_rates)
    nothing = Cost(0.0, 0.0, 0.0)
    return GroupStat(
        name="total",
        num_features=len(features),
        num_rows=manifest.num_samples,
        stay_rate=sum(stay_rate * ids for stay_rate, ids in stay_rates) / weight if weight else math.nan,
        dedup_factor=num_expanded / num_stored if num_stored else 1.0,
        dedup_factor_at={size: all_ids / ids if ids else 1.0 for size, ids in ids_at.items()},
        predicted=all_ids / predicted_ids if predicted_ids else 1.0,
        expanded=sum((g.expanded for g in groups), nothing),
        unique=sum((g.unique for g in groups), nothing),
        num_bytes=manifest.num_bytes,
    )
