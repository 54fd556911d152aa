"""What is wrong with a CSV file, in one line: file, line, column, value and cure."""

from pathlib import Path

import duckdb

from recd_dist.etl.raw.csv_files import CsvFiles
from recd_dist.etl.raw.found_files import FoundFile
from recd_dist.etl.raw.value_classes import Look, Misfit, look_sql
from recd_dist.table.flat import identifier
from recd_dist.table.location import location

_SHOWN = 60
_READ_AT_ONCE = 1 << 20


def explain_reject(file: str, line: int, byte: int, kind: str, text: str, column: str, *, expected: int) -> str:
    """The error of a line that DuckDB rejects.

    Args:
        file: path of the file.
        line: number of the line as DuckDB counts.
        byte: where the line begins in the file.
        kind: DuckDB's kind of error.
        text: the line.
        column: the column, where there is one.
        expected: how many columns there are.
    """
    line = _count_lines(file, byte) or line
    where = f"{file}, line {line}"
    shown = f"'{_shown(text)}'"
    mend = f"mend the line or take it out: sed -i '{line}d' {file}"
    if kind in ("MISSING COLUMNS", "TOO MANY COLUMNS"):
        amount = "fewer" if kind == "MISSING COLUMNS" else "more"
        more = "" if amount == "fewer" else " (a delimiter inside a value? then the value needs quotes)"
        return f"{where}: {amount} values than the {expected} columns{more}: {shown}; {mend}"
    if kind == "INVALID ENCODING":
        return (
            f"{where}, column '{column}': not written in UTF-8: {shown}; say how the file is written: "
            "data.csv.encoding=latin-1 (or utf-16)"
        )
    if kind in ("UNQUOTED VALUE", "UNQUOTED_VALUE"):
        return f"{where}, column '{column}': a quote that is not closed, or stands inside a value: {shown}; {mend}"
    return f"{where}: {kind.lower()}: {shown}; {mend}"


def find_misfit(
    connection: duckdb.DuckDBPyConnection, csv_files: CsvFiles, file: str, column: str, misfit: Misfit
) -> str:
    """The error of a column whose values do not all fit, with the first one that does not and its line.

    Args:
        connection: an open DuckDB that reaches the file.
        csv_files: the files that are read together.
        file: the file in which the column was looked at.
        column: its name.
        misfit: what is wrong.
    """
    if not misfit.wanted:
        return f"{file}: {misfit.what}; {misfit.cure}"
    (one,) = [f for f in csv_files.files if f.name == file]
    value, row = _first_misfit(connection, csv_files, one, column, misfit.wanted)
    dialect = csv_files.dialects[file]
    line = row + dialect.skip + dialect.header
    cure = f"'data.null_values=[{_plain(value)}]' if it means a missing value"
    if misfit.wanted in ("BIGINT", "UBIGINT", "HUGEINT") and _is_fraction(value):
        cure = f"data.csv.types.{column}=DOUBLE if the column holds fractions"
    return (
        f"{file}, line {line}, column '{column}': '{_shown(value)}' is no {misfit.wanted} ({misfit.what}); {cure}, or "
        f"data.csv.types.{column}=VARCHAR if the column is text"
    )


def _first_misfit(
    connection: duckdb.DuckDBPyConnection, csv_files: CsvFiles, file: FoundFile, column: str, wanted: str
) -> tuple[str, int]:
    """The first value that is not of a type, and the number of its row, from 1 on."""
    names = csv_files.dialects[file.name].names
    fitting = {
        "BIGINT": (Look.whole, Look.whole_unsigned, Look.whole_huge),
        "DOUBLE": (Look.whole, Look.whole_unsigned, Look.whole_huge, Look.fraction),
        "BOOLEAN": (Look.boolean,),
    }
    whole = fitting["BIGINT"]
    times = (*range(Look.date, Look.given_time + 1),)
    looks = fitting.get(wanted, whole if wanted.endswith("INT") else times)
    good = ", ".join(str(int(look)) for look in (Look.missing, *looks))
    call = csv_files.call((file,), dict.fromkeys(names, "VARCHAR"), {"ignore_errors": "true"})
    text = identifier(column)
    rows = connection.execute(
        f"select {text}, n from (select {text}, row_number() over () as n from {call}) "
        f"where {look_sql(text, csv_files.decimal, csv_files.time_format)} not in ({good}) order by n limit 1"
    ).fetchall()
    return rows[0] if rows else ("", 0)


def _count_lines(file: str, byte: int) -> int | None:
    """The number of the line at a byte of a local, plain file: DuckDB counts a value of several lines as one."""
    path = location(file)
    if not isinstance(path, Path) or path.suffix.lower() in (".gz", ".zst"):
        return None
    count, left = 1, byte
    with path.open("rb") as opened:
        while left > 0 and (piece := opened.read(min(left, _READ_AT_ONCE))):
            count += piece.count(b"\n")
            left -= len(piece)
    return count


def _is_fraction(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return value.strip().lower() != "nan"


def _plain(value: str) -> str:
    """A value as an element of a list on the command line."""
    return value if value.replace("/", "").replace("_", "").isalnum() else f'"{value}"'


def _shown(text: str) -> str:
    text = text.replace("\t", "\\t").replace("\n", "\\n")
    return text if len(text) <= _SHOWN else text[: _SHOWN - 2] + ".."
