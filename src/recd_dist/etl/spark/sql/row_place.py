"""Where a row stands among all rows, for sources without a timestamp: there the order of the raw files counts.

::

    a.csv  block 0    row 0 1 2        Spark reads blocks in any order; within a block a task sees rows in order
           block 128  row 3 4          first[a.csv, 128] = 3
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
"""Columns that follow a row from its file: the file's URI, and the first byte of its block."""

Block = tuple[str, int]
"""A part of a file that Spark reads at once."""


def first_rows(samples: "DataFrame", files: list[str]) -> dict[Block, int]:
    """The place of the first row of each block in the query's result, as DuckDB has it: file after file.

    Args:
        samples: with the columns ``PLACE``; they are counted.
        files: in the order in which DuckDB reads them.
    """
    order = {str(Path(file).absolute()): number for number, file in enumerate(files)}
    counts = {(row[PLACE[0]], row[PLACE[1]]): row["count"] for row in samples.groupBy(*PLACE).count().collect()}
    first, total = dict[Block, int](), 0
    for block in sorted(counts, key=lambda block: (order[unquote(urlparse(block[0]).path)], block[1])):
        first[block] = total
        total += counts[block]
    return first


def placed(
    batches: Iterator[pa.RecordBatch], first: Mapping[Block, int] | None
) -> Iterator[tuple[int | None, pa.RecordBatch]]:
    """Batches of rows that follow each other, and the place of the first row among all rows; None: it is not known.

    Args:
        batches: of one task.
        first: of each block.
    """
    done = dict[Block, int]()
    for batch in batches:
        if first is None or not batch.num_rows:
            yield None, batch
            continue
        columns = [batch.column(name) for name in PLACE]
        for begin, end in pairwise([0, *changes(*columns), batch.num_rows]):
            block = columns[0][begin].as_py(), columns[1][begin].as_py()
            yield first[block] + done.get(block, 0), batch.slice(begin, end - begin)
            done[block] = done.get(block, 0) + end - begin


def changes(*columns: pa.Array) -> list[int]:
    """Where a row differs from the one before."""
    flags = [pc.not_equal(column.slice(1), column.slice(0, max(len(column) - 1, 0))) for column in columns]
    return [place + 1 for place in pc.indices_nonzero(functools.reduce(pc.or_, flags)).to_pylist()]
