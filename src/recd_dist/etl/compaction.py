"""``recd compact``: many small parts of a partition become few, sessions that came in pieces become whole.

::

    2026-11-25   part 0: 300 samples   part 1: 200   part 7: 90 (late)      three files a group
    compacted    part 8: 590 samples                                        one file a group

The samples of small parts go through the ETL once more, from the table's own flat view; the other parts are not read.
Readers see the old parts until the manifest is replaced, and none of their files before.
"""

import hashlib
import json
import logging
from dataclasses import replace

from recd_dist.errors import ConfigError
from recd_dist.etl.deal.keys import Rules
from recd_dist.etl.deal.prepare import Preparation
from recd_dist.etl.deal.shards import MIN_BUCKETS, Shards, sharded
from recd_dist.etl.flow import Options, assembled, batches_of, emptied
from recd_dist.etl.place.base_tables import BaseTables
from recd_dist.etl.place.finish import finish_tables
from recd_dist.etl.place.run_output import RunOutput
from recd_dist.etl.place.work_directory import hold_work, work_directory
from recd_dist.etl.source import duckdb_sql as engine
from recd_dist.etl.source.inspection import ORDER_KEY, REQUEST, SESSION, TIMESTAMP, Inspection
from recd_dist.etl.source.source import Source
from recd_dist.etl.write.row_groups import MAX_SESSION_ROW_GROUPS
from recd_dist.screen.phase_progress import PhaseProgress
from recd_dist.table.flat import flat_view, identifier
from recd_dist.table.location import Location
from recd_dist.table.manifest import Manifest, Part, splits_of
from recd_dist.table.schema import REQUEST_ID, SAMPLE_ID, SESSION_ID
from recd_dist.table.schema import TIMESTAMP as TIMESTAMP_COLUMN

logger = logging.getLogger(__name__)

SMALL_ROW_GROUPS = 4
"""A part with fewer samples than this many row groups is small."""


def compact(out: Location, options: Options, *, progress: bool = True) -> dict[str, Manifest]:
    """Merges the small parts of every partition of every split.

    A run that was killed is gone on with by the same call.

    Args:
        out: directory of the tables.
        options: how parts are made.
        progress: show a progress bar.

    Returns:
        The manifest of each split.

    Raises:
        ConfigError: no table there.
        DataError: a table that cannot be read or written.
    """
    splits = splits_of(out)
    if not splits:
        raise ConfigError(f"{out}: no clustered table there; make one with `recd etl`")
    return {split: _compacted(out, split, options.checked(), progress) for split in splits}


def _compacted(out: Location, split: str, options: Options, progress: bool) -> Manifest:
    manifest = Manifest.load(out / split)
    small = small_parts(manifest, SMALL_ROW_GROUPS * options.row_group_samples)
    if not small:
        logger.info("%s/%s: %d parts, none to merge", out, split, len(manifest.parts))
        return manifest
    job = {"compact": split, "out": str(out), "parts": [part.number for part in small], "state": manifest.next_part}
    run = hashlib.sha256(json.dumps(job).encode()).hexdigest()[:16]
    work = work_directory(out)
    with hold_work(work, {"run": run, **job}), PhaseProgress(progress) as bar:
        base = BaseTables.keep(work / "base", out, tuple(splits_of(out)))
        base = replace(base, splits=(split,), manifests={split: base.manifests[split]})
        source, inspection = _as_source(out, split, manifest, small)
        preparation = Preparation(source, inspection.schema, {}, timed=False)
        marker, runs = work / "shards.json", work / "runs"
        budget = options.budget
        shard_bytes = options.shard_bytes or budget.shard_bytes
        if marker.is_file():
            shards = Shards.load(marker, runs)
        else:
            bar.start_reading(sum(part.num_samples for part in small))
            with engine.connect(f"{budget.engine_bytes}B", options.threads, spill=work / "duckdb") as connection:
                shards = sharded(
                    batches_of(connection, inspection.samples),
                    preparation,
                    emptied(runs),
                    buffer_bytes=budget.buffer_bytes,
                    shard_bytes=shard_bytes,
                    num_buckets=MIN_BUCKETS,
                    done=bar.advance,
                )
            shards.save(marker)
        rules = Rules(partition=manifest.partition, piece=MAX_SESSION_ROW_GROUPS * options.row_group_samples)
        form, written = assembled(shards, rules, preparation, inspection, options, base, work, bar)
        replaces = {split: frozenset(part.number for part in small)}
        made = RunOutput(source, inspection, form, written, run, replaces, describes=manifest)
        now = finish_tables(work, out, made, base, bar)[split]
    logger.info("%s/%s: %d parts became %d", out, split, len(manifest.parts), len(now.parts))
    return now


def small_parts(manifest: Manifest, num_samples: int) -> list[Part]:
    """The parts that are worth merging: in each partition those with fewer samples, if there are at least two."""
    found: list[Part] = []
    for partition in ("", *manifest.partitions):
        small = [p for p in manifest.parts if p.partition == partition and p.num_samples < num_samples]
        found += small if len(small) > 1 else []
    return found


def _as_source(out: Location, split: str, manifest: Manifest, parts: list[Part]) -> tuple[Source, Inspection]:
    """The flat view of some parts as what the ETL reads."""
    keys = {SESSION_ID: SESSION, REQUEST_ID: REQUEST, TIMESTAMP_COLUMN: TIMESTAMP, SAMPLE_ID: ORDER_KEY}
    named = ", ".join(f"{identifier(name)} as {alias}" for name, alias in keys.items())
    flat = flat_view(out / split, parts=parts)
    sql = f"select {named}, * exclude ({', '.join(map(identifier, keys))}) from ({flat})"
    source = Source(
        name=manifest.name,
        path=str(out),
        keys={"session": SESSION_ID, "timestamp": TIMESTAMP_COLUMN},
        labels=manifest.schema.labels,
        sessions="column",
        partition=manifest.partition,
    )
    return source, Inspection(manifest.schema, sql, {}, automatic=False)
