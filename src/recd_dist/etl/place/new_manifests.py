"""Manifests, statistics and ids of the tables that a run has made or added to."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from recd_dist.etl.deal.tally import Dropped
from recd_dist.etl.place.added_before import merge_raw_files
from recd_dist.etl.place.base_tables import BaseTables
from recd_dist.etl.place.run_output import RunOutput
from recd_dist.etl.place.sketches import SKETCHES, load_sketches
from recd_dist.etl.place.statistics import STATISTICS, PartStatistics, load_statistics, sum_parts
from recd_dist.etl.write.distinct_ids import DistinctIds
from recd_dist.etl.write.feature_sums import FeatureSums
from recd_dist.table.manifest import Manifest

_NONE = FeatureSums()

DROPPED_CHECKSUMS = "dropped_checksums"
"""Key of ``Manifest.source``: per reason and column the checksum of the samples that were left out, in every split."""


def merge_ids(output: RunOutput, base: BaseTables) -> dict[str, DistinctIds]:
    """Merges the ids of the new parts with those that the tables had before.

    Args:
        output: what the run has written; its ids are changed in place.
        base: the tables that the run adds to.

    Returns:
        Per embedding table the distinct ids of the whole tables, all splits together.
    """
    ids = output.written.ids
    if base.kept_in is not None:
        for name, distinct in load_sketches(base.kept_in / base.splits[0] / SKETCHES).items():
            ids.setdefault(name, DistinctIds()).merge(distinct)
    return ids


def merge_statistics(output: RunOutput, base: BaseTables) -> dict[str, dict[int, PartStatistics]]:
    """Joins the statistics of the new parts and of the old parts that stay.

    Args:
        output: what the run has written.
        base: the tables that the run adds to.

    Returns:
        Per split and number of a part its statistics.
    """
    merged = {}
    for split, results in output.written.parts.items():
        parts: dict[int, PartStatistics] = {}
        if base.kept_in is not None:
            before = load_statistics(base.kept_in / split / STATISTICS)
            gone = output.replaces.get(split, frozenset())
            parts = {p.number: before[p.number] for p in base.manifests[split].parts if p.number not in gone}
        merged[split] = parts | {result.part.number: result.features for result in results}
    return merged


def build_manifests(
    output: RunOutput,
    base: BaseTables,
    statistics: Mapping[str, Mapping[int, PartStatistics]],
    ids: Mapping[str, DistinctIds],
) -> dict[str, Manifest]:
    """Builds the manifest of each split.

    The manifests agree on ids, and on the numbers by which inputs are standardized: those of the train split.

    Args:
        output: what the run has written.
        base: the tables that the run adds to.
        statistics: the statistics of each part, by split and number.
        ids: the distinct ids of each embedding table.

    Returns:
        Per split its manifest.
    """
    sums = {split: sum_parts(parts) for split, parts in statistics.items()}
    train = sums[base.splits[0]]
    return {split: _build_manifest(split, output, base, sums[split], train, ids) for split in output.written.parts}


def _build_manifest(
    split: str,
    output: RunOutput,
    base: BaseTables,
    sums: PartStatistics,
    train: PartStatistics,
    ids: Mapping[str, DistinctIds],
) -> Manifest:
    before, gone = base.manifests.get(split), output.replaces.get(split, frozenset())
    kept = () if before is None else tuple(p for p in before.parts if p.number not in gone)
    parts = (*kept, *(result.part for result in output.written.parts[split]))
    dropped = _dropped_before(before) if before else Dropped()
    if output.describes is None:
        dropped.merge(output.written.dropped)
    schema, num_samples = output.form.schema, sum(part.num_samples for part in parts)
    return Manifest(
        name=output.source.name,
        split=split,
        schema=schema,
        num_samples=num_samples,
        num_sessions=sum(part.num_sessions for part in parts),
        num_requests=sum(part.num_requests for part in parts),
        group_rows={group: sum(sum(part.groups[group].row_groups) for part in parts) for group in schema.dedup_groups},
        features={f.name: sums[f.name].stats(train[f.name]) for f in schema.features},
        labels={name: of.stats(of) for name in schema.labels if (of := sums.get(name, _NONE)).num_seen == num_samples},
        ids={table: distinct.stats() for table, distinct in ids.items()},
        parts=parts,
        source=_describe_source(output, dropped),
        sessions=output.describes.sessions if output.describes else output.source.session_words,
        dropped=dropped.counts,
        next_part=max([p.number + 1 for p in parts] + [before.next_part if before else 0]),
        next_sample=max([p.first_sample + p.num_samples for p in parts] + [before.next_sample if before else 0]),
        partition=output.source.partition,
        runs=(*(before.runs if before else ()), output.run),
        raw_files=merge_raw_files(before.raw_files if before else (), output.raw_files),
        announcements=tuple(dict.fromkeys((*(before.announcements if before else ()), *output.announcements))),
    )


def _describe_source(output: RunOutput, dropped: Dropped) -> dict[str, Any]:
    """How the table was made: source, queries, options, and checksums of the samples that were left out."""
    if output.describes is not None:
        return output.describes.source
    value = asdict(output.source) | {"samples_sql": output.inspection.samples, "groups_sql": output.inspection.groups}
    value |= {"row_group_samples": output.form.row_group_samples, "compression": output.form.compression}
    return dict(_lists_for_tuples(value | {DROPPED_CHECKSUMS: dropped.checksums}))


def _dropped_before(manifest: Manifest) -> Dropped:
    """The samples that earlier runs left out, as the manifest has them."""
    checksums = {reason: dict(columns) for reason, columns in manifest.source.get(DROPPED_CHECKSUMS, {}).items()}
    return Dropped(dict(manifest.dropped), checksums)


def _lists_for_tuples(value: Any) -> Any:
    """The value with lists in place of tuples, so that a manifest that is read back equals the one written."""
    if isinstance(value, dict):
        return {key: _lists_for_tuples(item) for key, item in value.items()}
    return [_lists_for_tuples(item) for item in value] if isinstance(value, list | tuple) else value
