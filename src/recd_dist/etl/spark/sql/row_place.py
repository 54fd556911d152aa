"""Where a row stands among all rows, for sources without a timestamp.

There the order of the raw files counts.

::

    a.csv  block 0    row 0 1 2        Spark reads blocks in any order; within a block a task sees rows in order
           block 128  row 3 4          first_rows[a.csv, 128] = 3
    b.csv  block 0    row 5 6
"""

import functools
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlparse

import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

PLACE = ("__file", "__start")
"""Columns that follow a row from its file: the file's URI, and the first byte of the row's block."""

Block = tuple[str, int]
"""A part of a file that Spark reads at once: the file's URI, and the block's first byte."""


def number_blocks(samples: "DataFrame", files: list[str]) -> dict[Block, int]:
    """Counts the rows of each block, so that the first row of each block is known by its number among all rows.

    Args:
        samples: result of the query, with the columns ``PLACE``; Spark counts its rows here.
        files: paths of the files in the order in which DuckDB reads them.

    Returns:
        Block -> number of its first row in the query's result, as DuckDB orders it: file after file.
    """
    order = {str(Path(file).absolute()): number for number, file in enumerate(files)}
    counts = {(row[PLACE[0]], row[PLACE[1]]): row["count"] for row in samples.groupBy(*PLACE).count().collect()}
    first_rows, total = dict[Block, int](), 0
    for block in sorted(counts, key=lambda block: (order[unquote(urlparse(block[0]).path)], block[1])):
        first_rows[block] = total
        total += counts[block]
    return first_rows


def number_batches(
    batches: Iterator[pa.RecordBatch], first_rows: Mapping[Block, int] | None
) -> Iterator[tuple[int | None, pa.RecordBatch]]:
    """Cuts batches where a block ends, and tells the number of each piece's first row among all rows.

    Args:
        batches: the rows of one task, with the columns ``PLACE`` where ``first_rows`` is given.
        first_rows: number of the first row of each block; None where the order of the rows does not count.

    Returns:
        Pairs of a number and rows that follow each other; the number is None where it is not known.
    """
    num_seen = dict[Block, int]()
    for batch in batches:
        if first_rows is None or not batch.num_rows:
            yield None, batch
            continue
        columns = [batch.column(name) for name in PLACE]
        for begin, end in pairwise([0, *change_points(*columns), batch.num_rows]):
            block = columns[0][begin].as_py(), columns[1][begin].as_py()
            yield first_rows[block] + num_seen.get(block, 0), batch.slice(begin, end - begin)
            num_seen[block] = num_seen.get(block, 0) + end - begin


def change_points(*columns: pa.Array) -> list[int]:
    """Indices of the rows that differ from the row before in any of some columns."""
    flags = [pc.not_equal(column.slice(1), column.slice(0, max(len(column) - 1, 0))) for column in columns]
    return [index + 1 for index in pc.indices_nonzero(functools.reduce(pc.or_, flags)).to_pylist()]
