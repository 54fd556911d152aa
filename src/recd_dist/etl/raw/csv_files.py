"""CSV files that are read together: how each is written, what the user says of them, what was found."""

from collections import defaultdict
from dataclasses import dataclass, field, replace

import duckdb

from recd_dist.etl.raw.common_types import common_types
from recd_dist.etl.raw.csv_dialect import Dialect, evaluate, find_dialect
from recd_dist.etl.raw.found_files import FoundFile, list_literal
from recd_dist.etl.raw.read_options import ReadOptions
from recd_dist.etl.raw.value_classes import Found
from recd_dist.table.flat import string_literal

_PINNED = (
    *("auto_detect", "columns", "types", "dtypes", "names", "all_varchar", "sample_size", "files_to_sniff", "delim"),
    *("quote", "escape", "comment", "header", "skip", "nullstr", "timestampformat", "dateformat", "union_by_name"),
    *("auto_type_candidates", "normalize_names"),
)
"""Options of a query's ``read_csv`` that are answered by what was found; the others stay as they are."""


@dataclass
class CsvFiles:
    """CSV files that are read together, and all that was found of them.

    Attributes:
        files: the files.
        options: SQL of each option that the user gave.
        dialects: how each file is written.
        nulls: SQL of the list of texts that are missing values.
        declared: the type of each column that the user states.
        time_format: the format of times that the user states.
        found: the type of each column, once it is known.
    """

    files: tuple[FoundFile, ...]
    options: dict[str, str]
    dialects: dict[str, Dialect]
    nulls: str
    declared: dict[str, str]
    time_format: str | None
    found: dict[str, Found] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the columns, in the order of the first file."""
        return self.dialects[self.files[0].name].names

    @property
    def decimal(self) -> str:
        """The character before the fraction of a number."""
        return self.options.get("decimal_separator", "'.'").strip("'")

    def call(self, files: tuple[FoundFile, ...], types: dict[str, str], more: dict[str, str]) -> str:
        """A call of ``read_csv`` on files of one dialect that leaves DuckDB nothing to guess.

        Args:
            files: some of the files.
            types: the type of each column.
            more: SQL of further options.
        """
        dialect = self.dialects[files[0].name]
        columns = ", ".join(f"{string_literal(name)}: {string_literal(types[name])}" for name in dialect.names)
        kept = {name: text for name, text in self.options.items() if name not in _PINNED}
        options = {"columns": f"{{{columns}}}", **dialect.options(), "nullstr": self.nulls, **kept, **more}
        text = "".join(f", {name} = {value}" for name, value in options.items())
        return f"read_csv({list_literal(files)}{text})"

    def by_dialect(self) -> list[tuple[FoundFile, ...]]:
        """The files, those of one dialect together."""
        together: dict[Dialect, list[FoundFile]] = defaultdict(list)
        for file in self.files:
            together[self.dialects[file.name]].append(file)
        return [tuple(files) for files in together.values()]


def describe_csv(
    connection: duckdb.DuckDBPyConnection, files: tuple[FoundFile, ...], given: dict[str, str], options: ReadOptions
) -> CsvFiles:
    """What options and first lines say of files, before their rows are looked at.

    Raises:
        DataError: the columns of two files differ in their names.
    """
    files = tuple(file for file in files if file.num_bytes) or files  # an engine writes a file for each empty part
    nulls = evaluate(connection, given.get("nullstr", "['']"))
    texts = dict.fromkeys([*([nulls] if isinstance(nulls, str) else nulls), *(("", *options.null_values))])
    time_format = given.get("timestampformat") or given.get("dateformat")
    dialects = {file.name: find_dialect(connection, file, given) for file in files}
    quotes = {dialect.quote for dialect in dialects.values()} - {""}
    if quotes and "quote" not in given:  # a file without quotes says nothing of them
        known = next(dialect for dialect in dialects.values() if dialect.quote)
        for name, dialect in dialects.items():
            if not dialect.quote:
                dialects[name] = replace(dialect, quote=known.quote, escape=known.escape)
    csv_files = CsvFiles(
        files,
        given,
        dialects,
        f"[{', '.join(map(string_literal, texts))}]",
        _declared_types(connection, given, dialects[files[0].name].names) | dict(options.types),
        evaluate(connection, time_format) if time_format else options.timestamp_format,
    )
    if "union_by_name" not in given:
        common_types([(name, dict.fromkeys(dialect.names, "there")) for name, dialect in dialects.items()], "read_csv")
    return csv_files


def _declared_types(
    connection: duckdb.DuckDBPyConnection, given: dict[str, str], names: tuple[str, ...]
) -> dict[str, str]:
    """The types that a query states: of all columns, of some by name, or of the first ones in their order."""
    if given.get("all_varchar", "false").lower() == "true":
        return dict.fromkeys(names, "VARCHAR")
    stated = evaluate(connection, given.get("columns") or given.get("types") or given.get("dtypes") or "null")
    if isinstance(stated, dict):
        return {name: str(kind).upper() for name, kind in stated.items()}
    return {name: str(kind).upper() for name, kind in zip(names, stated or (), strict=False)}
