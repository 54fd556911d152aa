"""Rows of groups with their own query, collected and brought to every executor.

::

    group's query on Spark --collect--> lookup-NAME.arrow (driver) --ship--> executors --open--> Lookup in each worker
"""

import functools
import os
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq

from recd_dist.etl.deal.lookup import Lookup

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_BATCH_ROWS = 8192


def collect_lookup(group: str, df: "DataFrame", schema: pa.Schema, work: Path) -> Lookup:
    """Has Spark write the rows of a group and puts them into one file on the driver, if no earlier run has.

    Args:
        group: name of the group.
        df: its rows, with their key.
        schema: Arrow types that DuckDB has for the columns.
        work: directory of work, which driver and executors share.

    Raises:
        DataError: two rows have one key.
    """
    path, files = _lookup_path(group, work), work / f"lookup-{group}.parquet"
    if path.is_file():
        return Lookup.of_file(group, path)
    df.write.mode("overwrite").parquet(str(files.absolute()))

    def batches() -> Iterator[pa.RecordBatch]:
        for file in sorted(files.glob("*.parquet")):
            for batch in pq.ParquetFile(file).iter_batches(_BATCH_ROWS):
                yield from pa.Table.from_batches([batch]).cast(schema).combine_chunks().to_batches()

    lookup = Lookup.of_batches(group, batches(), schema, path)
    shutil.rmtree(files)
    return lookup


def ship_lookups(spark: "SparkSession", groups: Collection[str], work: Path) -> dict[str, str]:
    """Brings the collected rows of groups to every executor.

    Args:
        spark: Spark session whose executors get the rows.
        groups: names of the groups.
        work: directory of work.

    Returns:
        Group -> name of its file on the executors, for ``open_lookups``.
    """
    names = {}
    for number, group in enumerate(groups):
        names[group] = f"recd-{uuid4().hex}-{number}.arrow"  # Spark takes no second file of one name
        copy = work / names[group]
        os.link(_lookup_path(group, work), copy)
        spark.sparkContext.addFile(str(copy.absolute()))
    return names


@functools.lru_cache(maxsize=1)
def open_lookups(files: tuple[tuple[str, str], ...]) -> dict[str, Lookup]:
    """Opens the rows of groups that Spark brought to this worker, once in a worker.

    Args:
        files: name of each group and of its file, as ``ship_lookups`` returns them.
    """
    from pyspark import SparkFiles

    return {group: Lookup.of_file(group, Path(SparkFiles.get(name))) for group, name in files}


def _lookup_path(group: str, work: Path) -> Path:
    return work / f"lookup-{group}.arrow"
