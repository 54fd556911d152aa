"""Raw logs to clustered tables, one for each split: the whole flow on one page.

::

    source --inspect--> queries --DuckDB--> samples --deal by session--> shards --plan by keys--> parts
                   table <--rename-- manifest <-- files <--write-- distinct rows <--sort, compare--'

Everything is built in a hidden directory beside the table and renamed at the end: a table is whole or absent. The work
of finished steps stays in that directory when a run is killed, and the same command goes on from there.
"""

import logging
import shutil
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

import duckdb

from recd_dist.errors import ConfigError
from recd_dist.etl.deal.keys import Rules
from recd_dist.etl.deal.load import ShardReader
from recd_dist.etl.deal.lookup import Lookup
from recd_dist.etl.deal.plan_parts import PartsPlan, plan_parts, survey_shards
from recd_dist.etl.deal.prepare import Preparation
from recd_dist.etl.deal.shards import Shards, deal_samples
from recd_dist.etl.deal.spill import num_buckets
from recd_dist.etl.etl_run import Options, Run, describe_job
from recd_dist.etl.place.added_before import AddedBefore, find_added_before, find_copies
from recd_dist.etl.place.base_tables import BaseTables, manifests_of_run
from recd_dist.etl.place.finish import finish_tables, report
from recd_dist.etl.place.publish import first_part
from recd_dist.etl.place.run_output import RunOutput
from recd_dist.etl.place.work_directory import check_free, check_space, has_work_of, hold_work, work_directory
from recd_dist.etl.raw import duckdb_sql as engine
from recd_dist.etl.raw.duckdb_memory import parse_size, retry_with_fewer_threads
from recd_dist.etl.source.budget import release_memory
from recd_dist.etl.source.examine_rows import examine_rows
from recd_dist.etl.source.input_files import InputFiles, find_input_files
from recd_dist.etl.source.inspection import Inspection, inspect
from recd_dist.etl.source.raw_identity import identify_files
from recd_dist.etl.source.source import Source
from recd_dist.etl.write.choose_form import choose_form
from recd_dist.etl.write.table_form import TableForm
from recd_dist.etl.write.write_all_parts import WrittenParts, record_of, write_parts
from recd_dist.screen.phase_progress import PhaseProgress
from recd_dist.table.announcement import announce
from recd_dist.table.location import Location, is_remote
from recd_dist.table.manifest import Manifest

logger = logging.getLogger(__name__)


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
    strict: bool = False,
    build: Callable[[Run], RunOutput] | None = None,
) -> dict[str, Manifest]:
    """Writes a source's clustered tables, ``out/train`` and, with a split, ``out/test``; after a kill, it goes on.

    Args:
        source: describes the raw logs.
        out: the directory of the tables, local or in a store. Its parent directories are made as needed.
        overwrite: whether to replace the tables that are there.
        append: whether to add to the tables that are there, which stay whole and readable meanwhile.
        replace: the partitions of tables that are added to whose samples the new ones replace.
        row_group_samples: about the number of samples of a row group. Sessions stay whole.
        compression: ``zstd`` or ``lz4`` (larger, faster to read); ``zstd:6`` sets one level for all columns.
        memory_limit: the most memory of the whole process, such as ``1GB``. DuckDB spills to disk beside ``out``.
        threads: the most threads; fewer work where the memory is little. None takes one for every usable core.
        shard_bytes: the most bytes that a piece of a shard may take in memory. None leaves it to the memory limit.
        progress: whether to show a progress bar.
        strict: whether a suspicious thing in the logs is an error; otherwise it is said in the log.
        build: reads, plans and writes; ``etl_on_spark`` passes its own. None does it in this process with DuckDB.

    Returns:
        The manifest of each split.

    Raises:
        DataError: the data do not fit their description, a table is there already, or a disk is full.
        ConfigError: options do not fit together.
    """
    options = Options(row_group_samples, compression, memory_limit, threads, shard_bytes)
    _check_options(options, replace, append, overwrite, source)
    files = find_input_files(source)
    job = describe_job(source, options, files, out, [append, *sorted(replace)])
    work = work_directory(out)
    earlier = manifests_of_run(out, source.splits, job["run"])  # a kill may come after the table is in its place
    if earlier is None or not has_work_of(work, job):
        check_free(out, overwrite or append)
    with hold_work(work, job) as going_on, PhaseProgress(progress) as bar:
        if earlier is not None and (going_on or append):
            logger.info("%s: this run is in the table already, nothing is left to do", out)
            return earlier
        base = _find_base(work, out, source.splits, append)
        if not going_on:
            check_space(work, _needed_bytes(files))
        source = base.source_like_table(source)
        run = Run(job["run"], source, options, files, base, frozenset(replace), work, bar, strict)
        manifests = _make_tables(run, out, build or build_with_duckdb)
    report(out, manifests)
    return manifests


def _make_tables(run: Run, out: Location, build: Callable[[Run], RunOutput]) -> dict[str, Manifest]:
    """Makes the tables, unless the table that is added to holds all the files."""
    with identify_files(run.files.of_samples, run.source) as raw_files:
        before = AddedBefore(False) if run.replaced else find_added_before(raw_files, run.base.raw_files)
        if before.is_all:
            logger.info("%s: all %d raw files are in the table already, nothing is added", out, len(raw_files.files))
            return run.base.manifests
        raw_files.start()
        announcements = (*run.files.announcements, *before.announcements, *find_copies(raw_files))
        output = build(replace(run, files=replace(run.files, announcements=announcements)))
        output = replace(output, raw_files=raw_files.all())
    return finish_tables(run.work, out, output, run.base, run.bar)


def _check_options(options: Options, replace: Collection[str], append: bool, overwrite: bool, source: Source) -> None:
    if append and overwrite:
        raise ConfigError(
            "append=true overwrite=true: one adds to the table that is there, the other puts a new one in its place; "
            "leave one of them out (replace=[PARTITION] exchanges a partition)"
        )
    options.check()
    if options.budget.limit < parse_size(options.memory_limit):
        logger.warning(
            "memory_limit=%s: this machine or container has less; %d MB are taken",
            options.memory_limit,
            options.budget.limit // 1_000_000,
        )
    if replace and not (append and source.partition):
        raise ConfigError(
            f"replace={list(replace)}: only partitions of a table that is added to can be replaced; set append=true "
            "and data.partition"
        )


def _find_base(work: Path, out: Location, splits: tuple[str, ...], append: bool) -> BaseTables:
    """The tables that are added to; without ``append`` there are none."""
    if append:
        return BaseTables.keep(work / "base", out, splits)
    return BaseTables(None, splits, {}, first_part(out) if is_remote(out) else 0)


def _needed_bytes(files: InputFiles) -> int:
    """The bytes that a run needs on disk at once: for run files, hardly smaller than in memory, and for the table."""
    return round(1.3 * files.memory_bytes)


def build_with_duckdb(run: Run) -> RunOutput:
    """Reads, plans and writes with DuckDB in this process; what an earlier run has done is not done again.

    Args:
        run: says what to read and how to write it.

    Returns:
        The parts and what was measured of them. They lie in the directory of work; the tables are not in place yet.
    """
    with run.connect() as connection:
        inspection = inspect(run.source, connection)
        run.base.check(inspection, run.source)
        examined = examine_rows(run.source, inspection, connection)
        found = (*run.files.announcements, *inspection.announcements, *examined)
        announce(found, run.strict)
        lookups = {group: _open_lookup(group, connection, sql, run.work) for group, sql in inspection.groups.items()}
        preparation = Preparation(run.source, inspection.schema, lookups, inspection.timed, tuple(inspection.texts))
        shards = read_samples(run, connection, inspection, preparation)
    noted = shards.tally.announcements(run.source, inspection.texts)
    announce(noted, run.strict)
    release_memory()
    rules = Rules.of(run.source, run.options.max_session_samples, run.base.partitions - run.replaced)
    form, written = write_shards(run, shards, rules, inspection, preparation)
    return RunOutput(
        run.source, inspection, form, written, run.name, run.base.parts_of(run.replaced), announcements=found + noted
    )


def _open_lookup(group: str, connection: duckdb.DuckDBPyConnection, sql: str, work: Path) -> Lookup:
    """The rows of a group with its own query: from the file of an earlier run, or else from the query."""
    path = work / f"lookup-{group}.arrow"
    return Lookup.of_file(group, path) if path.is_file() else Lookup.of_query(group, connection, sql, path)


def read_samples(
    run: Run, connection: duckdb.DuckDBPyConnection, inspection: Inspection, preparation: Preparation
) -> Shards:
    """Reads all samples and deals them by session into shards on disk, where a run that goes on finds them.

    Args:
        run: says where to work, and how large buffer and shards may be.
        connection: an open DuckDB.
        inspection: has the normalised samples query.
        preparation: prepares each batch of samples.

    Raises:
        DataError: the query fails, there are no samples, or one of them cannot be used.
    """
    marker, directory = run.work / "shards.json", run.work / "runs"
    if marker.is_file():
        shards = Shards.load(marker, directory)
        logger.info("a run that was stopped goes on: it has read %s samples already", f"{shards.tally.num_rows:,}")
        return shards
    budget = run.options.budget

    def deal() -> Shards:
        shutil.rmtree(directory, ignore_errors=True)  # run files of a killed run, or of a try with more threads
        run.bar.start_reading(run.files.num_rows)
        return deal_samples(
            engine.read_batches(connection, inspection.samples, "samples query"),
            preparation,
            directory,
            buffer_bytes=budget.buffer_bytes,
            shard_bytes=budget.shard_bytes,
            num_buckets=num_buckets(run.files.memory_bytes, budget.shard_bytes),
            done=run.bar.advance,
        )

    shards = retry_with_fewer_threads(connection, deal)
    shards.save(marker)
    return shards


def write_shards(
    run: Run, shards: Shards, rules: Rules, inspection: Inspection, preparation: Preparation
) -> tuple[TableForm, WrittenParts]:
    """Plans the parts of the samples that lie in shards, and writes them.

    Args:
        run: says where to work, and how to write.
        shards: the samples.
        rules: what the source says about its keys.
        inspection: has the schema as far as the source's columns tell.
        preparation: knows the source and the rows of its groups with their own query.

    Returns:
        The form that all parts have, and what was measured of each part.

    Raises:
        DataError: a policy ends the run, a split gets no sample, or samples do not fit the table that is added to.
    """
    options, num_threads = run.options, run.options.budget.num_threads
    plan = _plan_parts(run, shards, rules)
    reader = ShardReader(shards, rules, plan, has_time="timestamp" in preparation.source.keys)
    form = choose_form(
        preparation.source,
        inspection,
        reader.read_first_part(keep=not record_of(run.work, plan.parts[0].shard).is_file()),
        shards.tally,
        preparation.lookups,
        options.row_group_samples,
        options.compression,
        run.base.schema,
    )
    release_memory()
    run.bar.start_writing(sum(part.num_samples for part in plan.parts))
    written = write_parts(reader, plan, form, preparation, run.base.splits, run.work, num_threads, run.bar.advance)
    written.dropped.merge(shards.tally.dropped)
    for reason, count in plan.kept.items():
        written.dropped.add(reason, count, {})
    return form, written


def _plan_parts(run: Run, shards: Shards, rules: Rules) -> PartsPlan:
    """Plans every part from the keys of all shards, unless an earlier run has done it."""
    path = run.work / "plan.json"
    if path.is_file():
        return PartsPlan.load(path)
    surveys = survey_shards(shards, rules, run.options.budget.num_threads)
    base = run.base
    plan = plan_parts(surveys, rules, base.splits, base.next_parts, base.next_samples, base.must_have)
    plan.save(path)
    return plan
