"""How CSV files are written (delimiter, quotes, header, names), as the user says or DuckDB finds in each file."""

import csv
import gzip
import zlib
from collections import Counter
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import duckdb

from recd_dist.errors import DataError
from recd_dist.etl.raw.duckdb_sql import short_message
from recd_dist.etl.raw.found_files import FoundFile, list_literal
from recd_dist.etl.raw.read_options import ReadOptions
from recd_dist.table.flat import string_literal

_CHARACTERS = {"delim": ",", "quote": '"', "escape": '"', "comment": ""}
"""Options that name a character, and what they are where a query says ``auto_detect = false``."""
_SNIFFED = (
    *("delim", "quote", "escape", "comment", "header", "names", "skip", "encoding", "nullstr", "null_padding"),
    *("columns", "types", "dtypes", "strict_mode", "decimal_separator", "max_line_size", "compression", "thousands"),
)
_LOOKED_AT = 2000
_SHOWN = 60


@dataclass(frozen=True)
class Dialect:
    """How a CSV file is written.

    Attributes:
        delim, quote, escape, comment: characters; empty for none.
        header: whether the first line holds the names.
        skip: lines before it.
        names: the names of the columns.
    """

    delim: str
    quote: str
    escape: str
    comment: str
    header: bool
    skip: int
    names: tuple[str, ...]

    def options(self) -> dict[str, str]:
        """The options of ``read_csv``, as SQL by name, that say it all but the columns."""
        characters = {name: string_literal(getattr(self, name)) for name in _CHARACTERS}
        skip = {"skip": str(self.skip)} if self.skip else {}
        return {"auto_detect": "false", "header": str(self.header).lower(), **characters, **skip}


def user_options(call: dict[str, str], options: ReadOptions) -> dict[str, str]:
    """The options of a call of ``read_csv``, with those of the data config where the call itself says nothing.

    Args:
        call: SQL of each option that the query gives.
        options: what the data config says.
    """
    known = {"delim" if name == "sep" else name: text for name, text in call.items()}
    given = {
        "delim": options.delimiter and string_literal(options.delimiter),
        "quote": options.quote and string_literal(options.quote),
        "header": None if options.header is None else str(options.header).lower(),
        "names": options.names and f"[{', '.join(map(string_literal, options.names))}]",
        "decimal_separator": string_literal(options.decimal) if options.decimal != "." else None,
        "encoding": options.encoding and string_literal(options.encoding),
    }
    return {name: text for name, text in given.items() if text} | known


def find_dialect(connection: duckdb.DuckDBPyConnection, file: FoundFile, options: dict[str, str]) -> Dialect:
    """How one file is written.

    Args:
        connection: an open DuckDB that reaches the file.
        file: the file.
        options: SQL of each option that the user gave; those that are given are not looked for.

    Raises:
        DataError: the file's lines have no common form; the message names the line that does not fit.
    """
    columns = evaluate(connection, options.get("columns", "null"))
    if options.get("auto_detect", "true").lower() == "false":
        characters = {
            name: evaluate(connection, options.get(name, string_literal(c))) for name, c in _CHARACTERS.items()
        }
        names = tuple(columns or evaluate(connection, options.get("names", "[]")))
        header = bool(evaluate(connection, options.get("header", "false")))
        return Dialect(
            **characters, header=header, skip=int(evaluate(connection, options.get("skip", "0"))), names=names
        )
    given = "".join(f", {name} = {text}" for name, text in options.items() if name in _SNIFFED)
    query = (
        f"select Delimiter, Quote, Escape, Comment, HasHeader, SkipRows, Columns from sniff_csv({_name(file)}{given})"
    )
    try:
        row = connection.execute(query).fetchall()[0]
    except duckdb.Error as error:
        if (dialect := _with_open_ends(file, options)) is not None:
            return dialect
        raise DataError(_explain(file, options, short_message(error))) from error
    delim, quote, escape, comment = ("" if text == "(empty)" else str(text) for text in row[:4])
    names = tuple(column["name"] for column in row[6])
    dialect = Dialect(delim, quote, escape, comment, bool(row[4]), int(row[5]), tuple(columns or names))
    _check_names(file, dialect, options)
    return dialect


def evaluate(connection: duckdb.DuckDBPyConnection, sql: str) -> Any:
    """The value of a constant expression."""
    return connection.execute(f"select {sql}").fetchall()[0][0]


def _first_lines(file: FoundFile) -> list[bytes]:
    """The first lines of a file without their ends; none where only DuckDB can open it, or nothing can."""
    path = file.path
    if not isinstance(path, Path) or path.suffix.lower() == ".zst":
        return []
    try:
        with gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb") as lines:
            return [line.rstrip(b"\r\n") for line in islice(lines, _LOOKED_AT)]
    except (OSError, EOFError, zlib.error):  # a broken archive, or none
        return []


def find_twins(file: FoundFile, dialect: Dialect) -> list[str]:
    """Names in the first line of a file that stand there twice, or differ in case alone: DuckDB numbers them."""
    lines = [line.decode(errors="replace") for line in _first_lines(file)[dialect.skip : dialect.skip + 1]]
    if not lines or not dialect.header or not dialect.delim:
        return []
    names = [
        name.strip().removeprefix("\ufeff").lower() for name in next(csv.reader(lines, delimiter=dialect.delim), [])
    ]
    return [name for name, count in Counter(names).items() if name and count > 1]


def _name(file: FoundFile) -> str:
    return list_literal((file,))[1:-1]


def _check_names(file: FoundFile, dialect: Dialect, options: dict[str, str]) -> None:
    """Refuses a file of one column whose name holds several: its lines are quoted as a whole, or one does not fit."""
    name = dialect.names[0]
    mark = next((m for m in ",;\t|" if m in name), None)
    if len(dialect.names) > 1 or mark is None or "delim" in options:
        return
    if dialect.quote and (lines := _first_lines(file)) and lines[0].startswith(dialect.quote.encode()):
        raise DataError(
            f"{file.name}, line 1: every line is quoted as a whole ('\"{_shown(name, 40)}\"'), so there is one column "
            f"instead of {name.count(mark) + 1}; take the outer quotes off: "
            f'sed \'s/^"//; s/"$//; s/""/"/g\' {file.name} > unquoted.csv'
        )
    raise DataError(_explain(file, options, "its lines have no common form"))


def _with_open_ends(file: FoundFile, options: dict[str, str]) -> Dialect | None:
    """How a file is written of which every line but the first ends in a delimiter; None where it is another one."""
    if set(options) & set(_SNIFFED) - {"delim"}:
        return None
    lines = [line.decode(errors="replace") for line in _first_lines(file)]
    if not lines:
        return None
    delim = _given_delimiter(options) or max(",;\t|", key=lines[0].count)
    names, *rows = list(csv.reader(lines, delimiter=delim))
    open_ends = rows and all(len(row) == len(names) + 1 and not row[-1] for row in rows if row)
    return Dialect(delim, '"', '"', "", True, 0, tuple(names)) if open_ends else None


def _explain(file: FoundFile, options: dict[str, str], message: str) -> str:
    """Why DuckDB finds no form of a file's lines: its first line that is not UTF-8, or has another number of values."""
    raw = _first_lines(file)
    lines = [line.decode(errors="replace") for line in raw]
    bad = next((number for number, line in enumerate(raw, 1) if not _is_utf8(line)), None)
    if bad and "encoding" not in options:
        shown = _shown(lines[bad - 1], _SHOWN)
        return (
            f"{file.name}, line {bad}: not written in UTF-8: '{shown}'; say how: data.csv.encoding=latin-1 (or utf-16)"
        )
    if lines:
        delim = _given_delimiter(options) or max(",;\t|", key=lines[0].count)
        expected = next(csv.reader(lines[:1], delimiter=delim), [])
        for number, line in enumerate(lines[1:], 2):
            row = next(csv.reader([line], delimiter=delim), [])
            if len(row) not in (0, len(expected)) and line.count('"') % 2 == 0:
                return _explain_line(file, number, line, delim, row, len(expected))
    return f"{file.name}: {message}; say how it is written: data.csv.delimiter, data.csv.quote, data.csv.header"


def _given_delimiter(options: dict[str, str]) -> str:
    return options.get("delim", "").strip("'").replace("\\t", "\t")


def _explain_line(file: FoundFile, number: int, line: str, delim: str, row: list[str], expected: int) -> str:
    shown = delim.replace("\t", "\\t")
    end, cure = "", f"mend the line, or say how the file is written: data.csv.delimiter (now '{shown}'), data.csv.quote"
    if len(row) > expected and not row[-1]:
        end, cure = " (the line ends in a delimiter)", f"take it off: sed -i 's/{shown}$//' {file.name}"
    return (
        f"{file.name}, line {number}: {len(row)} values where the first line has {expected}{end}: "
        f"'{_shown(line, _SHOWN)}'; {cure}"
    )


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _shown(text: str, length: int) -> str:
    """The beginning of a line, with its tabs to be seen."""
    text = text.replace("\t", "\\t")
    return text if len(text) <= length else text[: length - 2] + ".."
