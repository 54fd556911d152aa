"""Files that a query reads: Parquet by Spark's reader, CSV by DuckDB's own in the workers.

::

    train.csv --lines by Spark--> [chunk of lines] --DuckDB: read_csv of a chunk--> rows with DuckDB's types

DuckDB looks at the files first (types, delimiter, quotes), so Spark sees what the DuckDB path sees.
"""

import tempfile
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import duckdb
import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from recd_dist.errors import DataError
from recd_dist.etl.source import duckdb_sql as engine
from recd_dist.etl.spark.sql.row_place import PLACE, Block, changes
from recd_dist.etl.spark.sql.scope import Scope, Workshop
from recd_dist.etl.spark.sql.spark_types import stored, worker_connection
from recd_dist.etl.spark.sql.tree import Tree, backticked
from recd_dist.table.flat import identifier, string_literal

_PARQUET = ("read_parquet", "parquet_scan")
_CSV = ("read_csv", "read_csv_auto")
_CHARACTERS = ("delim", "sep", "quote", "escape", "comment")
_LOOKED_AT = ("header", "columns", "types", "dtypes", "names", "auto_detect", "sample_size", "all_varchar")
_KEPT = ("nullstr", "dateformat", "timestampformat", "decimal_separator", "allow_quoted_nulls", "null_padding")
_CHUNK_BYTES = 32 << 20


def opened(shop: Workshop, table: Tree) -> Scope:
    """The rows of the files that a table of FROM names.

    Raises:
        Unsupported: another reader, or an option of it that is not known to mean the same on Spark.
        DataError: no such files, or files that cannot be read.
    """
    if table["type"] == "BASE_TABLE":
        name = table["table_name"]
        suffix = Path(name).suffixes[:1]
        reader = "read_parquet" if suffix and suffix[0].lower() in (".parquet", ".pq") else "read_csv"
        arguments, options = [string_literal(name)], dict[str, str]()
    else:
        reader = table["function"]["function_name"]
        arguments, options = _arguments(shop, table["function"])
    if reader in _PARQUET and not options:
        return _parquet(shop, arguments[0])
    if reader in _CSV and len(arguments) == 1:
        return _csv(shop, arguments[0], options)
    what = f"{reader}() with {', '.join(options)}" if reader in _PARQUET else f"reading by {reader}()"
    raise shop.unsupported(what)


def _arguments(shop: Workshop, call: Tree) -> tuple[list[str], dict[str, str]]:
    """Arguments of a table function as SQL: by place, and by name."""
    positional, named = [], {}
    for argument in call["arguments"]:
        tree = argument["expression"]
        if argument["name"]:
            named[argument["name"].lower()] = shop.trees.text(tree)
        elif tree["type"] == "COMPARE_EQUAL" and tree["left"]["class"] == "COLUMN_REF":
            named[tree["left"]["column_names"][0].lower()] = shop.trees.text(tree["right"])
        else:
            positional.append(shop.trees.text(tree))
    return positional, named


def _files(shop: Workshop, paths: str) -> list[str]:
    """The files of a path, pattern or list of these, in DuckDB's order."""
    try:
        value = shop.connection.execute(f"select {paths}").fetchall()[0][0]
        given = [value] if isinstance(value, str) else list(value)
        found = [
            row[0] for path in given for row in shop.connection.execute("select file from glob(?)", [path]).fetchall()
        ]
    except duckdb.Error as error:
        raise DataError(f"query: {engine.short(error)}") from error
    shop.files = found or given
    return shop.files


def _described(shop: Workshop, call: str) -> list[tuple[str, str]]:
    return list(engine.described(shop.connection, f"select * from {call}", "query").items())


def _parquet(shop: Workshop, paths: str) -> Scope:
    columns = _described(shop, f"read_parquet({paths})")
    df = shop.spark.read.parquet(*_files(shop, paths))
    there = {name.lower(): name for name in df.columns}
    known, kept = list[tuple[str, str]](), list[Column]()
    for name, duck in columns:
        found = stored(duck)
        if name.lower() not in there:
            raise shop.unsupported(f"column '{name}' that comes from the names of the files (hive partitions)")
        if found is not None:  # a query that names another gets an error there
            kept.append(F.col(backticked(there[name.lower()])).cast(found[1]).alias(f"o{len(kept)}"))
            known.append((name, duck))
    if shop.placed:
        kept += [F.col("_metadata.file_path").alias(PLACE[0]), F.col("_metadata.file_block_start").alias(PLACE[1])]
    return Scope.of(shop, df.select(kept), known)


def _csv(shop: Workshop, paths: str, options: dict[str, str]) -> Scope:
    unknown = [name for name in options if name not in (*_CHARACTERS, *_LOOKED_AT, *_KEPT)]
    if unknown:
        raise shop.unsupported(f"read_csv() with {', '.join(unknown)}")
    given = "".join(f", {name} = {value}" for name, value in options.items())
    columns = _described(shop, f"read_csv({paths}{given})")
    files = _files(shop, paths)
    struct = ", ".join(f"{string_literal(name)}: {string_literal(duck)}" for name, duck in columns)
    dialect, quote, header = _dialect(shop, files[0], options, given)
    text = [f"columns = {{{struct}}}", "auto_detect = false", "header = false", *dialect]
    text += [f"{name} = {value}" for name, value in options.items() if name in _KEPT]
    df = _rows(shop, files, header, quote, ", ".join(text), columns)
    return Scope.of(shop, df, columns)


def _dialect(shop: Workshop, file: str, options: dict[str, str], given: str) -> tuple[list[str], str, bool]:
    """How a CSV file is written, as options of ``read_csv``; its quoting character; whether it has a header."""

    def value(sql: str) -> str:
        return str(shop.connection.execute(f"select ({sql})::varchar").fetchall()[0][0])

    if value(options.get("auto_detect", "true")) == "false":
        known = [f"{name} = {text}" for name, text in options.items() if name in _CHARACTERS]
        return known, value(options.get("quote", "'\"'")), value(options.get("header", "false")) == "true"
    query = "select Delimiter, Quote, Escape, Comment, HasHeader, SkipRows, DateFormat, TimestampFormat from sniff_csv("
    row = shop.connection.execute(f"{query}{string_literal(file)}{given})").fetchall()[0]
    if row[5]:
        raise shop.unsupported(f"a CSV file whose first {row[5]} lines are no data")
    found = dict(zip(("delim", "quote", "escape", "comment"), row[:4], strict=True))
    found = {name: "" if text == "(empty)" else text for name, text in found.items()}
    formats = {"dateformat": row[6], "timestampformat": row[7]}
    written = [f"{name} = {string_literal(text)}" for name, text in found.items()]
    written += [f"{k} = {string_literal(v)}" for k, v in formats.items() if v and k not in options]
    return written, found["quote"], bool(row[4])


def _rows(
    shop: Workshop, files: list[str], header: bool, quote: str, options: str, columns: list[tuple[str, str]]
) -> DataFrame:
    types = [(name, stored(duck)) for name, duck in columns]
    if missing := [name for name, found in types if found is None]:
        raise shop.unsupported(f"the type of CSV column '{missing[0]}'")
    schema = T.StructType([T.StructField(f"o{i}", found[1]) for i, (_, found) in enumerate(types) if found])
    casts = ", ".join(f"{identifier(name)}::{found[0]} as o{i}" for i, (name, found) in enumerate(types) if found)
    if shop.placed:
        schema = schema.add(PLACE[0], T.StringType()).add(PLACE[1], T.LongType())
    lines = shop.spark.read.text(files).select(
        "value", F.col("_metadata.file_path").alias(PLACE[0]), F.col("_metadata.file_block_start").alias(PLACE[1])
    )
    return lines.mapInArrow(parser(casts, options, header, quote, shop.time_zone, shop.placed), schema)


def parser(
    select: str, options: str, header: bool, quote: str, time_zone: str, placed: bool = False
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """A function of Arrow batches of lines (``value``, ``__file``, ``__start``) that yields their rows.

    Args:
        select: columns to give back, as SQL.
        options: of ``read_csv``.
        header: the first line of each file is none of its rows.
        quote: the quoting character; a quoted value must end in its line, as Spark takes files apart by lines.
        time_zone: of the session.
        placed: rows keep ``__file`` and ``__start``.
    """

    def rows(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for (path, start), lines in _chunks(_without_headers(batches, header)):
            if quote and any(line.count(quote) % 2 for line in lines):
                raise ValueError(
                    "a quoted value of a CSV file holds the end of a line; write the file as Parquet for Spark"
                )
            with tempfile.NamedTemporaryFile("w", suffix=".csv", encoding="utf-8", newline="") as file:
                file.write("\n".join(lines) + "\n")
                file.flush()
                query = f"select {select} from read_csv({string_literal(file.name)}, {options})"
                table = worker_connection(time_zone).sql(query).to_arrow_table()
            if placed:
                for name, value in zip(PLACE, (path, start), strict=True):
                    table = table.append_column(name, pa.array([value] * table.num_rows))
            yield from table.to_batches()

    return rows


def _without_headers(batches: Iterator[pa.RecordBatch], header: bool) -> Iterator[tuple[Block, list[str]]]:
    """Lines block by block, but the first line of each file: the first that a task sees of a file's first block."""
    seen: Block | None = None
    for batch in batches:
        files, starts = batch.column(1), batch.column(2)
        bounds = [0, *changes(files, starts), batch.num_rows]
        for begin, end in pairwise(bounds):
            block = files[begin].as_py(), starts[begin].as_py()
            lines = batch.column(0).slice(begin, end - begin).to_pylist()
            yield block, lines[1:] if header and not block[1] and block != seen else lines
            seen = block


def _chunks(blocks: Iterator[tuple[Block, list[str]]]) -> Iterator[tuple[Block, list[str]]]:
    """Lines of one block, about as many bytes as fit into memory well."""
    chunk, size, of = list[str](), 0, ("", 0)
    for block, lines in blocks:
        if chunk and (block != of or size > _CHUNK_BYTES):
            yield of, chunk
            chunk, size = [], 0
        of = block
        chunk += lines
        size += sum(map(len, lines))
    if chunk:
        yield of, chunk
