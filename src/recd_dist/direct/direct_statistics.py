"""The manifest of flat files: exact where footers tell it, measured in some units where they do not."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from recd_dist.direct.footers import FlatFiles
from recd_dist.direct.measured_units import MeasuredGroup, MeasuredUnits
from recd_dist.errors import ConfigError, DataError
from recd_dist.etl.write.feature_sums import FeatureSums
from recd_dist.reader.direct_table import Conversion, DirectManifest
from recd_dist.screen.command_line import command_line, override
from recd_dist.table.manifest import FeatureStats, IdStats
from recd_dist.table.schema import SESSION_ID, Schema


def with_statistics(
    manifest: DirectManifest,
    measured: MeasuredUnits,
    groups: Mapping[str, MeasuredGroup],
    ways: Mapping[str, float],
    flat: FlatFiles,
    conversions: Mapping[str, Conversion],
    sizes: Mapping[str, Any],
    unlabelled: str,
) -> DirectManifest:
    """The manifest with the statistics of features, labels, ids and groups.

    Args:
        manifest: parts, schema and number of samples.
        measured: some units of it.
        groups: how often the rows of each group repeat.
        ways: samples per row of each group, in the way in which equal rows will be found.
        flat: the footers.
        conversions: how each column is made.
        sizes: what the config says of embedding tables.
        unlabelled: the policy for samples of which a label is missing, ``error`` or ``keep``.

    Raises:
        ConfigError: the size of a table cannot be told.
        DataError: a label is missing in some samples.
    """
    schema, num = manifest.schema, manifest.num_samples
    scale = num / max(measured.num_samples, 1)
    features = {}
    for feature in schema.features:
        sums = measured.sums_of(schema, feature.name)
        share = groups[feature.group].by_session if feature.group in groups else 1.0
        features[feature.name] = _scaled(sums, scale, share)
    labels = {name: _label_stats(name, measured, flat, num, unlabelled) for name in schema.labels}
    sessions = [rows[SESSION_ID] for rows in measured.rows if SESSION_ID in rows.column_names]
    num_sessions = round(scale * sum(len(column.unique()) for column in sessions)) if sessions else num
    return replace(
        manifest,
        features=features,
        labels=labels,
        ids={table: _id_stats(table, schema, measured, flat, conversions, sizes) for table in schema.tables},
        group_rows={group: max(round(num / factor), 1) for group, factor in ways.items()},
        num_sessions=min(num_sessions, num),
        num_requests=num,
    )


def _scaled(sums: FeatureSums, scale: float, factor: float) -> FeatureStats:
    """The statistics of a feature, whose counts grow with the samples."""
    stats = sums.stats(sums)
    num = round(stats.num_values_expanded * scale)
    return replace(
        stats,
        num_values_expanded=num,
        num_values_unique=round(num / factor),
        num_null=round(stats.num_null * scale),
    )


def _label_stats(name: str, measured: MeasuredUnits, flat: FlatFiles, num: int, unlabelled: str) -> FeatureStats:
    """The statistics of a label: smallest, largest and missing ones by the footers where they tell."""
    sums, told = measured.label_sums(name), flat.range_of(name)
    missing = max(told.num_null or 0, sums.num_null)
    if missing and unlabelled == "error":
        raise DataError(
            f"label '{name}' is missing in {missing:,} samples or more; data.policy.unlabelled=keep trains each task "
            "on the samples that have its label, and `recd etl` can leave such samples out"
        )
    stats = sums.stats(sums)
    low, high = (float(v) if isinstance(v, int | float) else None for v in (told.low, told.high))
    return replace(
        stats,
        min=stats.min if low is None else min(low, stats.min),
        max=stats.max if high is None else max(high, stats.max),
        num_null=0 if unlabelled == "error" else max(missing, 1) if measured.num_samples < num else missing,
    )


def _id_stats(
    table: str,
    schema: Schema,
    measured: MeasuredUnits,
    flat: FlatFiles,
    conversions: Mapping[str, Conversion],
    sizes: Mapping[str, Any],
) -> IdStats:
    """Range and number of the ids of an embedding table.

    Raises:
        ConfigError: ids are row numbers, and nobody knows how far they go.
    """
    ids, num_distinct = measured.count_ids(schema, table)
    seen = ids.stats()
    low, high = seen.min_id, seen.max_id
    given = {option: value for option, value in (sizes.get(table) or {}).items() if value is not None}
    for feature in (f for f in schema.sparse if f.table == table):
        conversion = conversions[feature.name]
        if conversion.per_value or conversion.sql:
            continue  # hashed texts, or bits of an unsigned number: they are spread over all 64 bits
        told = flat.range_of(conversion.raw[0])
        if isinstance(told.low, int) and isinstance(told.high, int):
            low, high = min(low, told.low), max(high, told.high)
        elif not measured.is_all and not given.keys() & {"num_embeddings", "hashed", "mapped"}:
            lines = " or ".join(
                command_line(override(("data", "tables", table, name), value))
                for name, value in (("num_embeddings", 1 << 20), ("hashed", True))
            )
            raise ConfigError(
                f"data.tables.{table}: the footers say nothing of the ids of '{feature.name}', so that nobody knows "
                f"how many rows the table needs; say it: {lines}"
            )
    return IdStats(low, high, min(num_distinct, high - low + 1))
