"""The form of a table, chosen by its samples: types, lists of ids, automatic groups."""

import logging
from collections.abc import Mapping
from dataclasses import replace

import pyarrow as pa

from recd_dist.errors import DataError
from recd_dist.etl.deal.load import PartSamples
from recd_dist.etl.deal.lookup import Lookup
from recd_dist.etl.deal.tally import Tally
from recd_dist.etl.deal.value_range import ValueRange
from recd_dist.etl.source.inspection import Inspection
from recd_dist.etl.source.source import Source
from recd_dist.etl.write.propose_groups import propose_groups
from recd_dist.etl.write.repeating_features import measure_repeats
from recd_dist.etl.write.row_groups import Samples
from recd_dist.etl.write.stored_types import stored_type
from recd_dist.etl.write.table_form import TableForm
from recd_dist.etl.write.windows_and_encodings import choose_windows_and_encodings
from recd_dist.table.schema import SAMPLE, Feature, Kind, Schema

logger = logging.getLogger(__name__)


def choose_form(
    source: Source,
    inspection: Inspection,
    first: PartSamples,
    tally: Tally,
    lookups: Mapping[str, Lookup],
    row_group_samples: int,
    compression: str,
    existing: Schema | None = None,
) -> TableForm:
    """Chooses the form that all parts of a table have.

    Args:
        source: the source, which may say which features have windows.
        inspection: the inspected source, which has the schema before its samples were seen.
        first: samples of the first part; automatic groups, windows and encodings are chosen by them.
        tally: the ranges of ids and the numbers of missing values of all samples.
        lookups: for each group with its own query the rows of that query.
        row_group_samples: the number of samples that a row group should have.
        compression: the compression of the files.
        existing: schema of the table that the samples are added to, whose form they must take.

    Raises:
        DataError: no sample finds its row in a group's query, or the samples do not fit the existing table.
    """
    seen = {name: replace(values) for name, values in tally.seen.items()}
    for group, lookup in lookups.items():
        _check_lookup(group, lookup, tally.num_unlinked[group], tally.num_rows)
        seen |= _see_lookup(lookup, inspection.schema.of_group(group), tally.num_unlinked[group])
    features = tuple(_settle_missing(feature, seen[feature.name]) for feature in inspection.schema.features)
    if existing is not None:
        _check_existing(features, existing)
        features = existing.features
    types = {feature.name: stored_type(feature, seen[feature.name]) for feature in features}
    schema = Schema(features, inspection.schema.labels)
    windows = {name: feature.window for name, feature in source.features.items() if feature.window is not None}
    if inspection.automatic and existing is None:
        schema = _choose_groups(schema, types, Samples.of(first.samples, first.order, row_group_samples), windows)
    if existing is not None:
        windows = {feature.name: feature.window for feature in existing.features}
    form = TableForm(schema, types, dict(lookups), row_group_samples, compression, source.readable_by)
    return choose_windows_and_encodings(form, first.samples, first.order, windows)


def _check_lookup(group: str, lookup: Lookup, num_missing: int, num_samples: int) -> None:
    """Refuses a group's query in which no sample finds a row, and warns of samples that find none."""
    if num_missing == num_samples:
        raise DataError(
            f"group '{group}': none of the {num_missing} samples finds its row among the {len(lookup)} of the group's "
            "query; is the key the same thing in both queries?"
        )
    if num_missing:
        logger.warning(
            "group '%s': %d of %d samples have no row in the group's query; their lists are empty and their numbers 0",
            group,
            num_missing,
            num_samples,
        )


def _see_lookup(lookup: Lookup, features: tuple[Feature, ...], num_missing: int) -> dict[str, ValueRange]:
    """Looks at the values of a group with its own query; they are missing for samples that have no row there."""
    seen = {feature.name: ValueRange(num_missing=num_missing) for feature in features}
    for batch in lookup.batches():
        for name, values in seen.items():
            values.include(batch.column(name))
    return seen


def _settle_missing(feature: Feature, seen: ValueRange) -> Feature:
    """The feature as it is stored, given how often it was missing; says in the log what stands for missing values."""
    if not seen.num_missing:
        return feature
    if feature.kind is Kind.id:
        logger.info("feature '%s': missing in some rows, so it becomes a list of no or one id", feature.name)
        return replace(feature, kind=Kind.ids)
    if feature.kind is Kind.dense:
        logger.info("feature '%s': missing in some rows, 0.0 stands there", feature.name)
    return feature


def _check_existing(features: tuple[Feature, ...], existing: Schema) -> None:
    """Refuses samples that miss ids where the existing table holds one id for each sample."""
    new = {feature.name: feature for feature in features}
    for feature in existing.features:
        if (feature.kind, new[feature.name].kind) == (Kind.id, Kind.ids):
            raise DataError(
                f"append: feature '{feature.name}' is missing in some of the new samples and never was in the table, "
                "which holds one id a sample; fill it with coalesce in the SQL, or make the table anew"
            )


def _choose_groups(
    schema: Schema,
    types: Mapping[str, pa.DataType],
    samples: Samples,
    windows: Mapping[str, bool],
) -> Schema:
    """Gives features the groups that ``recd stats raw --suggest`` would propose; the first part decides."""
    features, new_session = measure_repeats(schema.features, types, samples, windows)
    groups = propose_groups(features, new_session)
    group_of = {name: group.name for group in groups for name in group.features}
    shown = "; ".join(f"{group.name} {group.factor:.1f} ({', '.join(group.features)})" for group in groups)
    logger.info("automatic groups, with samples per stored row: %s", shown or "none, since no feature repeats enough")
    order = {group.name: number for number, group in enumerate(groups)}
    grouped = [replace(f, group=group_of.get(f.name, SAMPLE)) for f in schema.features]
    return Schema(tuple(sorted(grouped, key=lambda f: order.get(f.group, len(order)))), schema.labels)
