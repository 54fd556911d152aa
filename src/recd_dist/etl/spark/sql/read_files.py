"""Files that a query reads: Parquet by Spark, CSV by DuckDB in the workers.

DuckDB looks at the files first (types, delimiter, quotes), so that both engines see the same columns in them.
"""

import functools
from pathlib import Path

import duckdb
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from recd_dist.errors import DataError
from recd_dist.etl.raw import duckdb_sql as engine
from recd_dist.etl.raw.found_files import find_files
from recd_dist.etl.raw.parquet_call import read_footers
from recd_dist.etl.spark.sql.csv_lines import line_parser
from recd_dist.etl.spark.sql.query_context import QueryContext
from recd_dist.etl.spark.sql.row_place import PLACE
from recd_dist.etl.spark.sql.scope import Scope
from recd_dist.etl.spark.sql.spark_types import stored_type
from recd_dist.etl.spark.sql.tree import Tree, spark_identifier
from recd_dist.table.flat import identifier, string_literal

_PARQUET_READERS = ("read_parquet", "parquet_scan")
_CSV_READERS = ("read_csv", "read_csv_auto")
_CHARACTERS = ("delim", "sep", "quote", "escape", "comment")
"""Options of ``read_csv`` that name a character of the file's dialect."""
_FOR_SNIFFING = ("header", "columns", "types", "dtypes", "names", "auto_detect", "sample_size", "all_varchar")
"""Options that DuckDB needs only to find the columns; the workers get its answer instead."""
_FOR_VALUES = ("nullstr", "dateformat", "timestampformat", "decimal_separator", "allow_quoted_nulls", "null_padding")
"""Options that say how a value is read; the workers get them as they are."""


def read_table(context: QueryContext, table: Tree) -> Scope:
    """The rows of the files that a table of FROM names.

    Args:
        context: what all steps of the query share.
        table: node of the table: a file name, or a call of a reader.

    Raises:
        Unsupported: another reader, or an option of it that may mean something else on Spark.
        DataError: no such files, or files that cannot be read.
    """
    if table["type"] == "BASE_TABLE":
        name = table["table_name"]
        suffix = Path(name).suffixes[:1]
        reader = "read_parquet" if suffix and suffix[0].lower() in (".parquet", ".pq") else "read_csv"
        arguments, options = [string_literal(name)], dict[str, str]()
    else:
        reader = table["function"]["function_name"]
        arguments, options = _split_arguments(context, table["function"])
    if reader in _PARQUET_READERS and _are_of_columns(options):
        return _read_parquet(context, arguments[0], options)
    if reader in _CSV_READERS and len(arguments) == 1:
        return _read_csv(context, arguments[0], options)
    what = f"{reader}() with {', '.join(options)}" if reader in _PARQUET_READERS else f"reading by {reader}()"
    raise context.unsupported(what)


def _split_arguments(context: QueryContext, call: Tree) -> tuple[list[str], dict[str, str]]:
    """Arguments of a table function as SQL: those given by position, and those given by name."""
    positional, named = [], {}
    for argument in call["arguments"]:
        tree = argument["expression"]
        if argument["name"]:
            named[argument["name"].lower()] = context.trees.to_sql(tree)
        elif tree["type"] == "COMPARE_EQUAL" and tree["left"]["class"] == "COLUMN_REF":
            named[tree["left"]["column_names"][0].lower()] = context.trees.to_sql(tree["right"])
        else:
            positional.append(context.trees.to_sql(tree))
    return positional, named


def _find_files(context: QueryContext, paths: str) -> list[str]:
    """Finds the files of a path, a pattern or a list of these, in DuckDB's order, and notes them in the context.

    Args:
        context: what all steps of the query share.
        paths: the path, pattern or list, as SQL.
    """
    try:
        value = context.connection.execute(f"select {paths}").fetchall()[0][0]
        patterns = [value] if isinstance(value, str) else list(value)
        query = "select file from glob(?)"
        files = [row[0] for pattern in patterns for row in context.connection.execute(query, [pattern]).fetchall()]
    except duckdb.Error as error:
        raise DataError(f"query: {engine.short_message(error)}") from error
    context.files = files or patterns
    return context.files


def _describe_columns(context: QueryContext, call: str) -> list[tuple[str, str]]:
    """Name and DuckDB type of each column that a call of a reader returns."""
    return list(engine.describe_query(context.connection, f"select * from {call}", "query").items())


def _are_of_columns(options: dict[str, str]) -> bool:
    """Whether options of ``read_parquet`` only say which columns there are, and that no folder's name is one."""
    hive = options.get("hive_partitioning", "false").lower()
    return set(options) <= {"union_by_name", "hive_partitioning"} and hive == "false"


def _read_parquet(context: QueryContext, paths: str, options: dict[str, str]) -> Scope:
    """The rows of Parquet files; files whose columns have other types are read apart, and each is widened."""
    option_text = "".join(f", {name} = {value}" for name, value in options.items())
    columns = _describe_columns(context, f"read_parquet({paths}{option_text})")
    known = [(name, duck) for name, duck in columns if stored_type(duck) is not None]
    frames = [
        _select_columns(context, context.spark.read.parquet(*files), columns)
        for files in _files_by_columns(_find_files(context, paths), options)
    ]
    return Scope.of(context, functools.reduce(DataFrame.unionAll, frames), known)


def _files_by_columns(names: list[str], options: dict[str, str]) -> list[list[str]]:
    """The files, those with the same columns and types together."""
    if options.get("union_by_name", "false").lower() != "true":
        return [names]
    found = [file for name in names for file in find_files(name)]
    together: dict[object, list[str]] = {}
    for file, footer in zip(found, read_footers(found), strict=True):
        together.setdefault(footer and footer.columns, []).append(file.name)
    return list(together.values()) or [names]


def _select_columns(context: QueryContext, df: DataFrame, columns: list[tuple[str, str]]) -> DataFrame:
    spark_names = {name.lower(): name for name in df.columns}
    kept = list[Column]()
    for name, duck in columns:
        stored = stored_type(duck)
        if name.lower() not in spark_names:
            raise context.unsupported(f"column '{name}' that not every file has, or that folders' names give")
        if stored is not None:  # a query that uses a column of another type gets an error where it names the column
            kept.append(F.col(spark_identifier(spark_names[name.lower()])).cast(stored[1]).alias(f"o{len(kept)}"))
    return df.select(kept + (_place_columns() if context.keep_place else []))


def _read_csv(context: QueryContext, paths: str, options: dict[str, str]) -> Scope:
    unknown = [name for name in options if name not in (*_CHARACTERS, *_FOR_SNIFFING, *_FOR_VALUES)]
    if unknown:
        raise context.unsupported(f"read_csv() with {', '.join(unknown)}")
    option_text = "".join(f", {name} = {value}" for name, value in options.items())
    columns = _describe_columns(context, f"read_csv({paths}{option_text})")
    files = _find_files(context, paths)
    struct = ", ".join(f"{string_literal(name)}: {string_literal(duck)}" for name, duck in columns)
    dialect, quote, header = _find_dialect(context, files[0], options, option_text)
    exact = [f"columns = {{{struct}}}", "auto_detect = false", "header = false", *dialect]
    exact += [f"{name} = {value}" for name, value in options.items() if name in _FOR_VALUES]
    return Scope.of(context, _parse_lines(context, files, header, quote, ", ".join(exact), columns), columns)


def _find_dialect(
    context: QueryContext, file: str, options: dict[str, str], option_text: str
) -> tuple[list[str], str, bool]:
    """How a CSV file is written, as DuckDB finds or the query says.

    Args:
        context: what all steps of the query share.
        file: path of the file.
        options: options of ``read_csv`` in the query, as SQL by name.
        option_text: all of them as one text.

    Returns:
        Options of ``read_csv`` that say it all, the quoting character, and whether the file has a header.
    """

    def evaluate(sql: str) -> str:
        return str(context.connection.execute(f"select ({sql})::varchar").fetchall()[0][0])

    if evaluate(options.get("auto_detect", "true")) == "false":
        known = [f"{name} = {text}" for name, text in options.items() if name in _CHARACTERS]
        return known, evaluate(options.get("quote", "'\"'")), evaluate(options.get("header", "false")) == "true"
    query = "select Delimiter, Quote, Escape, Comment, HasHeader, SkipRows, DateFormat, TimestampFormat from sniff_csv("
    row = context.connection.execute(f"{query}{string_literal(file)}{option_text})").fetchall()[0]
    if row[5]:
        raise context.unsupported(f"a CSV file whose first {row[5]} lines are no data")
    characters = dict(zip(("delim", "quote", "escape", "comment"), row[:4], strict=True))
    characters = {name: "" if text == "(empty)" else text for name, text in characters.items()}
    formats = {"dateformat": row[6], "timestampformat": row[7]}
    known = [f"{name} = {string_literal(text)}" for name, text in characters.items()]
    known += [f"{name} = {string_literal(text)}" for name, text in formats.items() if text and name not in options]
    return known, characters["quote"], bool(row[4])


def _parse_lines(
    context: QueryContext, files: list[str], header: bool, quote: str, options: str, columns: list[tuple[str, str]]
) -> DataFrame:
    """The rows of CSV files, parsed in the workers.

    Args:
        context: what all steps of the query share.
        files: paths of the files.
        header: whether the first line of each file is no row.
        quote: the quoting character; empty for none.
        options: options of DuckDB's ``read_csv``, as SQL.
        columns: name and DuckDB type of each column.
    """
    types = [(name, stored_type(duck)) for name, duck in columns]
    if unheld := [name for name, stored in types if stored is None]:
        raise context.unsupported(f"the type of CSV column '{unheld[0]}'")
    schema = T.StructType([T.StructField(f"o{i}", stored[1]) for i, (_, stored) in enumerate(types) if stored])
    casts = ", ".join(f"{identifier(name)}::{stored[0]} as o{i}" for i, (name, stored) in enumerate(types) if stored)
    if context.keep_place:
        schema = schema.add(PLACE[0], T.StringType()).add(PLACE[1], T.LongType())
    lines = context.spark.read.text(files).select("value", *_place_columns())
    parse = line_parser(casts, options, header, quote, context.time_zone, context.keep_place)
    return lines.mapInArrow(parse, schema)


def _place_columns() -> list[Column]:
    """The columns ``PLACE`` of files that Spark reads."""
    return [F.col("_metadata.file_path").alias(PLACE[0]), F.col("_metadata.file_block_start").alias(PLACE[1])]
