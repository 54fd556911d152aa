"""Numbers of the sample, its features and its suggested groups, for people to read."""

import math
from collections.abc import Iterable

import numpy as np

from recd_dist.etl.source.inspection import SESSION
from recd_dist.etl.write.propose_groups import ProposedGroup
from recd_dist.suggest.batch_factors import CURVE_BATCH_SIZES, clustered_factor, time_order_factor
from recd_dist.suggest.features import SampledFeature
from recd_dist.suggest.sample import SessionSample
from recd_dist.suggest.sample_columns import Flags, SampleColumns
from recd_dist.suggest.storage_bytes import StorageBytes
from recd_dist.suggest.suggestion import Coverage, FeatureSummary, GroupSummary
from recd_dist.suggest.verdict import judge_feature
from recd_dist.table.schema import SAMPLE
from recd_dist.table.stats.row_repeats import I64, Spread, run_lengths

_PIECES = 32

Histogram = tuple[tuple[int, int, int], ...]
"""(least samples, most samples, number of sessions) for each bin."""


def summarize_coverage(sample: SessionSample, seconds: float) -> Coverage:
    """Says how much of the source a sample is.

    Args:
        sample: the sample.
        seconds: how long everything took, in seconds.
    """
    num_sessions = len(run_lengths(sample.samples[SESSION].to_numpy()))
    return Coverage(
        num_samples=sample.num_samples,
        num_samples_total=sample.num_total,
        num_sessions=num_sessions,
        num_sessions_total=num_sessions if sample.share == 1 else max(sample.num_sessions_total, num_sessions),
        share=sample.share,
        num_keyless=sample.num_keyless,
        is_cut=sample.is_cut,
        has_session=sample.rules.has_session,
        has_time=sample.rules.has_time,
        seconds=seconds,
    )


def summarize_sessions(sample: SessionSample) -> tuple[Spread, Histogram]:
    """Counts samples per session, and how many sessions have 1, 2-3, 4-7, ... samples."""
    sizes: I64 = run_lengths(sample.samples[SESSION].to_numpy())
    num_in_bin = np.bincount(np.floor(np.log2(sizes)).astype(int))
    return Spread.of(sizes), tuple((1 << i, (2 << i) - 1, int(num)) for i, num in enumerate(num_in_bin))


def summarize_features(
    features: Iterable[SampledFeature], groups: Iterable[ProposedGroup], storage: StorageBytes
) -> tuple[FeatureSummary, ...]:
    """Summarizes features.

    Args:
        features: every feature.
        groups: the suggested groups.
        storage: measures bytes on disk.
    """
    group_of = {name: group for group in groups for name in group.features}
    return tuple(_summarize_feature(feature, group_of.get(feature.name), storage) for feature in features)


def _summarize_feature(feature: SampledFeature, group: ProposedGroup | None, storage: StorageBytes) -> FeatureSummary:
    """Summarizes a feature of a suggested group, or of ``sample`` where there is none."""
    num_expanded, num_stored = feature.num_values(), feature.num_values(feature.flags)
    num_samples = len(feature.flags)
    flags = np.ones(num_samples, np.bool_) if group is None else group.flags
    has_windows = group is not None and feature.has_windows(flags)
    return FeatureSummary(
        name=feature.name,
        kind=str(feature.feature.kind),
        group=SAMPLE if group is None else group.name,
        num_per_sample=num_expanded / num_samples,
        stay_rate=feature.stay_rate,
        dedup_factor=num_expanded / num_stored if num_stored else num_samples / max(feature.num_rows, 1),
        shift_rate=feature.shift_rate,
        window_factor=num_expanded / max(feature.num_new, 1) if has_windows else math.nan,
        flat_bytes=storage.flat_bytes(feature.name),
        stored_bytes=(storage.window_bytes if has_windows else storage.row_bytes)(feature.name, flags),
        num_missing=feature.num_missing,
        verdict=judge_feature(feature, SAMPLE if group is None else group.name),
    )


def summarize_groups(groups: Iterable[ProposedGroup], columns: SampleColumns) -> tuple[GroupSummary, ...]:
    """Summarizes groups.

    Args:
        groups: the suggested groups.
        columns: the columns of the sampled sessions.
    """
    return tuple(_summarize_group(group, columns.new_session, columns.sample) for group in groups)


def _summarize_group(group: ProposedGroup, new_session: Flags, sample: SessionSample) -> GroupSummary:
    num_pairs = int((~new_session).sum())
    num_changes = int((group.flags & ~new_session).sum())
    train = group.flags[: sample.num_train] if sample.num_train else group.flags
    batch_sizes = [size for size in CURVE_BATCH_SIZES if size <= sample.num_total]
    return GroupSummary(
        name=group.name,
        features=group.features,
        num_rows=group.num_rows,
        stay_rate=1 - num_changes / num_pairs if num_pairs else math.nan,
        dedup_factor=len(train) / max(int(train.sum()), 1),
        factor_error=_factor_error(train, sample.share),
        clustered_at={size: clustered_factor(group.flags, size) for size in batch_sizes},
        in_time_at={size: time_order_factor(group.flags, sample.time_rank, size, sample.share) for size in batch_sizes},
    )


def _factor_error(flags: Flags, share: float) -> float:
    """How far samples per row may be off where only a share was read: twice the standard error, as a share of it.

    The sample is cut into pieces; how much the ratio differs from piece to piece says how far it is off in all.
    """
    if share == 1:
        return 0.0
    pieces = np.array_split(flags, min(_PIECES, len(flags)))
    num_samples, num_rows = np.array([len(p) for p in pieces]), np.array([p.sum() for p in pieces])
    residuals = num_samples - num_samples.sum() / num_rows.sum() * num_rows
    variance = (residuals**2).sum() * len(pieces) / max(len(pieces) - 1, 1) * (1 - share)
    return float(2 * np.sqrt(variance) / num_samples.sum())
