"""Prepared samples, which Spark keeps on the executors' disks until they are written.

::

    samples DataFrame --prepare--> rows by bucket --survey, by shard--> Survey of each shard (driver)
                                         '---------write, by shard--> parts, as files
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recd_dist.etl.deal.keys import HASH, KEY_COLUMNS, SIZE, Rules
from recd_dist.etl.deal.load import PartSamples
from recd_dist.etl.deal.plan_parts import PartsPlan, Survey
from recd_dist.etl.deal.shards import check_any_left
from recd_dist.etl.deal.spill import BucketSizes
from recd_dist.etl.deal.tally import Dropped, Tally
from recd_dist.etl.source.inspection import SESSION, TIMESTAMP, link_column
from recd_dist.etl.spark.in_workers import (
    BUCKET,
    SHARD,
    TALLY,
    WRITTEN_COLUMNS,
    HeldReader,
    InspectedSource,
    WritingInstructions,
    preparation_task,
    survey_task,
    writing_task,
)
from recd_dist.etl.spark.sql.row_place import Block
from recd_dist.etl.spark.sql.tree import spark_identifier
from recd_dist.etl.spark.survey_rows import SURVEY_COLUMNS, survey_from_rows

if TYPE_CHECKING:
    from pyspark.sql import DataFrame
    from pyspark.sql.types import StructType

ShardBuckets = list[list[int]]
"""For each shard the numbers of its buckets."""


class PreparedSamples:
    """The prepared samples; Spark computes them once, when they are first needed.

    Args:
        samples: rows of the normalised query.
        inspected: the source.
        raw: columns of the query, with the types that DuckDB has for them.
        num_buckets: number of buckets; a power of two.
        first_rows: number of the first row of each block of the files; None where the order of rows does not count.

    Attributes:
        inspected: the source.
        schema: columns of a sample, with the types that DuckDB has for them.
    """

    def __init__(
        self,
        samples: "DataFrame",
        inspected: InspectedSource,
        raw: pa.Schema,
        num_buckets: int,
        first_rows: Mapping[Block, int] | None,
    ) -> None:
        from pyspark import StorageLevel
        from pyspark.sql.pandas.types import to_arrow_schema

        links = {link_column(group) for group in inspected.lookup_files}
        fields = {field.name: pa.int64() if field.name in links else field.type for field in raw}
        added = {SESSION: pa.int64(), TIMESTAMP: pa.int64(), HASH: pa.int64(), SIZE: pa.int32()}
        self.inspected = inspected
        self.schema = pa.schema(list((fields | added).items()))
        prepared = _prepared_columns(samples, raw, links)
        task = preparation_task(inspected, num_buckets, raw, to_arrow_schema(prepared), first_rows)
        self._num_buckets = num_buckets
        self._rows = samples.mapInArrow(task, prepared).persist(StorageLevel.DISK_ONLY)

    def prepare(self) -> tuple[Tally, BucketSizes]:
        """Prepares every sample.

        Returns:
            What was noted of the samples, and how many samples and bytes each bucket has.

        Raises:
            DataError: no sample is left.
        """
        from pyspark.sql import functions as F

        sizes = self._rows.groupBy(BUCKET).agg(F.count("*").alias("n"), F.sum(SIZE).alias("b")).collect()
        tally = Tally()
        for text in self._rows.where(F.col(BUCKET) < 0).select(TALLY).toArrow()[TALLY].to_pylist():
            tally.merge(Tally.from_json(json.loads(text)))
        num_rows, num_bytes = np.zeros((2, self._num_buckets), np.int64)
        for row in sizes:
            if row[BUCKET] >= 0:
                num_rows[row[BUCKET]], num_bytes[row[BUCKET]] = row["n"], row["b"]
        check_any_left(tally, int(num_rows.sum()))
        return tally, BucketSizes(num_rows, num_bytes)

    def survey(self, shards: ShardBuckets, rules: Rules, shard_bytes: int) -> list[Survey]:
        """Looks at the keys of each shard.

        Args:
            shards: the buckets of each shard.
            rules: rules of the source.
            shard_bytes: the most bytes that a piece of a shard has in memory.

        Returns:
            What the keys say, a survey per shard.
        """
        names = [name for name in KEY_COLUMNS if name in self.schema.names]
        keys = self._deal(shards, names).repartitionById(len(shards), SHARD)
        rows = keys.mapInArrow(survey_task(rules, shard_bytes, self.schema), SURVEY_COLUMNS).toArrow()
        return [survey_from_rows(rows.filter(pc.field("shard") == number)) for number in range(len(shards))]

    def load_first_part(self, shards: ShardBuckets, rules: Rules, plan: PartsPlan, shard_bytes: int) -> PartSamples:
        """Brings the samples of the first part to the driver.

        Args:
            shards: the buckets of each shard.
            rules: rules of the source.
            plan: plan of the parts.
            shard_bytes: the most bytes that a piece of a shard has in memory.
        """
        from pyspark.sql import functions as F

        number = plan.parts[0].shard
        table = self._deal(shards, self.schema.names).where(F.col(SHARD) == number).drop(SHARD).toArrow()
        table = table.select(self.schema.names).cast(self.schema)
        return HeldReader(table, number, shard_bytes, rules, plan, self.inspected.has_time).read_first_part()

    def write_shards(self, shards: ShardBuckets, instructions: WritingInstructions) -> Dropped:
        """Writes the parts of every shard that is not noted as written.

        Args:
            shards: the buckets of each shard.
            instructions: what to write, and where.

        Returns:
            What policies leave out of shards that have no part.
        """
        from pyspark.sql import functions as F

        notes = Path(instructions.work) / "parts"
        missing = [n for n in range(len(shards)) if not (notes / f"shard-{n:05d}.json").is_file()]
        dropped = Dropped()
        if not missing:
            return dropped
        rows = self._deal(shards, self.schema.names).where(F.col(SHARD).isin(missing))
        rows = rows.repartitionById(len(shards), SHARD)
        for row in rows.mapInArrow(writing_task(instructions, self.schema), WRITTEN_COLUMNS).collect():
            dropped.merge(Dropped(**json.loads(row["dropped"])))
        return dropped

    def release(self) -> None:
        """Frees the executors' disks."""
        self._rows.unpersist()

    def _deal(self, shards: ShardBuckets, names: Iterable[str]) -> "DataFrame":
        """Some columns of the samples, with the number of each sample's shard."""
        from pyspark.sql import functions as F

        shard_of = np.full(self._num_buckets, -1)
        for number, buckets in enumerate(shards):
            shard_of[buckets] = number
        numbers = F.array(*[F.lit(number) for number in shard_of.tolist()])
        rows = self._rows.where(F.col(BUCKET) >= 0)
        columns = [spark_identifier(name) for name in names]
        return rows.select(*columns, F.element_at(numbers, F.col(BUCKET) + 1).alias(SHARD))


def _prepared_columns(samples: "DataFrame", raw: pa.Schema, links: set[str]) -> "StructType":
    """Spark's types of the columns of prepared samples and of tallies."""
    from pyspark.sql import types as T

    kept = {
        field.name: T.LongType() if field.name in links else field.dataType
        for field in samples.schema
        if field.name in raw.names
    }
    added = {SESSION: T.LongType(), TIMESTAMP: T.LongType(), HASH: T.LongType(), SIZE: T.IntegerType()}
    added |= {BUCKET: T.IntegerType(), TALLY: T.StringType()}
    return T.StructType([T.StructField(name, kind) for name, kind in (kept | added).items()])
