"""What the rows decide about a table: lists where ids are missing, types by ranges of ids, groups by repetition."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise

import pyarrow as pa

from recd_dist.errors import DataError
from recd_dist.etl.deal.load import PartSamples
from recd_dist.etl.deal.lookup import Lookup
from recd_dist.etl.deal.tally import Tally
from recd_dist.etl.deal.value_range import ValueRange
from recd_dist.etl.source.inspection import SESSION, Inspection
from recd_dist.etl.source.source import Source
from recd_dist.etl.write import cluster
from recd_dist.etl.write.part import Form
from recd_dist.etl.write.settle import settled
from recd_dist.etl.write.stored_types import converted, stored_type
from recd_dist.table.schema import SAMPLE, Feature, Kind, Schema

logger = logging.getLogger(__name__)

WORTH_A_GROUP = 1.5
"""A feature is deduplicated on its own from this dedup factor on (RecD's rule of thumb)."""

_MEASURED_ROW_GROUPS = 32


def formed(
    source: Source,
    inspection: Inspection,
    first: PartSamples,
    tally: Tally,
    lookups: Mapping[str, Lookup],
    row_group_samples: int,
    compression: str,
    existing: Schema | None = None,
) -> Form:
    """The form of every part.

    Args:
        source: says where windows are wanted.
        inspection: of the source.
        first: samples of the first part: automatic groups and windows are measured on them.
        tally: of all samples.
        lookups: of the groups with their own query.
        row_group_samples: the aim for a row group.
        compression: of the files.
        existing: schema of the table that is added to; the new samples take its form.

    Raises:
        DataError: a group's query that no sample finds a row in, or samples that do not fit the table that is there.
    """
    seen = {name: replace(found) for name, found in tally.seen.items()}
    num_samples = tally.num_rows
    for group, lookup in lookups.items():
        _look_up(group, lookup, inspection.schema, seen, tally.num_unlinked[group], num_samples)
    features = tuple(_settled(feature, seen[feature.name]) for feature in inspection.schema.features)
    if existing is not None:
        features = _fitted(features, existing)
    types = {feature.name: stored_type(feature, seen[feature.name]) for feature in features}
    schema = Schema(features, inspection.schema.labels)
    if inspection.automatic and existing is None:
        schema = _grouped(schema, types, first, row_group_samples)
    windows = {name: feature.window for name, feature in source.features.items() if feature.window is not None}
    if existing is not None:
        windows = {feature.name: feature.window for feature in existing.features}
    return settled(
        Form(schema, types, dict(lookups), row_group_samples, compression), first.samples, first.order, windows
    )


def _look_up(
    group: str, lookup: Lookup, schema: Schema, seen: dict[str, ValueRange], missing: int, num_samples: int
) -> None:
    """Looks at the values of a group with its own query, and reports samples that have no row there."""
    if missing == num_samples:
        raise DataError(
            f"group '{group}': none of the {missing} samples finds its row among the {len(lookup)} of the group's "
            "query; is the key the same thing in both queries?"
        )
    if missing:
        logger.warning(
            "group '%s': %d of %d samples have no row in the group's query; their lists are empty and their numbers 0",
            group,
            missing,
            num_samples,
        )
    for feature in schema.of_group(group):
        seen[feature.name] = ValueRange(num_missing=missing)
    for batch in lookup.batches():
        for feature in schema.of_group(group):
            seen[feature.name].include(batch.column(feature.name))


def _settled(feature: Feature, seen: ValueRange) -> Feature:
    if not seen.num_missing:
        return feature
    if feature.kind is Kind.id:
        logger.info("feature '%s': missing in some rows, so it becomes a list of no or one id", feature.name)
        return replace(feature, kind=Kind.ids)
    if feature.kind is Kind.dense:
        logger.info("feature '%s': missing in some rows, 0.0 stands there", feature.name)
    return feature


def _fitted(features: tuple[Feature, ...], existing: Schema) -> tuple[Feature, ...]:
    """The features as the table has them."""
    new = {feature.name: feature for feature in features}
    for feature in existing.features:
        found = new[feature.name]
        if (feature.kind, found.kind) == (Kind.id, Kind.ids):
            raise DataError(
                f"append: feature '{feature.name}' is missing in some of the new samples and never was in the table, "
                "which holds one id a sample; fill it with coalesce in the SQL, or make the table anew"
            )
    return existing.features


def _grouped(schema: Schema, types: Mapping[str, pa.DataType], first: PartSamples, row_group_samples: int) -> Schema:
    """Every feature whose rows repeat enough becomes a group of its own, measured on the first part's sessions."""
    order = first.order
    bounds, _ = cluster.row_group_bounds(first.samples[SESSION].to_numpy()[order], row_group_samples)
    bounds = bounds[: _MEASURED_ROW_GROUPS + 1]
    num_rows = dict.fromkeys((f.name for f in schema.features), 0)
    for start, end in pairwise(bounds.tolist()):
        samples = first.samples.take(pa.array(order[start:end]))
        for feature in schema.features:
            column, _ = converted(samples[feature.name], feature.kind, types[feature.name])
            num_rows[feature.name] += int(cluster.changed(column).sum())
    factors = {name: int(bounds[-1]) / rows for name, rows in num_rows.items()}
    features = [
        replace(f, group=_group_name(f.name) if factors[f.name] >= WORTH_A_GROUP else SAMPLE) for f in schema.features
    ]
    found = ", ".join(f"{f.name} {factors[f.name]:.1f}" for f in features if f.group != SAMPLE)
    logger.info("automatic groups, with dedup factors: %s", found or "none, as no feature repeats 1.5 times")
    return Schema(tuple(sorted(features, key=lambda f: f.group == SAMPLE)), schema.labels)


def _group_name(feature: str) -> str:
    return f"{feature}_" if feature in ("sample", "samples") else feature
