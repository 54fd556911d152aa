"""What the ETL does inside Spark's workers: the very functions of the DuckDB path, on Arrow batches.

::

    rows of the query --prepare--> rows with keys, hash, size, bucket; a last row with the task's tally
    keys of a shard   --survey-->  counts of its parts
    rows of a shard   --write-->   its parts, as files; a row when they are there

Everything here is a function of what it is given: a task that Spark runs again does the same again.
"""

import functools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from recd_dist.errors import DataError
from recd_dist.etl.deal.keys import KEY_COLUMNS, Rules
from recd_dist.etl.deal.load import PartReader, PartSamples
from recd_dist.etl.deal.lookup import Lookup
from recd_dist.etl.deal.plan_parts import PartsPlan, PlannedPart, Survey, survey_shard
from recd_dist.etl.deal.prepare import Preparation
from recd_dist.etl.deal.spill import bucket_of
from recd_dist.etl.deal.tally import Dropped, Tally
from recd_dist.etl.source.inspection import SESSION
from recd_dist.etl.source.source import Source
from recd_dist.etl.spark.sql.row_place import Block, placed
from recd_dist.etl.write.part import Form
from recd_dist.etl.write.write_parts import write_parts
from recd_dist.table.schema import Schema

BUCKET, SHARD, TALLY = "__bucket", "__shard", "__tally"
"""Columns that only Spark's shuffle needs: a sample's bucket (-1 for a tally) and shard, and a tally as JSON."""

Batches = Iterator[pa.RecordBatch]
Task = Callable[[Batches], Batches]

SURVEY = pa.schema(
    [(name, pa.int64()) for name in ("shard", "piece", "split", "partition", "start", "session", "samples")]
    + [("kept", pa.string())]
)


@dataclass(frozen=True)
class Job:
    """What every task has to know, small enough to travel with it.

    Attributes:
        source: keys and policies.
        schema: of the source as inspected.
        timed: the timestamp is a time.
        lookups: per group with its own query the name of its file.
    """

    source: Source
    schema: Schema
    timed: bool
    lookups: Mapping[str, str]

    def preparation(self) -> Preparation:
        """With the groups' rows, in a worker."""
        return Preparation(self.source, self.schema, opened(tuple(self.lookups.items())), self.timed)


@functools.lru_cache(maxsize=1)
def opened(files: tuple[tuple[str, str], ...]) -> dict[str, Lookup]:
    """The groups' rows in this worker: files that Spark brought here."""
    from pyspark import SparkFiles

    return {group: Lookup.of_file(group, Path(SparkFiles.get(name))) for group, name in files}


def preparing(
    job: Job, num_buckets: int, raw: pa.Schema, made: pa.Schema, first: Mapping[Block, int] | None = None
) -> Task:
    """Prepares batches of the normalised query.

    Args:
        job: of the run.
        num_buckets: a power of two.
        raw: columns of the query as DuckDB has them.
        made: columns of the result.
        first: place of the first row of each block of the files, where the order of the rows counts.
    """

    def run(batches: Batches) -> Batches:
        preparation, tally = job.preparation(), Tally()
        for place, batch in placed(batches, first):
            if batch.num_rows:
                rows = pa.Table.from_batches([batch]).select(raw.names).cast(raw).combine_chunks().to_batches()[0]
                table, noted = preparation.prepare(rows, tally.num_rows if place is None else place)
                tally.merge(noted)
                bucket = bucket_of(table[SESSION].to_numpy(), num_buckets).astype(np.int32)
                table = table.append_column(BUCKET, pa.array(bucket))
                yield from _filled(table, made)
        yield from _filled(pa.table({BUCKET: pa.array([-1], pa.int32()), TALLY: [json.dumps(asdict(tally))]}), made)

    return run


def _filled(table: pa.Table, schema: pa.Schema) -> Batches:
    """A table's batches with the columns of a schema, null where it has none."""
    columns = [
        table[f.name].cast(f.type) if f.name in table.column_names else pa.nulls(table.num_rows, f.type) for f in schema
    ]
    yield from pa.table(columns, schema=schema).combine_chunks().to_batches()


@dataclass(frozen=True)
class HeldRuns:
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
        self._samples, self._shard, self._plan = HeldRuns(table), shard, plan
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


def _one_shard(batches: Batches, schema: pa.Schema) -> tuple[int, pa.Table] | None:
    """The shard of a task, with DuckDB's types; None for a task that got nothing."""
    found = [batch for batch in batches if batch.num_rows]
    if not found:
        return None
    table = pa.Table.from_batches(found)
    shards = table[SHARD].unique().to_pylist()
    if len(shards) != 1:
        raise DataError(f"shards {shards} came to one task of Spark; set spark.sql.adaptive.enabled=false")
    fields = [schema.field(name) for name in table.column_names if name in schema.names]
    return shards[0], table.select([f.name for f in fields]).cast(pa.schema(fields))


def surveying(rules: Rules, shard_bytes: int, schema: pa.Schema) -> Task:
    """Looks at the keys of a shard: rows of ``SURVEY``."""

    def run(batches: Batches) -> Batches:
        if (found := _one_shard(batches, schema)) is None:
            return
        shard, keys = found
        yield survey_batch(shard, survey_shard(keys, rules, shard_bytes))

    return run


def survey_batch(shard: int, survey: Survey) -> pa.RecordBatch:
    """A survey as rows; ``survey_of`` is its inverse."""
    counts = [(shard, piece, split, number, 0, 0, n) for (piece, split, number), n in survey.counts.items()]
    columns = np.array(counts, np.int64).reshape(-1, 7).T
    piece, partition, start, session = survey.sessions
    same = np.full(len(piece), shard)
    every = np.stack([same, piece, np.full(len(piece), -1), partition, start, session, survey.samples])
    columns = np.concatenate([columns, every, np.array([[shard], *[[-1]] * 6])], axis=1)
    kept = pa.nulls(columns.shape[1] - 1, pa.string())
    arrays = [pa.array(column) for column in columns]
    last = pa.concat_arrays([kept, pa.array([json.dumps(survey.kept)])])
    return pa.RecordBatch.from_arrays([*arrays, last], schema=SURVEY)


def survey_of(rows: pa.Table) -> Survey:
    """The survey of one shard from its rows."""
    last = rows["kept"].is_valid().to_numpy()
    values = np.stack([rows[name].to_numpy() for name in SURVEY.names[:-1]])
    kept = json.loads(rows["kept"].drop_null()[0].as_py())
    counted, of_sessions = values[:, (values[2] >= 0) & ~last], values[:, (values[2] < 0) & ~last]
    counts = {(int(p), int(s), int(n)): int(c) for p, s, n, c in zip(*counted[[1, 2, 3, 6]], strict=True)}
    order = np.lexsort(of_sessions[[5, 4, 3, 1]])
    return Survey(counts, kept, of_sessions[[1, 3, 4, 5]][:, order], of_sessions[6][order])


@dataclass(frozen=True)
class Writing:
    """What a task that writes a shard has to know.

    Attributes:
        job: of the run.
        rules: of the source.
        plan: of every part.
        form: of every part, without the groups' rows.
        splits: names of the tables.
        has_time: the source names a timestamp.
        shard_bytes: the most that a piece has in memory.
        work: directory of work, the same for every worker.
    """

    job: Job
    rules: Rules
    plan: PartsPlan
    form: Form
    splits: tuple[str, ...]
    has_time: bool
    shard_bytes: int
    work: str


def writing(what: Writing, schema: pa.Schema) -> Task:
    """Writes the parts of a shard; rows of (shard, what is left out of a shard without parts, as JSON)."""

    def run(batches: Batches) -> Batches:
        if (found := _one_shard(batches, schema)) is None:
            return
        shard, table = found
        dropped = write_shard(what, shard, table)
        yield pa.RecordBatch.from_pydict({"shard": [shard], "dropped": [json.dumps(asdict(dropped))]})

    return run


def write_shard(what: Writing, shard: int, table: pa.Table) -> Dropped:
    """Writes the parts of one shard and notes them as done; what is left out of it, if it has none."""
    plan = replace(what.plan, parts=tuple(part for part in what.plan.parts if part.shard == shard))
    reader = HeldReader(table, shard, what.shard_bytes, what.rules, plan, what.has_time)
    preparation = what.job.preparation()
    form = replace(what.form, lookups=dict(preparation.lookups))
    made = write_parts(reader, plan, form, preparation, what.splits, Path(what.work), 1, _silent)
    return Dropped() if plan.parts else made.dropped


def _silent(num_samples: int) -> Any:
    del num_samples
