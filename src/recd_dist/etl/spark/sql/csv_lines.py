"""Lines of CSV files become rows in Spark's workers, by DuckDB's own reader.

::

    train.csv --lines by Spark--> [chunk of lines] --DuckDB: read_csv of a chunk--> rows with DuckDB's types
"""

import tempfile
from collections.abc import Callable, Iterator
from itertools import pairwise

import pyarrow as pa

from recd_dist.etl.spark.sql.duckdb_in_workers import worker_connection
from recd_dist.etl.spark.sql.row_place import PLACE, Block, change_points
from recd_dist.table.flat import string_literal

_CHUNK_BYTES = 32 << 20


def line_parser(
    select: str, options: str, header: bool, quote: str, time_zone: str, keep_place: bool = False
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """A function of Arrow batches of lines (``value``, ``__file``, ``__start``) that yields their rows.

    Args:
        select: columns of the rows, as SQL.
        options: options of DuckDB's ``read_csv``, as SQL.
        header: whether the first line of each file is no row.
        quote: the quoting character, empty for none. A quoted value must end in its line, since Spark takes files
            apart by lines.
        time_zone: DuckDB's time zone on the driver.
        keep_place: whether rows keep ``__file`` and ``__start``.
    """

    def parse_lines(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for (path, start), lines in _chunks(_skip_headers(batches, header)):
            if quote and any(line.count(quote) % 2 for line in lines):
                raise ValueError(
                    "a quoted value of a CSV file holds the end of a line; write the file as Parquet for Spark"
                )
            with tempfile.NamedTemporaryFile("w", suffix=".csv", encoding="utf-8", newline="") as file:
                file.write("\n".join(lines) + "\n")
                file.flush()
                query = f"select {select} from read_csv({string_literal(file.name)}, {options})"
                table = worker_connection(time_zone).sql(query).to_arrow_table()
            if keep_place:
                for name, value in zip(PLACE, (path, start), strict=True):
                    table = table.append_column(name, pa.array([value] * table.num_rows))
            yield from table.to_batches()

    return parse_lines


def _skip_headers(batches: Iterator[pa.RecordBatch], header: bool) -> Iterator[tuple[Block, list[str]]]:
    """Lines block by block, without the first line of each file where it is a header.

    The header is the first line that a task sees of a file's first block.
    """
    last: Block | None = None
    for batch in batches:
        files, starts = batch.column(1), batch.column(2)
        for begin, end in pairwise([0, *change_points(files, starts), batch.num_rows]):
            block = files[begin].as_py(), starts[begin].as_py()
            lines = batch.column(0).slice(begin, end - begin).to_pylist()
            yield block, lines[1:] if header and not block[1] and block != last else lines
            last = block


def _chunks(blocks: Iterator[tuple[Block, list[str]]]) -> Iterator[tuple[Block, list[str]]]:
    """Puts lines of one block together until they are about ``_CHUNK_BYTES``."""
    chunk, size, chunk_block = list[str](), 0, ("", 0)
    for block, lines in blocks:
        if chunk and (block != chunk_block or size > _CHUNK_BYTES):
            yield chunk_block, chunk
            chunk, size = [], 0
        chunk_block = block
        chunk += lines
        size += sum(map(len, lines))
    if chunk:
        yield chunk_block, chunk
