"""What is wrong with the user's own SQL, at its line and column as the user wrote it.

::

    data.samples          select usr_id from read_parquet('{path}')
    what DuckDB is given  describe select usr_id from read_parquet(['/logs/a.parquet', ...], ...)
    what the user reads   data.samples, line 1, column 8: no column 'usr_id'; did you mean 'user_id'?
                              select usr_id from read_parquet('{path}')

DuckDB counts bytes in the query that it is given. Each change that was made to the user's text on the way is kept as a
:class:`WrittenSql`, and undone to tell the place.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

import duckdb

from recd_dist.errors import DataError
from recd_dist.etl.raw.duckdb_sql import describe_columns
from recd_dist.etl.raw.reader_calls import replace_calls

_NEAR = re.compile(r"\s*(?:candidate[^:]*:|did you mean)[\s:]*(.*)", re.IGNORECASE)
_QUOTED = re.compile(r"""["']([^"']+)["']""")
_MOST_NEAR = 5
_MOST_LETTERS = 300
_PATH = "{path}"
_Edit = tuple[tuple[int, int], int]  # the first and the last byte of what was replaced, and the bytes that it has now


@dataclass(frozen=True)
class WrittenSql:
    """SQL as somebody wrote it, and what was replaced in it since.

    Attributes:
        text: the SQL as it was written.
        sql: what became of it.
        edits: for each round of replacements, the spans that were replaced, in bytes of the text before that round, and
            the number of bytes that stand there now.
    """

    text: str
    sql: str
    edits: tuple[tuple[_Edit, ...], ...] = ()

    @staticmethod
    def of(text: str) -> "WrittenSql":
        """SQL in which nothing is replaced yet."""
        return WrittenSql(text, text)

    def replace(self, replaced: dict[tuple[int, int], str]) -> "WrittenSql":
        """Puts other SQL in the place of spans of ``sql``, which are given in bytes."""
        edits = tuple((span, len(new.encode())) for span, new in sorted(replaced.items()))
        return WrittenSql(self.text, replace_calls(self.sql, replaced), (*self.edits, edits))

    def fill_path(self, path: str) -> "WrittenSql":
        """Puts a path in the place of ``{path}``, and takes off spaces around the query and a closing semicolon."""
        spans, start = dict[tuple[int, int], str](), 0
        raw = self.sql.encode()
        kept = self.sql.strip().rstrip(";")
        begin = len(self.sql.encode()) - len(self.sql.lstrip().encode())
        if begin:
            spans[0, begin] = ""
        while (start := raw.find(_PATH.encode(), start)) >= 0:
            spans[start, start + len(_PATH)] = path.replace("'", "''")
            start += len(_PATH)
        if begin + len(kept.encode()) < len(raw):
            spans[begin + len(kept.encode()), len(raw)] = ""
        return self.replace(spans)

    def place(self, position: int) -> tuple[int, int]:
        """The line and the column, both from 1, in the text that was written.

        Args:
            position: a byte of ``sql``.
        """
        for edits in reversed(self.edits):
            position = _undo(position, edits)
        before = self.text.encode()[: max(position, 0)].decode(errors="ignore")
        return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1


def describe_written(connection: duckdb.DuckDBPyConnection, written: WrittenSql, option: str) -> dict[str, str]:
    """The DuckDB type of each column of a query, by name.

    Args:
        connection: an open DuckDB.
        written: the query.
        option: the option in which it was written, or what it is where nobody wrote it.

    Raises:
        DataError: the query is wrong, which is told at its line and column; a file cannot be read; or two columns have
            one name in SQL, where DuckDB would rename the second one without a word.
    """
    try:
        columns = describe_columns(connection, written.sql, option)
    except DataError as error:
        told = explain_sql_error(connection, written, option) if written.text else None
        raise DataError(told or str(error)) from error
    if doubles := [
        f"column '{first}' stands twice; name the columns, or leave one out, such as b.* exclude ({first})"
        if first == second
        else f"columns '{first}' and '{second}' differ in case alone and are one name in SQL; rename one"
        for first, second in double_names([name for name, _ in columns])
    ]:
        raise DataError(f"{option}: " + "\n  ".join(doubles))
    return dict(columns)


def double_names(names: Iterable[str]) -> list[tuple[str, str]]:
    """The pairs of names that SQL takes for one: they are equal, or differ in upper and lower case alone."""
    known, pairs = dict[str, str](), list[tuple[str, str]]()
    for name in names:
        if name.lower() in known:
            pairs.append((known[name.lower()], name))
        known.setdefault(name.lower(), name)
    return pairs


def explain_sql_error(
    connection: duckdb.DuckDBPyConnection, written: WrittenSql, option: str, before: str = "", after: str = ""
) -> str | None:
    """Says what is wrong with SQL that DuckDB refuses to describe, where and which names are near.

    Args:
        connection: an open DuckDB.
        written: the SQL.
        option: the option in which it was written, such as ``data.samples``.
        before: what stands before the SQL in the query that is described; empty where it is the whole query.
        after: what stands behind it.

    Returns:
        Two lines: what is wrong, and the line of the text; one where DuckDB knows no place. None where DuckDB accepts
        the query, or refuses it for another reason than its text.
    """
    connection.execute("set errors_as_json = true")
    begin = f"describe {before}"
    try:
        connection.execute(f"{begin}{written.sql}{after}")
    except (duckdb.ParserException, duckdb.BinderException, duckdb.CatalogException) as error:
        told = json.loads(str(error).split(":", maxsplit=1)[1])
    except duckdb.Error:
        return None
    else:
        return None
    finally:
        connection.execute("set errors_as_json = false")
    message = _message(told)
    position = _position(told, written, len(begin.encode()))
    if position is None:
        return f"{option}: {message}"
    line, column = written.place(position)
    shown = (written.text.splitlines() or [""])[min(line, len(written.text.splitlines()) or 1) - 1].strip()
    return f"{option}, line {line}, column {column}: {message}\n    {shown[:_MOST_LETTERS]}"


def _undo(position: int, edits: tuple[_Edit, ...]) -> int:
    """The byte before a round of replacements; inside of what was replaced, its first one."""
    for (start, end), now in edits:
        if position < start:
            break
        if position < start + now:
            return start
        position += end - start - now  # counted as in the text before, up to the next edit
    return position


def _message(told: dict[str, str]) -> str:
    lines = [line.strip() for line in told["exception_message"].splitlines() if line.strip()]
    near = [name for line in lines if (match := _NEAR.match(line)) for name in _QUOTED.findall(match[1])]
    first, *rest = [line for line in lines if not _NEAR.match(line)]
    if told.get("error_subtype") == "COLUMN_NOT_FOUND":
        first, rest = f"no column '{told['name']}'", []
    text = "; ".join([first.rstrip("!. "), *rest])[:_MOST_LETTERS]
    names = " or ".join(f"'{name}'" for name in near[:_MOST_NEAR])
    return f"{text}; did you mean {names}?" if names else text


def _position(told: dict[str, str], written: WrittenSql, begin: int) -> int | None:
    """The byte of the SQL; by the name that the message quotes, where DuckDB tells no place."""
    if "position" in told:
        return min(max(int(told["position"]) - begin, 0), len(written.sql.encode()))
    name = _QUOTED.search(told["exception_message"])
    found = list(re.finditer(rf"\b{re.escape(name[1])}\b", written.sql)) if name else []
    return len(written.sql[: found[0].start()].encode()) if len(found) == 1 else None
