"""Opens flat Parquet files as a table that is trained on directly, without an ETL.

::

    data config --Source--> footers --> schema, conversions --> units --> some are measured --> DirectTable
                            what differs between files is said here      groups, ways, statistics
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from recd_dist.direct.conversions import conversions_of
from recd_dist.direct.direct_statistics import with_statistics
from recd_dist.direct.footers import FlatFiles, read_flat_files
from recd_dist.direct.measured_units import MIN_GAIN, MeasuredGroup, MeasuredUnits, stored_types
from recd_dist.direct.refusals import refuse_unable
from recd_dist.direct.split_units import split_units
from recd_dist.direct.units import Parts, count_rows_of, cut_units, sequences_of
from recd_dist.errors import ConfigError, nearest
from recd_dist.etl.source.described_queries import RawQuery
from recd_dist.etl.source.inspection import inspect_columns
from recd_dist.etl.source.source import Source
from recd_dist.etl.write.propose_groups import propose_groups
from recd_dist.etl.write.repeating_features import measure_repeats
from recd_dist.reader.direct_files import DirectFiles
from recd_dist.reader.direct_table import (
    HASH,
    NEIGHBOURS,
    Conversion,
    DirectManifest,
    DirectTable,
    manifest_parts,
)
from recd_dist.table.announcement import announce
from recd_dist.table.location import location
from recd_dist.table.schema import SAMPLE, Kind, Schema

logger = logging.getLogger(__name__)

_WAYS = ("auto", NEIGHBOURS, HASH)
_TRAIN = "train"


def open_direct(
    data: Mapping[str, Any],
    equal_rows: str = "auto",
    groups: Mapping[str, Sequence[str]] | None = None,
    *,
    only_whole: bool = False,
) -> DirectTable:
    """Opens the files that ``path`` names; reads footers and a few units.

    Args:
        data: the data config as plain values, which the ETL could read as well.
        equal_rows: how equal rows are found: ``neighbours``, ``hash``, or ``auto`` by measuring.
        groups: the features of each group as an earlier run has them; None takes those of the config, or measures.
        only_whole: pass over files that have no footer yet, since they are being written.

    Returns:
        The split ``train``, with the others beside it.

    Raises:
        ConfigError, DataError: options that need the ETL, files that do not fit; the message names them.
    """
    if equal_rows not in _WAYS:
        raise ConfigError(f"reader.equal_rows={equal_rows}: unknown{nearest(equal_rows, _WAYS)}")
    given = {} if groups is None else {"groups": {name: list(of) for name, of in groups.items()}}
    source = Source.from_dict({**data, **given})
    refuse_unable(source)
    flat = read_flat_files(source.path, source.drop, only_whole=only_whole, snapshot=data.get("snapshot"))
    raw = RawQuery(f"select * from '{source.path}'", flat.types, flat.durations)
    inspection = inspect_columns(replace(source, split=None), raw, {})
    announce(inspection.announcements, strict=False)
    conversions = conversions_of(source, inspection, flat.types)
    schema = _settle_missing(inspection.schema, conversions, flat)
    parts = cut_units(flat.files)
    table = _table_of(source, flat, schema, conversions, parts, _TRAIN)
    divided = split_units(source.split, table, flat)
    tables = {name: _table_of(source, flat, schema, conversions, of, name) for name, of in divided.items()}
    measured = MeasuredUnits.read(DirectFiles(tables[_TRAIN], schema))
    if inspection.automatic and groups is None:
        schema = _choose_groups(schema, measured)
    found = {group: measured.measure_group(schema, group) for group in schema.dedup_groups}
    ways = {group: _choose_way(equal_rows, of) for group, of in found.items()}
    factors = {g: of.by_hash if ways[g] == HASH else of.by_neighbours for g, of in found.items()}
    if groups is None:
        _report(source.path, schema, measured, found, ways)
    result = {}
    for name, split in tables.items():
        manifest = replace(split.manifest, schema=schema)
        args = (measured, found, factors, flat, conversions, data.get("tables") or {}, source.policy.unlabelled)
        result[name] = replace(split, manifest=with_statistics(manifest, *args), ways=ways)
    others = {name: split for name, split in result.items() if name != _TRAIN}
    return replace(result[_TRAIN], others=others).of_partitions(data.get("partitions"))


def _table_of(
    source: Source, flat: FlatFiles, schema: Schema, conversions: Mapping[str, Conversion], parts: Parts, split: str
) -> DirectTable:
    """A table of some parts, without statistics."""
    manifest = DirectManifest(
        name=source.name,
        split=split,
        schema=schema,
        num_samples=count_rows_of(parts),
        num_sessions=0,
        num_requests=0,
        group_rows={},
        features={},
        ids={},
        parts=manifest_parts(flat.files, parts, flat.root),
        source=_source_of(source, flat),
        sessions=source.session_words,
        sequences=sequences_of(parts),
    )
    return DirectTable(location(source.path), manifest, flat.files, tuple(parts), conversions, {})


def _source_of(source: Source, flat: FlatFiles) -> dict[str, Any]:
    """What the manifest says of its source: columns, and the types of those that stand in the files themselves."""
    types = {name: kind for name, kind in flat.types.items() if name not in flat.files[0].folders}
    known = {"drop": list(source.drop), "keys": source.keys, "weight": source.weight}
    return {"columns": list(flat.types), "types": types, **known}


def _settle_missing(schema: Schema, conversions: Mapping[str, Conversion], flat: FlatFiles) -> Schema:
    """The schema in which an id that is missing in some rows, by the footers, is a list of no or one id."""
    features = []
    for feature in schema.features:
        if feature.kind is Kind.id:
            num_null = flat.range_of(conversions[feature.name].raw[0]).num_null
            if num_null != 0:
                told = (
                    f"missing in {num_null:,} rows" if num_null else "perhaps missing in some rows, footers do not say"
                )
                logger.info("feature '%s': %s, so it becomes a list of no or one id", feature.name, told)
                feature = replace(feature, kind=Kind.ids)  # noqa: PLW2901
        features.append(feature)
    return replace(schema, features=tuple(features))


def _choose_groups(schema: Schema, measured: MeasuredUnits) -> Schema:
    """Gives features the groups that the ETL would propose for the units that were measured."""
    windows = {f.name: False for f in schema.features}
    types = stored_types(measured.rows[0], schema)
    features, new_session = measure_repeats(schema.features, types, measured.samples(), windows)
    groups = propose_groups(features, new_session)
    group_of = {name: group.name for group in groups for name in group.features}
    order = {group.name: number for number, group in enumerate(groups)}
    grouped = [replace(f, group=group_of.get(f.name, SAMPLE)) for f in schema.features]
    return Schema(tuple(sorted(grouped, key=lambda f: order.get(f.group, len(order)))), schema.labels)


def _choose_way(wanted: str, measured: MeasuredGroup) -> str:
    """How equal rows of a group are found."""
    if wanted != "auto":
        return wanted
    return HASH if measured.by_hash >= MIN_GAIN * measured.by_neighbours else NEIGHBOURS


def _report(
    path: str, schema: Schema, measured: MeasuredUnits, found: Mapping[str, MeasuredGroup], ways: Mapping[str, str]
) -> None:
    """Says which way is taken, what repeats, and what the ETL would gain."""
    seen = f"{measured.num_samples:,} of {measured.num_all:,} samples"
    if not found:
        logger.info("%s: read directly; no group of features repeats enough in %s", path, seen)
        return
    for group, of in found.items():
        names = ", ".join(f.name for f in schema.of_group(group))
        logger.info(
            "%s: group %s (%s): %.2f samples a row by neighbours, %.2f by hash, measured in %s; taken: %s",
            path, group, names, of.by_neighbours, of.by_hash, seen, ways[group],
        )  # fmt: skip
    every = sum(of.value_bytes for of in found.values())
    now = sum(of.value_bytes / (of.by_hash if ways[g] == HASH else of.by_neighbours) for g, of in found.items())
    sorted_bytes = sum(of.value_bytes / of.by_session for of in found.values())
    logger.info(
        "%s: read directly, all %.0f bytes a sample of these groups are decoded, and %.0f are left in batches; in a "
        "table of `recd etl` at most %.0f would be stored and decoded (%.1fx fewer)",
        path, every, now, min(sorted_bytes, now), every / max(min(sorted_bytes, now), 1e-9),
    )  # fmt: skip
