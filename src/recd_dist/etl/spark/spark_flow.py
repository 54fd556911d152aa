"""The ETL on Spark: the flow of ``recd_dist.etl.flow`` with Spark in the place of run files and threads.

::

    samples DataFrame --prepare--> kept on executors' disks --keys by shard--> plan (driver)
                                          '--rows by shard--> parts written by the executors --> manifest (driver)

A shard holds the same sessions as on the DuckDB path, is arranged and written by the same functions, and no order
depends on arrival: the tables are the same, byte for byte.
"""

import json
import logging
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recd_dist.errors import ConfigError, DataError, UserError
from recd_dist.etl.deal.keys import HASH, KEY_COLUMNS, SIZE, Rules
from recd_dist.etl.deal.load import PartSamples
from recd_dist.etl.deal.lookup import Lookup
from recd_dist.etl.deal.plan_parts import PartsPlan, PlannedPart, Survey, plan_parts
from recd_dist.etl.deal.prepare import Preparation
from recd_dist.etl.deal.shards import check_any_left
from recd_dist.etl.deal.spill import BucketSizes, num_buckets
from recd_dist.etl.deal.tally import Dropped, Tally
from recd_dist.etl.etl_run import Run
from recd_dist.etl.flow import etl
from recd_dist.etl.place.finish import Made
from recd_dist.etl.source import duckdb_sql as engine
from recd_dist.etl.source.inspection import SESSION, TIMESTAMP, Inspection, inspect, link_column
from recd_dist.etl.source.source import Source
from recd_dist.etl.spark.in_workers import (
    BUCKET,
    SHARD,
    SURVEY,
    TALLY,
    HeldReader,
    Job,
    Writing,
    preparing,
    survey_of,
    surveying,
    writing,
)
from recd_dist.etl.spark.session import active_session, normalised_in_place, session
from recd_dist.etl.spark.sql.row_place import Block, first_rows
from recd_dist.etl.spark.sql.tree import backticked
from recd_dist.etl.write.form import formed
from recd_dist.etl.write.write_parts import write_parts
from recd_dist.table.location import Location
from recd_dist.table.manifest import Manifest

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

logger = logging.getLogger(__name__)

_NEEDED = {"spark.sql.adaptive.enabled": "false", "spark.sql.execution.arrow.maxRecordsPerBatch": "4096"}
_LOOKUP_ROWS = 8192
_SAID = re.compile(r"^(?:recd_dist\.errors\.)?(DataError|ConfigError): (.*(?:\n  \S.*)*)", re.MULTILINE)
_RAISED = re.compile(r"^[\w.]*(?:Error|Exception): .+", re.MULTILINE)
_DUCKDB = re.compile(r"^(?:_?duckdb\.)?\w*Exception: (.*)", re.MULTILINE)


def etl_on_spark(
    source: Source, out: Location, *, master: str | None = None, spark: "SparkSession | None" = None, **options: Any
) -> dict[str, Manifest]:
    """Writes a source's clustered tables, as ``etl`` does, with the work done by Spark.

    Args:
        source: what to read; every executor must reach its files.
        out: directory to make, on a file system that driver and executors share; or in a store, with the current
            directory on such a file system.
        master: of a session to be made, such as ``local[2]``; None leaves it to spark-submit, or to Spark's default.
        spark: session to work in; it is left running, as is one that is there already.
        options: of ``etl``; ``memory_limit`` and ``threads`` size shards as they do on one machine.

    Returns:
        The manifest of each split.

    Raises:
        DataError: data that does not fit its description, a table that is there already, or a disk that is full.
        ConfigError: options that do not fit; PySpark or Java is missing; a construct of a query that is not known to
            mean the same on Spark.
    """
    there = spark or active_session()
    used = there or session(master)

    def build(run: Run) -> Made:
        with _configured(used), _plain_errors():
            return _made(used, run)

    try:
        return etl(source, out, build=build, **options)
    finally:
        if there is None:
            used.stop()


@contextmanager
def _configured(spark: "SparkSession") -> Iterator[None]:
    before = {name: spark.conf.get(name) for name in _NEEDED}
    for name, value in _NEEDED.items():
        spark.conf.set(name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            spark.conf.set(name, value)


@contextmanager
def _plain_errors() -> Iterator[None]:
    """What a worker raised, without the stacks of three processes."""
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException

    try:
        yield
    except (PySparkException, Py4JError) as error:
        raise plain(str(error)) from error


def plain(text: str) -> UserError:
    """What a failure of Spark says, as an error of the ETL.

    Args:
        text: Spark's message, with the stacks of the worker and of the JVM.
    """
    if found := _SAID.search(text):
        kind = ConfigError if found[1] == "ConfigError" else DataError
        return kind(found[2].strip())
    if found := _DUCKDB.search(text):
        return DataError(f"samples query: {found[1].strip()}")
    if "No space left on device" in text:
        return DataError("Spark: a disk is full, of the table or of spark.local.dir; free some space and run it again")
    raised = _RAISED.findall(text)
    first = next((line for line in text.splitlines() if line.strip()), "failed without a message")
    return DataError(f"Spark: {(raised[-1] if raised else first)[:500]}")


def _made(spark: "SparkSession", run: Run) -> Made:
    """Reads, plans and writes, on Spark; shards that are noted as written are not written again."""
    source, options, base, work, bar = run.source, run.options, run.base, run.work, run.bar
    shard_bytes = options.budget.shard_bytes
    timed = "timestamp" in source.keys
    samples, groups, inspection, files = normalised_in_place(source, spark, placed=not timed)
    base.check(inspection, source)
    raw = _schemas(source, inspection)
    lookups = {name: _lookup(name, df, raw[name], work) for name, df in groups.items()}
    job = Job(source, inspection.schema, inspection.timed, _shipped(spark, lookups, work))
    places = None if timed else first_rows(samples, files)
    rows = _Rows(samples, job, raw[""], num_buckets(run.files.memory_bytes, shard_bytes), places)
    bar.reading(run.files.num_rows)
    try:
        tally, sizes = rows.read()
        bar.advance(tally.num_rows)
        shards = sizes.group_by_shard(shard_bytes)
        rules = Rules.of(source, options.max_session_samples, base.partitions - run.replaced)
        surveys = rows.surveys(shards, rules, shard_bytes)
        plan = plan_parts(surveys, rules, base.splits, base.next_parts, base.next_samples, base.must_have)
        first = rows.first(shards, rules, plan, shard_bytes, timed)
        named = source, inspection, first, tally, lookups
        form = formed(*named, options.row_group_samples, options.compression, base.schema)
        bar.writing(sum(part.num_samples for part in plan.parts))
        bare = replace(form, lookups={})
        left_out = rows.write(
            shards, Writing(job, rules, plan, bare, base.splits, timed, shard_bytes, str(work.absolute()))
        )
    finally:
        rows.release()
    preparation = Preparation(source, inspection.schema, lookups, inspection.timed)
    made = write_parts(_NotHere(), plan, form, preparation, base.splits, work, 1, bar.advance)
    made.dropped.merge(tally.dropped)
    made.dropped.merge(left_out)
    for reason, count in plan.kept.items():
        made.dropped.add(reason, count, {})
    return Made(source, inspection, form, made, run.name, base.parts_of(run.replaced))


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


def _schemas(source: Source, inspection: Inspection) -> dict[str, pa.Schema]:
    """Columns of the normalised queries as DuckDB gives them: of the samples (``""``) and of each group."""
    with engine.connect() as connection:
        inspect(source, connection)  # which brings stores within the connection's reach
        queries = {"": inspection.samples, **inspection.groups}
        return {n: connection.sql(f"select * from ({q}\n) limit 0").to_arrow_table().schema for n, q in queries.items()}


def _lookup(group: str, df: "DataFrame", schema: pa.Schema, work: Path) -> Lookup:
    """The rows of a group with its own query, written by Spark and put into one file on the driver."""
    path, files = work / f"lookup-{group}.arrow", work / f"lookup-{group}.parquet"
    if path.is_file():
        return Lookup.of_file(group, path)
    df.write.mode("overwrite").parquet(str(files.absolute()))

    def batches() -> Iterator[pa.RecordBatch]:
        for file in sorted(files.glob("*.parquet")):
            for batch in pq.ParquetFile(file).iter_batches(_LOOKUP_ROWS):
                yield from pa.Table.from_batches([batch]).cast(schema).combine_chunks().to_batches()

    made = Lookup.of_batches(group, batches(), schema, path)
    shutil.rmtree(files)
    return made


def _shipped(spark: "SparkSession", lookups: Mapping[str, Lookup], work: Path) -> dict[str, str]:
    """Brings the groups' rows to every executor; the name of each file there."""
    names = {}
    for number, group in enumerate(lookups):
        names[group] = f"recd-{uuid4().hex}-{number}.arrow"
        copy = work / names[group]
        os.link(work / f"lookup-{group}.arrow", copy)
        spark.sparkContext.addFile(str(copy.absolute()))
    return names


class _Rows:
    """The prepared samples, kept by Spark.

    Args:
        samples: of the normalised query.
        job: of the run.
        raw: the query's columns as DuckDB has them.
        num_buckets: a power of two.
        places: place of the first row of each block of the files, where the order of the rows counts.
    """

    def __init__(
        self, samples: "DataFrame", job: Job, raw: pa.Schema, num_buckets: int, places: Mapping[Block, int] | None
    ) -> None:
        from pyspark import StorageLevel
        from pyspark.sql import types as T
        from pyspark.sql.pandas.types import to_arrow_schema

        links = {link_column(group) for group in job.lookups}
        fields = {field.name: pa.int64() if field.name in links else field.type for field in raw}
        added = {SESSION: pa.int64(), TIMESTAMP: pa.int64(), HASH: pa.int64(), SIZE: pa.int32()}
        self.schema = pa.schema(list((fields | added).items()))
        shuffled = {
            field.name: T.LongType() if field.name in links else field.dataType
            for field in samples.schema
            if field.name in raw.names
        }
        new = {SESSION: T.LongType(), TIMESTAMP: T.LongType(), HASH: T.LongType(), SIZE: T.IntegerType()}
        new |= {BUCKET: T.IntegerType(), TALLY: T.StringType()}
        made = T.StructType([T.StructField(name, kind) for name, kind in (shuffled | new).items()])
        task = preparing(job, num_buckets, raw, to_arrow_schema(made), places)
        self._num_buckets = num_buckets
        self._rows = samples.mapInArrow(task, made).persist(StorageLevel.DISK_ONLY)

    def read(self) -> tuple[Tally, BucketSizes]:
        """Prepares every sample; what was noted of them, and samples and bytes of each bucket."""
        from pyspark.sql import functions as F

        counted = self._rows.groupBy(BUCKET).agg(F.count("*").alias("n"), F.sum(SIZE).alias("b")).collect()
        tally = Tally()
        for row in self._rows.where(F.col(BUCKET) < 0).select(TALLY).toArrow()[TALLY].to_pylist():
            tally.merge(Tally.from_json(json.loads(row)))
        num_rows, num_bytes = np.zeros((2, self._num_buckets), np.int64)
        for row in counted:
            if row[BUCKET] >= 0:
                num_rows[row[BUCKET]], num_bytes[row[BUCKET]] = row["n"], row["b"]
        check_any_left(tally, int(num_rows.sum()))
        return tally, BucketSizes(num_rows, num_bytes)

    def _dealt(self, shards: list[list[int]], names: Iterable[str]) -> "DataFrame":
        """Samples with the number of their shard."""
        from pyspark.sql import functions as F

        shard_of = np.full(self._num_buckets, -1)
        for number, buckets in enumerate(shards):
            shard_of[buckets] = number
        numbers = F.array(*[F.lit(number) for number in shard_of.tolist()])
        rows = self._rows.where(F.col(BUCKET) >= 0)
        return rows.select(*[backticked(n) for n in names], F.element_at(numbers, F.col(BUCKET) + 1).alias(SHARD))

    def surveys(self, shards: list[list[int]], rules: Rules, shard_bytes: int) -> list[Survey]:
        """What the keys of each shard say."""
        names = [name for name in KEY_COLUMNS if name in self.schema.names]
        keys = self._dealt(shards, names).repartitionById(len(shards), SHARD)
        types = ", ".join(f"{f.name} {'string' if f.name == 'kept' else 'bigint'}" for f in SURVEY)
        found = keys.mapInArrow(surveying(rules, shard_bytes, self.schema), types).toArrow()
        return [survey_of(found.filter(pc.field("shard") == number)) for number in range(len(shards))]

    def first(
        self, shards: list[list[int]], rules: Rules, plan: PartsPlan, shard_bytes: int, has_time: bool
    ) -> PartSamples:
        """The samples of the first part, on the driver."""
        from pyspark.sql import functions as F

        number = plan.parts[0].shard
        table = self._dealt(shards, self.schema.names).where(F.col(SHARD) == number).drop(SHARD).toArrow()
        table = table.select(self.schema.names).cast(self.schema)
        return HeldReader(table, number, shard_bytes, rules, plan, has_time).read_first_part()

    def write(self, shards: list[list[int]], what: Writing) -> Dropped:
        """Writes the parts of every shard that is not noted as written; what is left out of shards without parts."""
        from pyspark.sql import functions as F

        notes = Path(what.work) / "parts"
        todo = [n for n in range(len(shards)) if not (notes / f"shard-{n:05d}.json").is_file()]
        dropped = Dropped()
        if not todo:
            return dropped
        rows = self._dealt(shards, self.schema.names).where(F.col(SHARD).isin(todo))
        rows = rows.repartitionById(len(shards), SHARD)
        for row in rows.mapInArrow(writing(what, self.schema), "shard bigint, dropped string").collect():
            dropped.merge(Dropped(**json.loads(row["dropped"])))
        return dropped

    def release(self) -> None:
        """Frees the executors' disks."""
        self._rows.unpersist()
