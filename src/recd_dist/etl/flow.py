"""Raw logs to clustered tables, one per split: the whole flow on one page.

::

    source --inspect--> queries --DuckDB--> samples --deal by session--> runs --plan by keys--> shards
                       table <--rename-- manifest <-- parts <--write-- distinct rows <--sort, compare--'


Everything is built in a hidden directory beside the table and renamed at the end: a table is whole or absent. What a
step has finished stays there through a kill, and the same command goes on after it.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from recd_dist.errors import ConfigError, DataError
from recd_dist.etl.budget import Budget, released
from recd_dist.etl.deal.keys import Rules
from recd_dist.etl.deal.load import ShardReader
from recd_dist.etl.deal.lookup import Lookup
from recd_dist.etl.deal.prepare import Preparation
from recd_dist.etl.deal.shards import (
    MAX_BUCKETS,
    MIN_BUCKETS,
    Plan,
    Shards,
    plan_from_json,
    plan_to_json,
    planned,
    sharded,
    survey_all,
)
from recd_dist.etl.place.finish import Made, Tables, finished, made_by, report
from recd_dist.etl.place.publish import first_part
from recd_dist.etl.place.work_directory import check_free, check_space, taken_up, work_directory, working
from recd_dist.etl.source import duckdb_sql as engine
from recd_dist.etl.source.input_files import InputFiles, find_input_files
from recd_dist.etl.source.inspection import Inspection, inspect
from recd_dist.etl.source.source import Source
from recd_dist.etl.source.source_options import tomorrow_us
from recd_dist.etl.write.form import formed
from recd_dist.etl.write.parquet import checked_compression
from recd_dist.etl.write.part import Form
from recd_dist.etl.write.write_parts import Written, write_parts
from recd_dist.screen.progress import Progress
from recd_dist.table.location import Location, is_remote
from recd_dist.table.manifest import Manifest

logger = logging.getLogger(__name__)

VERSION = 2
"""Of what the ETL makes of a source: work of another version is not taken up."""
MAX_SESSION_ROW_GROUPS = 8
"""A session with more samples than this many row groups is cut."""

_BATCH_ROWS = 4096


@dataclass(frozen=True)
class Options:
    """How a table is made, whatever it is made of; see ``etl``."""

    row_group_samples: int = 8192
    compression: str = "zstd"
    memory_limit: str = "1GB"
    threads: int | None = None
    shard_bytes: int | None = None

    def checked(self) -> "Options":
        """The same.

        Raises:
            ConfigError: an unknown compression, row groups of no sample, no thread.
        """
        checked_compression(self.compression)
        for name in ("row_group_samples", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name}={value}: must be at least 1")
        return self

    @property
    def budget(self) -> Budget:
        """Memory of each step."""
        return Budget.of(self.memory_limit, self.threads)


def etl(  # noqa: PLR0913  (each is an option of the command)
    source: Source,
    out: Location,
    *,
    overwrite: bool = False,
    append: bool = False,
    replace: Collection[str] = (),
    row_group_samples: int = 8192,
    compression: str = "zstd",
    memory_limit: str = "1GB",
    threads: int | None = None,
    shard_bytes: int | None = None,
    progress: bool = True,
    make: "Make | None" = None,
) -> dict[str, Manifest]:
    """Writes a source's clustered tables, ``out/train`` and, with a split, ``out/test``.

    A run that was killed is gone on with by the same call; finished shards are not made again.

    Args:
        source: what to read.
        out: directory to make, local or in a store; its parent is made as needed.
        overwrite: replace the tables that are there.
        append: add to the tables that are there, which stay whole and readable.
        replace: partitions whose samples the new ones take the place of, when tables are added to.
        row_group_samples: the aim for a row group; sessions stay whole.
        compression: ``zstd`` or ``lz4`` (larger, faster to read), a level per column; ``zstd:6`` is one level.
        memory_limit: of the whole run; DuckDB spills beside ``out``.
        threads: that write parts; every core by default.
        shard_bytes: the most samples of a shard in memory, by default what the memory limit leaves.
        progress: show a progress bar.
        make: reads, plans and writes in another way than this process with DuckDB (``etl_on_spark``).

    Returns:
        The manifest of each split.

    Raises:
        DataError: data that does not fit its description, a table that is there already, or a disk that is full.
        ConfigError: options that do not fit.
    """
    options = Options(row_group_samples, compression, memory_limit, threads, shard_bytes).checked()
    found = find_input_files(source)
    _check_replace(replace, append, source)
    job = _job(source, options, found, out, [append, *sorted(replace)])
    work = work_directory(out)
    mine = taken_up(work, job)
    there = made_by(out, source.splits, job["run"])
    if there is None or not mine:
        check_free(out, overwrite or append)
    with working(work, job) as going_on, Progress(progress) as bar:
        if there is not None and (going_on or append):
            logger.info("%s: this run is in the table already, nothing is left to do", out)
            return there
        base = _base(work, out, source.splits, append)
        if not going_on:
            check_space(work, _space(found))
        made = (make or _made)(source, options, found, base, frozenset(replace), work, job["run"], bar)
        manifests = finished(work, out, made, base, bar)
    report(out, manifests)
    return manifests


def _check_replace(replace: Collection[str], append: bool, source: Source) -> None:
    if replace and not (append and source.partition):
        raise ConfigError(
            f"replace={list(replace)}: only partitions of a table that is added to can be replaced; set append=true "
            "and data.partition"
        )


def _base(work: Path, out: Location, splits: tuple[str, ...], append: bool) -> Tables:
    """The tables that are added to, or nothing."""
    if append:
        return Tables.kept(work / "base", out, splits)
    return Tables(None, splits, {}, first_part(out) if is_remote(out) else 0)


Make = Callable[[Source, Options, InputFiles, Tables, frozenset[str], Path, str, Progress], Made]
"""Reads, plans and writes; see ``_made`` for what it is given."""


def _job(source: Source, options: Options, found: InputFiles, out: Location, added: list[Any]) -> dict[str, Any]:
    """What names a run: the same source, options and files, for the same table."""
    described = asdict(source)
    if source.policy.latest_us == tomorrow_us():  # not given: a run may go on the next day
        described["policy"].pop("latest_us")
    value = {
        "version": VERSION,
        "source": described,
        "options": asdict(options),
        "files": found.files,
        "out": str(out),
        "added": added,
    }
    text = json.dumps(value, sort_keys=True, default=str)
    return {"run": hashlib.sha256(text.encode()).hexdigest()[:16], **json.loads(text)}


def _space(found: InputFiles) -> int:
    """Bytes that a run needs on disk at once: samples dealt into runs, hardly smaller than in memory, and the table."""
    return round(1.3 * found.memory_bytes)


def _made(
    source: Source,
    options: Options,
    found: InputFiles,
    base: Tables,
    replaced: frozenset[str],
    work: Path,
    run: str,
    bar: Progress,
) -> Made:
    """Reads, plans and writes what has not been read, planned and written before."""
    budget = options.budget
    shard_bytes = options.shard_bytes or budget.shard_bytes
    with engine.connect(f"{budget.engine_bytes}B", options.threads, spill=work / "duckdb") as connection:
        inspection = inspect(source, connection)
        base.check(inspection, source)
        lookups = {
            name: _lookup(name, connection, sql, work / f"lookup-{name}.arrow")
            for name, sql in inspection.groups.items()
        }
        preparation = Preparation(source, inspection.schema, lookups, inspection.timed)
        marker, runs = work / "shards.json", work / "runs"
        if marker.is_file():
            shards = Shards.load(marker, runs)
            logger.info("going on with a run that was stopped: %s samples are read", f"{shards.tally.num_rows:,}")
        else:
            bar.reading(found.num_rows)
            shards = sharded(
                batches_of(connection, inspection.samples),
                preparation,
                emptied(runs),
                buffer_bytes=budget.buffer_bytes,
                shard_bytes=shard_bytes,
                num_buckets=num_buckets(found, shard_bytes),
                done=bar.advance,
            )
            shards.save(marker)
    released()
    rules = Rules.of(source, MAX_SESSION_ROW_GROUPS * options.row_group_samples, base.partitions - replaced)
    form, made = assembled(shards, rules, preparation, inspection, options, base, work, bar)
    return Made(source, inspection, form, made, run, base.parts_of(replaced))


def assembled(
    shards: Shards,
    rules: Rules,
    preparation: Preparation,
    inspection: Inspection,
    options: Options,
    base: Tables,
    work: Path,
    bar: Progress,
) -> tuple[Form, Written]:
    """Plans and writes the parts of samples that lie in shards.

    Args:
        shards: the samples.
        rules: of their keys.
        preparation: knows the source and the groups with their own query.
        inspection: of the source.
        options: how the table is made.
        base: the tables that are added to.
        work: directory of work.
        bar: told of what is written.
    """
    source, num_threads = preparation.source, options.budget.num_threads
    plan = _planned(shards, rules, base, work / "plan.json", num_threads)
    reader = ShardReader(shards, rules, plan, "timestamp" in source.keys)
    form = formed(
        source,
        inspection,
        reader.first(),
        shards.tally,
        preparation.lookups,
        options.row_group_samples,
        options.compression,
        base.schema,
    )
    released()
    bar.writing(sum(part.num_samples for part in plan.parts))
    made = write_parts(reader, plan, form, preparation, base.splits, work, num_threads, bar.advance)
    made.dropped.merge(shards.tally.dropped)
    for reason, count in plan.kept.items():
        made.dropped.add(reason, count, {})
    return form, made


def _lookup(group: str, connection: duckdb.DuckDBPyConnection, sql: str, path: Path) -> Lookup:
    return Lookup.of_file(group, path) if path.is_file() else Lookup.of_query(group, connection, sql, path)


def batches_of(connection: duckdb.DuckDBPyConnection, sql: str) -> Iterator[pa.RecordBatch]:
    """The result of the normalised samples query, as it comes.

    Raises:
        DataError: the query fails.
    """
    try:
        yield from connection.sql(sql).to_arrow_reader(_BATCH_ROWS)
    except (duckdb.Error, pa.ArrowInvalid) as error:
        raise DataError(f"samples query: {engine.short_message(error)}") from error


def num_buckets(found: InputFiles, shard_bytes: int) -> int:
    """Buckets for logs of a size: about four to a shard, a power of two."""
    wanted = min(max(4 * found.memory_bytes // max(shard_bytes, 1), MIN_BUCKETS), MAX_BUCKETS)
    return 1 << int(wanted - 1).bit_length()


def emptied(directory: Path) -> Path:
    """A directory to be made: what a killed run has left there goes."""
    shutil.rmtree(directory, ignore_errors=True)
    return directory


def _planned(shards: Shards, rules: Rules, base: Tables, path: Path, num_threads: int) -> Plan:
    if path.is_file():
        return plan_from_json(json.loads(path.read_text()))
    surveys = survey_all(shards, rules, num_threads)
    plan = planned(surveys, rules, base.splits, base.next_parts, base.next_samples, base.must_have)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(plan_to_json(plan)))
    partial.replace(path)
    return plan
