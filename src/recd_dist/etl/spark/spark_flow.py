"""The ETL on Spark: the flow of ``etl/flow.py`` with Spark instead of run files.

::

    samples DataFrame --prepare--> kept on executors' disks --keys by shard--> plan (driver)
                                          '--rows by shard--> parts written by the executors --> manifest (driver)

A shard holds the same sessions as on the DuckDB path. The same functions arrange and write it, and no order depends on
which row arrives first. So the tables are equal, byte for byte.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from recd_dist.errors import DataError
from recd_dist.etl.deal.keys import Rules
from recd_dist.etl.deal.load import PartSamples
from recd_dist.etl.deal.lookup import Lookup
from recd_dist.etl.deal.plan_parts import PlannedPart, plan_parts
from recd_dist.etl.deal.prepare import Preparation
from recd_dist.etl.deal.spill import num_buckets
from recd_dist.etl.etl_run import Run
from recd_dist.etl.flow import etl
from recd_dist.etl.place.run_output import RunOutput
from recd_dist.etl.raw import duckdb_sql as engine
from recd_dist.etl.source.examine_rows import examine_rows
from recd_dist.etl.source.inspection import Inspection, inspect
from recd_dist.etl.source.source import Source
from recd_dist.etl.spark.in_workers import InspectedSource, WritingInstructions
from recd_dist.etl.spark.normalise import NormalisedSource, normalise_on_spark
from recd_dist.etl.spark.prepared_samples import PreparedSamples
from recd_dist.etl.spark.ship_lookups import collect_lookup, ship_lookups
from recd_dist.etl.spark.spark_errors import shorten_errors
from recd_dist.etl.spark.spark_session import active_session, start_session
from recd_dist.etl.spark.sql.row_place import number_blocks
from recd_dist.etl.write.choose_form import choose_form
from recd_dist.etl.write.write_all_parts import write_parts
from recd_dist.table.announcement import Announcement, announce
from recd_dist.table.location import Location
from recd_dist.table.manifest import Manifest

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_SETTINGS = {"spark.sql.adaptive.enabled": "false", "spark.sql.execution.arrow.maxRecordsPerBatch": "4096"}
"""Settings of Spark during a run: each shard comes to one task, in batches as small as those of DuckDB."""


def etl_on_spark(
    source: Source, out: Location, *, master: str | None = None, spark: "SparkSession | None" = None, **options: Any
) -> dict[str, Manifest]:
    """Writes a source's clustered tables, as ``etl`` does, with the work done by Spark.

    Args:
        source: what to read; every executor must reach its files.
        out: directory to make, on a file system that driver and executors share. It may lie in a store if the current
            directory is on such a file system.
        master: where Spark runs, such as ``local[2]``, if a Spark session has to be started; None leaves it to
            spark-submit or to Spark's default.
        spark: Spark session to work in. It is left running, and so is a session that is active already.
        options: options of ``etl``; ``memory_limit`` and ``threads`` size shards as they do on one machine.

    Returns:
        The manifest of each split.

    Raises:
        DataError: data that does not fit its description, a table that is there already, or a disk that is full.
        ConfigError: options that do not fit; PySpark or Java is missing; a construct of a query that is not known to
            mean the same on Spark.
    """
    running = spark or active_session()
    session = running or start_session(master)

    def build(run: Run) -> RunOutput:
        with _apply_settings(session), shorten_errors():
            return _make_tables(session, run)

    try:
        return etl(source, out, build=build, **options)
    finally:
        if running is None:
            session.stop()


@contextmanager
def _apply_settings(spark: "SparkSession") -> Iterator[None]:
    before = {name: spark.conf.get(name) for name in _SETTINGS}
    for name, value in _SETTINGS.items():
        spark.conf.set(name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            spark.conf.set(name, value)


def _make_tables(spark: "SparkSession", run: Run) -> RunOutput:
    """Reads, plans and writes on Spark; shards that are noted as written are not written again.

    Args:
        spark: Spark session to work in.
        run: says what to read and how to write it; driver and executors share its directory of work.
    """
    source, options, base, work, bar = run.source, run.options, run.base, run.work, run.bar
    shard_bytes = options.budget.shard_bytes
    normalised = normalise_on_spark(source, spark, keep_place="timestamp" not in source.keys)
    inspection = normalised.inspection
    base.check(inspection, source)
    found = (*run.files.announcements, *inspection.announcements, *_examine(source, inspection))
    announce(found, run.strict)
    buckets = num_buckets(run.files.memory_bytes, shard_bytes)
    samples, lookups = _keep_samples(spark, source, normalised, buckets, work)
    bar.start_reading(run.files.num_rows)
    try:
        tally, sizes = samples.prepare()
        bar.advance(tally.num_rows)
        noted = tally.announcements(source, inspection.texts)
        announce(noted, run.strict)
        shards = sizes.group_by_shard(shard_bytes)
        rules = Rules.of(source, options.max_session_samples, base.partitions - run.replaced)
        surveys = samples.survey(shards, rules, shard_bytes)
        plan = plan_parts(surveys, rules, base.splits, base.next_parts, base.next_samples, base.must_have)
        first = samples.load_first_part(shards, rules, plan, shard_bytes)
        row_group_samples, compression = options.row_group_samples, options.compression
        form = choose_form(source, inspection, first, tally, lookups, row_group_samples, compression, base.schema)
        bar.start_writing(sum(part.num_samples for part in plan.parts))
        bare, shared = replace(form, lookups={}), str(work.absolute())
        instructions = WritingInstructions(samples.inspected, rules, plan, bare, base.splits, shard_bytes, shared)
        left_out = samples.write_shards(shards, instructions)
    finally:
        samples.release()
    preparation = Preparation(source, inspection.schema, lookups, inspection.timed)
    # The executors have written the parts; this reads what they noted of them.
    written = write_parts(_NotHere(), plan, form, preparation, base.splits, work, 1, bar.advance)
    written.dropped.merge(tally.dropped)
    written.dropped.merge(left_out)
    for reason, count in plan.kept.items():
        written.dropped.add(reason, count, {})
    return RunOutput(
        source, inspection, form, written, run.name, base.parts_of(run.replaced), announcements=found + noted
    )


def _keep_samples(
    spark: "SparkSession", source: Source, normalised: NormalisedSource, num_buckets: int, work: Path
) -> tuple[PreparedSamples, dict[str, Lookup]]:
    """The samples that Spark will prepare and keep, and the rows of each group that has its own query.

    Args:
        spark: Spark session to work in.
        source: what to read.
        normalised: its rows on Spark.
        num_buckets: number of buckets that samples are dealt into; a power of two.
        work: directory of work, which driver and executors share.
    """
    inspection = normalised.inspection
    raw = _describe_queries(source, inspection)
    lookups = {name: collect_lookup(name, df, raw[name], work) for name, df in normalised.groups.items()}
    shipped, texts = ship_lookups(spark, lookups, work), tuple(inspection.texts)
    inspected_source = InspectedSource(source, inspection.schema, inspection.timed, shipped, texts)
    first_rows = None if inspected_source.has_time else number_blocks(normalised.samples, normalised.files)
    return PreparedSamples(normalised.samples, inspected_source, raw[""], num_buckets, first_rows), lookups


def _examine(source: Source, inspection: Inspection) -> tuple[Announcement, ...]:
    """What the first rows tell, as DuckDB reads them on the driver."""
    if source.samples_spark is not None or any(group.sql_spark for group in (source.groups or {}).values()):
        return ()  # DuckDB knows the columns of such a query, but need not have its rows
    with engine.connect() as connection:
        inspect(source, connection)  # which brings stores within the connection's reach
        return examine_rows(source, inspection, connection, cheap=True)


class _NotHere:
    """The :class:`ShardSource` of the driver: executors have written all shards, and only their notes are read."""

    def read_left_out(self) -> Iterable[tuple[str, pa.Table]]:
        """The executors report what is left out, so there is nothing more to tell."""
        return ()

    def read_parts(self, shard: int, parts: Iterable[PlannedPart]) -> Iterable[tuple[PlannedPart, PartSamples]]:
        """Raises an error: a shard that an executor has written cannot be read here."""
        del parts
        raise DataError(
            f"shard {shard} was written by an executor, and its parts are not on the driver's disk: data.table must "
            "be on a file system that driver and executors share, under one path"
        )


def _describe_queries(source: Source, inspection: Inspection) -> dict[str, pa.Schema]:
    """Columns of the normalised queries, with the Arrow types that DuckDB has for them.

    Returns:
        Columns by name of the group; those of the samples under the empty name.
    """
    with engine.connect() as connection:
        inspect(source, connection)  # which brings stores within the connection's reach
        queries = {"": inspection.samples, **inspection.groups}
        return {
            name: connection.sql(f"select * from ({query}\n) limit 0").to_arrow_table().schema
            for name, query in queries.items()
        }
