"""``recd compact``: merges small parts of a partition, and sessions that lie in pieces.

::

    2026-11-25   part 0: 300 samples   part 1: 200   part 7: 90 (late)      three files for each group
    compacted    part 8: 590 samples                                        one file for each group

The samples of small parts go through the ETL once more, from the table's own flat view; the other parts are not read.
Readers see the old parts until the manifest is replaced, and no file of these is removed before.
"""

import hashlib
import json
from dataclasses import replace

from recd_dist.errors import ConfigError
from recd_dist.etl.deal.keys import Rules
from recd_dist.etl.deal.prepare import Preparation
from recd_dist.etl.etl_run import VERSION, Options, Run
from recd_dist.etl.flow import read_samples, write_shards
from recd_dist.etl.place.base_tables import BaseTables, readable_by
from recd_dist.etl.place.finish import finish_tables
from recd_dist.etl.place.run_output import RunOutput
from recd_dist.etl.place.work_directory import hold_work, work_directory
from recd_dist.etl.source.input_files import InputFiles
from recd_dist.etl.source.inspection import ORDER_KEY, REQUEST, SESSION, TIMESTAMP, Inspection
from recd_dist.etl.source.source import Source
from recd_dist.etl.source.source_options import Policy
from recd_dist.screen.phase_progress import PhaseProgress
from recd_dist.table.flat import flat_view, identifier
from recd_dist.table.location import Location
from recd_dist.table.manifest import Manifest, Part, splits_of
from recd_dist.table.schema import REQUEST_ID, SAMPLE_ID, SESSION_ID
from recd_dist.table.schema import TIMESTAMP as TIMESTAMP_COLUMN

_SMALL_ROW_GROUPS = 4
"""A part with fewer samples than this many row groups is small."""


def compact(out: Location, options: Options, *, progress: bool = True) -> dict[str, Manifest]:
    """Merges the small parts of every partition of every split.

    After a kill, the same call goes on with the work.

    Args:
        out: the directory of the tables.
        options: how parts are made.
        progress: whether to show a progress bar.

    Returns:
        The manifest of each split.

    Raises:
        ConfigError: no table is there, or an option is wrong.
        DataError: a table cannot be read or written.
    """
    splits = splits_of(out)
    if not splits:
        raise ConfigError(f"{out}: no clustered table there; make one with `recd etl`")
    options.check()
    return {split: _compact_split(out, split, options, progress) for split in splits}


def _compact_split(out: Location, split: str, options: Options, progress: bool) -> Manifest:
    before = Manifest.load(out / split)
    small = _small_parts(before, _SMALL_ROW_GROUPS * options.row_group_samples)
    if not small:
        return before
    numbers = [part.number for part in small]
    job = {"version": VERSION, "compact": split, "out": str(out), "parts": numbers, "state": before.next_part}
    name = hashlib.sha256(json.dumps(job).encode()).hexdigest()[:16]
    work = work_directory(out)
    with hold_work(work, {"run": name, **job}), PhaseProgress(progress) as bar:
        base = BaseTables.keep(work / "base", out, tuple(splits_of(out)))
        base = replace(base, splits=(split,), manifests={split: base.manifests[split]})
        source, inspection = _describe_as_source(out, split, before, small)
        files = InputFiles((), memory_bytes=0, num_rows=sum(part.num_samples for part in small))
        run = Run(name, source, options, files, base, frozenset(), work, bar)
        preparation = Preparation(source, inspection.schema, {}, timed=False)
        with run.connect() as connection:
            shards = read_samples(run, connection, inspection, preparation)
        rules = Rules(partition=before.partition, max_session_samples=options.max_session_samples)
        form, written = write_shards(run, shards, rules, inspection, preparation)
        made = RunOutput(source, inspection, form, written, name, {split: frozenset(numbers)}, describes=before)
        return finish_tables(work, out, made, base, bar)[split]


def _small_parts(manifest: Manifest, num_samples: int) -> list[Part]:
    """The parts that are worth merging: those with fewer samples, where a partition has at least two of them."""
    parts: list[Part] = []
    for partition in ("", *manifest.partitions):
        small = [p for p in manifest.parts if p.partition == partition and p.num_samples < num_samples]
        parts += small if len(small) > 1 else []
    return parts


def _describe_as_source(out: Location, split: str, manifest: Manifest, parts: list[Part]) -> tuple[Source, Inspection]:
    """Describes the flat view of some parts as a source that the ETL can read."""
    keys = {SESSION_ID: SESSION, REQUEST_ID: REQUEST, TIMESTAMP_COLUMN: TIMESTAMP, SAMPLE_ID: ORDER_KEY}
    aliases = ", ".join(f"{identifier(name)} as {alias}" for name, alias in keys.items())
    flat = flat_view(out / split, parts=parts)
    sql = f"select {aliases}, * exclude ({', '.join(map(identifier, keys))}) from ({flat})"
    source = Source(
        name=manifest.name,
        path=str(out),
        keys={"session": SESSION_ID, "timestamp": TIMESTAMP_COLUMN},
        labels=manifest.schema.labels,
        sessions="column",
        partition=manifest.partition,
        readable_by=readable_by(manifest),
        policy=Policy(unlabelled="keep"),
    )
    return source, Inspection(manifest.schema, sql, {}, automatic=False)
