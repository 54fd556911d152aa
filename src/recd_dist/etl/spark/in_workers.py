"""What the ETL does inside Spark's workers, by the functions of the DuckDB path.

::

    rows of the query --prepare--> rows with keys, hash, size, bucket; a last row with the task's tally
    keys of a shard   --survey-->  counts of its parts
    rows of a shard   --write-->   its parts, as files; a row that says so

A task depends on nothing but its input, so that a task that Spark runs again gives the same result.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from recd_dist.errors import DataError
from recd_dist.etl.deal.keys import KEY_COLUMNS, Rules
from recd_dist.etl.deal.load import PartReader, PartSamples
from recd_dist.etl.deal.plan_parts import PartsPlan, PlannedPart, survey_shard
from recd_dist.etl.deal.prepare import Preparation
from recd_dist.etl.deal.spill import bucket_of
from recd_dist.etl.deal.tally import Dropped, Tally
from recd_dist.etl.source.inspection import SESSION
from recd_dist.etl.source.source import Source
from recd_dist.etl.spark.ship_lookups import open_lookups
from recd_dist.etl.spark.sql.row_place import Block, number_batches
from recd_dist.etl.spark.survey_rows import survey_to_rows
from recd_dist.etl.write.table_form import TableForm
from recd_dist.etl.write.write_all_parts import write_parts
from recd_dist.table.schema import Schema

BUCKET, SHARD, TALLY = "__bucket", "__shard", "__tally"
"""Columns that only Spark's shuffle needs: a sample's bucket (-1 for a tally), its shard, and a tally as JSON."""

WRITTEN_COLUMNS = "shard bigint, dropped string"
"""Columns of what ``writing_task`` returns, in Spark SQL."""

Batches = Iterator[pa.RecordBatch]
Task = Callable[[Batches], Batches]


@dataclass(frozen=True)
class InspectedSource:
    """What every task has to know of the source, small enough to travel with the task.

    Attributes:
        source: keys and policies.
        schema: features and labels, as DuckDB found them.
        timed: whether the timestamp is a time.
        lookup_files: name of the file on the executors with the rows of each group that has its own query.
        texts: columns of the normalised query that are texts upstream.
    """

    source: Source
    schema: Schema
    timed: bool
    lookup_files: Mapping[str, str]
    texts: tuple[str, ...] = ()

    @property
    def has_time(self) -> bool:
        """Whether the source names a timestamp."""
        return "timestamp" in self.source.keys

    def load_preparation(self) -> Preparation:
        """Opens the groups' rows and returns what prepares batches; in a worker."""
        lookups = open_lookups(tuple(self.lookup_files.items()))
        return Preparation(self.source, self.schema, lookups, self.timed, self.texts)


def preparation_task(
    inspected: InspectedSource,
    num_buckets: int,
    raw: pa.Schema,
    prepared: pa.Schema,
    first_rows: Mapping[Block, int] | None = None,
) -> Task:
    """The task that prepares batches of the normalised query.

    Args:
        inspected: the source.
        num_buckets: number of buckets that samples are dealt into; a power of two.
        raw: columns of the query, with the types that DuckDB has for them.
        prepared: columns of the result.
        first_rows: number of the first row of each block of the files; None where the order of rows does not count.
    """

    def prepare(batches: Batches) -> Batches:
        preparation, tally = inspected.load_preparation(), Tally()
        for first, batch in number_batches(batches, first_rows):
            if batch.num_rows:
                rows = pa.Table.from_batches([batch]).select(raw.names).cast(raw).combine_chunks().to_batches()[0]
                table, noted = preparation.prepare(rows, tally.num_rows if first is None else first)
                tally.merge(noted)
                bucket = bucket_of(table[SESSION].to_numpy(), num_buckets).astype(np.int32)
                table = table.append_column(BUCKET, pa.array(bucket))
                yield from _fill_columns(table, prepared)
        last = pa.table({BUCKET: pa.array([-1], pa.int32()), TALLY: [json.dumps(asdict(tally))]})
        yield from _fill_columns(last, prepared)

    return prepare


def _fill_columns(table: pa.Table, schema: pa.Schema) -> Batches:
    """Batches of a table with the columns of a schema; a column that the table lacks is null."""
    columns = [
        table[f.name].cast(f.type) if f.name in table.column_names else pa.nulls(table.num_rows, f.type) for f in schema
    ]
    yield from pa.table(columns, schema=schema).combine_chunks().to_batches()


@dataclass(frozen=True)
class HeldSamples:
    """The samples of one shard in memory: its :class:`ShardSamples`.

    Attributes:
        table: the samples.
    """

    table: pa.Table

    def read_keys(self) -> pa.Table:
        """The key columns of every sample."""
        return self.table.select([name for name in KEY_COLUMNS if name in self.table.column_names])

    def read_samples(self) -> Iterable[pa.Table]:
        """All columns of every sample, in one table."""
        return (self.table,)


class HeldReader:
    """Reads the one shard that is in memory: the :class:`ShardSource` of a worker.

    Args:
        table: its samples.
        shard: its number.
        shard_bytes: the most bytes that a piece of it may take in memory.
        rules: what the source says about its keys.
        plan: the parts of this shard.
        has_time: whether the source names a timestamp.
    """

    def __init__(
        self, table: pa.Table, shard: int, shard_bytes: int, rules: Rules, plan: PartsPlan, has_time: bool
    ) -> None:
        self._samples, self._shard, self._plan = HeldSamples(table), shard, plan
        self._reader = PartReader(rules, plan, shard_bytes, has_time)

    def read_first_part(self) -> PartSamples:
        """The samples of the first part of the plan, which is a part of this shard."""
        return next(iter(self.read_parts(self._shard, self._plan.parts[:1])))[1]

    def read_parts(self, shard: int, parts: Iterable[PlannedPart]) -> Iterable[tuple[PlannedPart, PartSamples]]:
        """The samples of some parts of this shard."""
        if shard != self._shard:
            raise ValueError(f"shard {shard} is not in memory, only shard {self._shard} is")
        return self._reader.read_parts(self._samples, parts)

    def read_left_out(self) -> Iterable[tuple[str, pa.Table]]:
        """What policies leave out of this shard where it has no part; other tasks read the other shards."""
        return () if self._plan.parts else self._reader.read_left_out(self._samples)


def _collect_shard(batches: Batches, schema: pa.Schema) -> tuple[int, pa.Table] | None:
    """Collects the shard that Spark has sent to a task.

    Args:
        batches: rows of the shard, with its number in the column ``SHARD``.
        schema: DuckDB's types of the columns.

    Returns:
        The shard's number and its rows; None for a task that got no rows.

    Raises:
        DataError: rows of several shards came.
    """
    filled = [batch for batch in batches if batch.num_rows]
    if not filled:
        return None
    table = pa.Table.from_batches(filled)
    shards = table[SHARD].unique().to_pylist()
    if len(shards) != 1:
        raise DataError(f"shards {shards} came to one task of Spark; set spark.sql.adaptive.enabled=false")
    fields = [schema.field(name) for name in table.column_names if name in schema.names]
    return shards[0], table.select([f.name for f in fields]).cast(pa.schema(fields))


def survey_task(rules: Rules, shard_bytes: int, schema: pa.Schema) -> Task:
    """The task that looks at the keys of a shard and returns rows of ``SURVEY_SCHEMA``.

    Args:
        rules: rules of the source.
        shard_bytes: the most bytes that a piece of a shard has in memory.
        schema: DuckDB's types of the columns.
    """

    def survey(batches: Batches) -> Batches:
        if (numbered := _collect_shard(batches, schema)) is not None:
            shard, keys = numbered
            yield survey_to_rows(shard, survey_shard(keys, rules, shard_bytes))

    return survey


@dataclass(frozen=True)
class WritingInstructions:
    """What a task that writes a shard has to know.

    Attributes:
        inspected: the source.
        rules: rules of the source.
        plan: plan of every part.
        form: what all parts have in common, without the groups' rows.
        splits: names of the splits.
        shard_bytes: the most bytes that a piece of a shard has in memory.
        work: path of the directory of work, the same on every machine.
    """

    inspected: InspectedSource
    rules: Rules
    plan: PartsPlan
    form: TableForm
    splits: tuple[str, ...]
    shard_bytes: int
    work: str


def writing_task(instructions: WritingInstructions, schema: pa.Schema) -> Task:
    """The task that writes the parts of a shard.

    Args:
        instructions: what to write, and where.
        schema: DuckDB's types of the columns.

    Returns:
        A function that returns one row of ``WRITTEN_COLUMNS``: the shard, and as JSON what is left out of it.
    """

    def write(batches: Batches) -> Batches:
        if (numbered := _collect_shard(batches, schema)) is not None:
            shard, table = numbered
            dropped = write_shard(instructions, shard, table)
            yield pa.RecordBatch.from_pydict({"shard": [shard], "dropped": [json.dumps(asdict(dropped))]})

    return write


def write_shard(instructions: WritingInstructions, shard: int, table: pa.Table) -> Dropped:
    """Writes the parts of one shard and notes them as done.

    Args:
        instructions: what to write, and where.
        shard: number of the shard.
        table: its samples.

    Returns:
        What policies leave out of a shard that has no part; nothing for others, whose notes say it.
    """
    plan = replace(instructions.plan, parts=tuple(part for part in instructions.plan.parts if part.shard == shard))
    inspected = instructions.inspected
    reader = HeldReader(table, shard, instructions.shard_bytes, instructions.rules, plan, inspected.has_time)
    preparation = inspected.load_preparation()
    form = replace(instructions.form, lookups=dict(preparation.lookups))
    work = Path(instructions.work)
    written = write_parts(reader, plan, form, preparation, instructions.splits, work, 1, _ignore_progress)
    return Dropped() if plan.parts else written.dropped


def _ignore_progress(num_samples: int) -> None:
    del num_samples
