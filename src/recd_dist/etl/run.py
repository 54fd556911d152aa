"""Raw logs to clustered tables, one per split: the whole flow on one page.

::

    source --inspect--> queries --DuckDB--> samples --shard by session--> sort, compare, write --> DIR/train, DIR/test

Everything is built in a hidden directory beside DIR and renamed at the end: DIR is whole or absent.
"""

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from recd_dist.errors import ConfigError, DataError
from recd_dist.etl import cluster
from recd_dist.etl import sql as engine
from recd_dist.etl.columns import SESSION, Inspection, inspected
from recd_dist.etl.convert import converted, stored_type
from recd_dist.etl.lookup import Lookup
from recd_dist.etl.part import Form, Result, written
from recd_dist.etl.place import built
from recd_dist.etl.progress import Progress
from recd_dist.etl.settle import settled
from recd_dist.etl.shard import Seen, Shards, sharded
from recd_dist.etl.source import Source
from recd_dist.etl.write import checked_compression
from recd_dist.manifest import Manifest
from recd_dist.schema import SAMPLE, Feature, Kind, Schema

logger = logging.getLogger(__name__)

WORTH_A_GROUP = 1.5
"""A feature is deduplicated on its own from this dedup factor on (RecD's rule of thumb)."""

_BATCH_ROWS = 8192
_SHARD_BYTES = 128 << 20
_MEASURED_ROW_GROUPS = 32
_NUM_WORKERS = 2


def etl(
    source: Source,
    out: Path,
    *,
    overwrite: bool = False,
    row_group_samples: int = 8192,
    compression: str = "zstd",
    memory_limit: str = "1GB",
    shard_bytes: int = _SHARD_BYTES,
    progress: bool = True,
) -> dict[str, Manifest]:
    """Writes a source's clustered tables, ``out/train`` and, with a split, ``out/test``.

    Args:
        source: what to read.
        out: directory to make; its parent is made as needed.
        overwrite: replace the tables that are there.
        row_group_samples: the aim for a row group; sessions stay whole.
        compression: ``zstd`` (a level per column), ``zstd:LEVEL`` or ``lz4`` (larger, faster to read).
        memory_limit: of DuckDB; it spills beside ``out``.
        shard_bytes: the aim for a shard, in Arrow's memory; two are worked on at once.
        progress: show a progress bar.

    Returns:
        The manifest of each split.

    Raises:
        DataError: data that does not fit its description, a table that is there already, or a disk that is full.
        ConfigError: an unknown compression, or row groups of no sample.
    """
    checked_compression(compression)
    if row_group_samples < 1:
        raise ConfigError(f"row_group_samples={row_group_samples}: must be at least 1")
    with built(out, overwrite) as partial, Progress(progress) as bar:
        work = partial / "work"
        work.mkdir()
        with engine.connect(memory_limit, spill=work) as connection:
            found = inspected(source, connection)
            lookups = {name: Lookup(name, connection, sql, work / f"{name}.rows") for name, sql in found.groups.items()}
            batches = _batches(connection, found.samples)
            share = source.split if isinstance(source.split, float) else None
            bar.reading()
            shards = sharded(batches, found.schema, lookups, share, work, shard_bytes, bar.advance)
        form = _form(source, found, shards, lookups, row_group_samples, compression)
        bar.writing(shards.num_samples)
        results = _written(shards, form, partial, source.splits, bar)
        manifests = _manifests(source, found, form, results)
        for split, manifest in manifests.items():
            manifest.save(partial / split)
    _report(out, manifests)
    return manifests


def _batches(connection: duckdb.DuckDBPyConnection, sql: str) -> Iterator[pa.RecordBatch]:
    try:
        yield from connection.sql(sql).to_arrow_reader(_BATCH_ROWS)
    except (duckdb.Error, pa.ArrowInvalid) as error:
        raise DataError(f"samples query: {engine.short(error)}") from error


def _form(
    source: Source,
    found: Inspection,
    shards: Shards,
    lookups: dict[str, Lookup],
    row_group_samples: int,
    compression: str,
) -> Form:
    """What the rows decide: missing ids make lists, ranges of ids make types, repetition makes automatic groups."""
    for group, lookup in lookups.items():
        _look_up(group, lookup, found.schema, shards)
    features = tuple(_settled(feature, shards.seen[feature.name]) for feature in found.schema.features)
    types = {feature.name: stored_type(feature, shards.seen[feature.name]) for feature in features}
    schema = Schema(features, found.schema.labels)
    if found.automatic:
        schema = _grouped(schema, types, shards, row_group_samples)
    form = Form(schema, types, lookups, row_group_samples, compression)
    shard = shards.load[0]()
    is_test = shards.is_test(shard)
    order = cluster.clustered_order(shard, is_test if is_test.all() else ~is_test)
    return settled(form, shard, order, {n: f.window for n, f in source.features.items() if f.window is not None})


def _look_up(group: str, lookup: Lookup, schema: Schema, shards: Shards) -> None:
    """Looks at the values of a group with its own query, and reports samples that have no row there."""
    missing = shards.num_unlinked[group]
    if missing == shards.num_samples:
        raise DataError(
            f"group '{group}': none of the {missing} samples finds its row among the {len(lookup)} of the group's "
            "query; is the key the same thing in both queries?"
        )
    if missing:
        logger.warning(
            "group '%s': %d of %d samples have no row in the group's query; their lists are empty and their numbers 0",
            group,
            missing,
            shards.num_samples,
        )
    for batch in lookup.batches():
        for feature in schema.of_group(group):
            shards.seen[feature.name].look(batch.column(feature.name))
    for feature in schema.of_group(group):
        shards.seen[feature.name].num_missing += missing


def _settled(feature: Feature, seen: Seen) -> Feature:
    if not seen.num_missing:
        return feature
    if feature.kind is Kind.id:
        logger.info("feature '%s': missing in some rows, so it becomes a list of no or one id", feature.name)
        return replace(feature, kind=Kind.ids)
    if feature.kind is Kind.dense:
        logger.info("feature '%s': missing in some rows, 0.0 stands there", feature.name)
    return feature


def _grouped(schema: Schema, types: dict[str, pa.DataType], shards: Shards, row_group_samples: int) -> Schema:
    """Every feature whose rows repeat enough becomes a group of its own, measured on the first shard's sessions."""
    shard = shards.load[0]()
    is_test = shards.is_test(shard)
    order = cluster.clustered_order(shard, is_test if is_test.all() else ~is_test)
    bounds, _ = cluster.row_group_bounds(shard[SESSION].to_numpy()[order], row_group_samples)
    bounds = bounds[: _MEASURED_ROW_GROUPS + 1]
    num_rows = dict.fromkeys((f.name for f in schema.features), 0)
    for start, end in pairwise(bounds.tolist()):
        samples = shard.take(pa.array(order[start:end]))
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


def _written(shards: Shards, form: Form, partial: Path, splits: tuple[str, ...], bar: Progress) -> dict[str, Result]:
    """Writes every shard's parts, two shards at a time; numbers of parts and samples do not depend on who is first."""
    counts = shards.counts[:, : len(splits)]
    for split, number in zip(splits, counts.sum(axis=0), strict=True):
        if not number:
            raise DataError(f"split: no sample is in '{split}'; check the predicate or share against the data")
    first_samples = np.cumsum(counts, axis=0) - counts
    numbers = np.cumsum(counts > 0, axis=0) - 1

    def parts_of(number: int) -> dict[str, Result]:
        shard = shards.load[number]()
        is_test = shards.is_test(shard)
        parts = {}
        for i, split in enumerate(splits):
            if counts[number, i]:
                order = cluster.clustered_order(shard, is_test == bool(i))
                where = (partial / split, int(numbers[number, i]), int(first_samples[number, i]))
                parts[split] = written(shard, order, form, *where, bar.advance)
        return parts

    results = {split: Result() for split in splits}
    with ThreadPoolExecutor(_NUM_WORKERS) as pool:
        try:
            for parts in pool.map(parts_of, range(len(shards.load))):
                for split, result in parts.items():
                    results[split].merge(result)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return results


def _manifests(source: Source, found: Inspection, form: Form, results: dict[str, Result]) -> dict[str, Manifest]:
    """Both splits' manifests agree on ids and on the numbers that inputs are standardized by (the train split's)."""
    everything = Result()
    for result in results.values():
        everything.merge(replace(result, parts=[]))
    train = next(iter(results.values()))
    made = asdict(source) | {"samples_sql": found.samples, "groups_sql": found.groups}
    return {
        split: Manifest(
            name=source.name,
            split=split,
            schema=form.schema,
            num_samples=result.num_samples,
            num_sessions=result.num_sessions,
            num_requests=result.num_requests,
            group_rows=result.group_rows,
            features={name: measured.stats(train.features[name]) for name, measured in result.features.items()},
            ids={table: distinct.stats() for table, distinct in everything.ids.items()},
            parts=tuple(result.parts),
            source=_plain(made | {"row_group_samples": form.row_group_samples, "compression": form.compression}),
        )
        for split, result in results.items()
    }


def _plain(value: Any) -> Any:
    """Tuples as lists, so that a manifest read back equals the one written."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _report(out: Path, manifests: dict[str, Manifest]) -> None:
    for split, manifest in manifests.items():
        filled = {name: stats.num_null for name, stats in manifest.features.items() if stats.num_null}
        if filled:
            shown = ", ".join(f"{name} {num}" for name, num in list(filled.items())[:20])
            logger.info("%s/%s: values missing and filled: %s", out, split, shown)
        logger.debug(
            "%s/%s: %d samples in %d sessions, %.1f MB, dedup factors %s",
            out,
            split,
            manifest.num_samples,
            manifest.num_sessions,
            manifest.num_bytes / 1e6,
            {group: round(manifest.dedup_factor(group), 2) for group in manifest.schema.dedup_groups},
        )
