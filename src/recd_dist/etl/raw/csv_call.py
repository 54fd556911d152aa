"""CSV files: every row is looked at once before they are read, so that types and errors do not hang on the first rows.

::

    read_csv('logs/*.csv')  -->  read_csv(['logs/a.csv', 'logs/b.csv'], columns = {'item': 'BIGINT', ..}, ..)
"""

from dataclasses import replace

import duckdb

from recd_dist.errors import DataError
from recd_dist.etl.raw.common_types import NOTHING, common_types
from recd_dist.etl.raw.csv_dialect import find_twins, user_options
from recd_dist.etl.raw.csv_errors import explain_reject, find_misfit
from recd_dist.etl.raw.csv_files import CsvFiles, describe_csv
from recd_dist.etl.raw.duckdb_sql import short_message
from recd_dist.etl.raw.folder_columns import folder_option
from recd_dist.etl.raw.found_files import FoundFile
from recd_dist.etl.raw.read_options import ReadOptions
from recd_dist.etl.raw.value_classes import (
    FEW,
    WHOLE,
    Counts,
    Found,
    Look,
    Misfit,
    count_looks_sql,
    slash_conversion,
    type_of,
)
from recd_dist.table.announcement import Announcement
from recd_dist.table.flat import identifier, string_literal

_FILE = "__file"
_READ_AS_SUCH = ("BIGINT", "UBIGINT", "HUGEINT", "DOUBLE", "VARCHAR")
"""Types that DuckDB's reader may read; others are converted.

The reader replaces the type of a column by that of a cast in the query around it: 'true' as FLOAT would fail, and the
date of a time with a zone would not be that of UTC.
"""


def pin_csv(
    connection: duckdb.DuckDBPyConnection,
    files: tuple[FoundFile, ...],
    call_options: dict[str, str],
    options: ReadOptions,
    notices: list[Announcement],
) -> str:
    """Looks at every row of CSV files, and says how to read them.

    Args:
        connection: an open DuckDB that reaches the files.
        files: the files that are read as one table.
        call_options: SQL of each option of the query's call.
        options: what the data config says.
        notices: gets what was decided.

    Returns:
        SQL of a table that stands in the place of the call.

    Raises:
        DataError: a line, a value or a column does not fit; the message names file, line, column, value and cure.
    """
    csv_files = describe_csv(connection, files, user_options(call_options, options), options)
    looks = [look for group in csv_files.by_dialect() for look in _survey(connection, csv_files, group).items()]
    per_file = []
    for name, counts in _settle_orders(looks):
        found = {column: _type_in_file(connection, csv_files, name, column, c) for column, c in counts.items()}
        per_file.append((name, found))
    csv_files.found = _unite(per_file, csv_files)
    _announce_skipped(csv_files, notices)
    _announce_twins(csv_files, notices)
    _announce(csv_files, looks, notices)
    folders = folder_option(files, csv_files.names, notices) if "hive_partitioning" not in call_options else None
    more = {"hive_partitioning": folders} if folders else {}
    tables = [_pinned_table(csv_files, group, more) for group in csv_files.by_dialect()]
    if len(tables) == 1:
        return tables[0]
    return f"({' union all by name '.join(f'select * from {table}' for table in tables)})"


def _pinned_table(csv_files: CsvFiles, files: tuple[FoundFile, ...], more: dict[str, str]) -> str:
    """SQL of the rows of files of one dialect."""
    names = csv_files.dialects[files[0].name].names
    found = {name: csv_files.found[name] for name in names}
    types = {n: f.type_name if f.type_name in _READ_AS_SUCH and not f.formats else "VARCHAR" for n, f in found.items()}
    call = csv_files.call(files, types, more)
    converted = [
        f"{slash_conversion(identifier(n), f) if f.formats else f'{identifier(n)}::{f.type_name}'} as {identifier(n)}"
        for n, f in found.items()
        if types[n] != f.type_name and f.type_name != NOTHING
    ]
    star = f"* exclude ({identifier(names[-1])})" if _ends_in_nothing(csv_files, names) else "*"
    star += f" replace ({', '.join(converted)})" if converted else ""
    return call if star == "*" else f"(select {star} from {call})"


def _ends_in_nothing(csv_files: CsvFiles, names: tuple[str, ...]) -> bool:
    """Whether the last column has neither a name nor a value: every line ends in a delimiter."""
    unnamed = len(names) > 1 and names[-1] == f"column{len(names) - 1}"
    return unnamed and csv_files.found[names[-1]].type_name == NOTHING


def _survey(
    connection: duckdb.DuckDBPyConnection, csv_files: CsvFiles, files: tuple[FoundFile, ...]
) -> dict[str, dict[str, Counts]]:
    """Looks at every value of files of one dialect.

    Returns:
        For each file, how many values of each column look like what.

    Raises:
        DataError: a line that is no row of this table.
    """
    names = csv_files.dialects[files[0].name].names
    strict = csv_files.options.get("ignore_errors", "false").lower() != "true"
    rejects = {"store_rejects": "true", "rejects_table": "'faults'", "rejects_limit": "1"} if strict else {}
    more = {"filename": string_literal(_FILE), **rejects}
    call = csv_files.call(files, dict.fromkeys(names, "VARCHAR"), more)
    connection.execute("drop table if exists faults; drop table if exists reject_scans")
    try:
        query = count_looks_sql(map(identifier, names), call, _FILE, csv_files.decimal, csv_files.time_format)
        rows = connection.execute(query).fetchall()
        faults = _first_faults(connection) if strict else []
    except duckdb.Error as error:
        raise DataError(f"{files[0].name}: {short_message(error)}") from error
    if faults:
        raise DataError(explain_reject(*faults[0], expected=len(names)))
    counted = {file.name: {name: dict[Look, int]() for name in names} for file in files}
    for file, place, look, count in rows:
        counted[file][names[place]][Look(look)] = count
    return {file: dict(columns) for file, columns in counted.items()}


def _settle_orders(looks: list[tuple[str, dict[str, Counts]]]) -> list[tuple[str, dict[str, Counts]]]:
    """Lets dates of one file say whether day or month comes first in a file whose dates do not tell it."""
    settled = []
    for file, columns in looks:
        counts = dict[str, Counts]()
        for name, own in columns.items():
            everywhere = [other[name] for _, other in looks if name in other]
            told = [look for look in (Look.day_first, Look.month_first) if any(c.get(look) for c in everywhere)]
            unsure = own.get(Look.day_or_month_first, 0)
            counts[name] = own
            if unsure and len(told) == 1:
                counts[name] = {**own, Look.day_or_month_first: 0, told[0]: own.get(told[0], 0) + unsure}
        settled.append((file, counts))
    return settled


def _first_faults(connection: duckdb.DuckDBPyConnection) -> list[tuple[str, int, int, str, str, str]]:
    return connection.execute(
        "select distinct file_path, line, line_byte_position, error_type, csv_line, coalesce(column_name, '') "
        "from faults join reject_scans using (scan_id, file_id) order by file_path, line limit 1"
    ).fetchall()


def _type_in_file(
    connection: duckdb.DuckDBPyConnection, csv_files: CsvFiles, file: str, column: str, counts: Counts
) -> Found:
    """The type of a column in one file.

    Raises:
        DataError: a value does not fit the others, or the type that the user states.
    """
    declared = csv_files.declared.get(column)
    try:
        found = type_of(column, counts, csv_files.time_format) if declared != "VARCHAR" else Found("VARCHAR")
        if declared is None or found.type_name == NOTHING:
            return found if declared is None else Found(declared)
        _check_declared(column, declared, found, counts)
    except Misfit as misfit:
        raise DataError(find_misfit(connection, csv_files, file, column, misfit)) from misfit
    return replace(found, type_name=declared)


def _check_declared(column: str, declared: str, found: Found, counts: Counts) -> None:
    """Checks that a column holds what the user says: DuckDB would round 2.5 to a whole number without a word."""
    total = sum(count for look, count in counts.items() if look is not Look.missing)
    integer = declared.endswith("INT") or declared.endswith("INTEGER")
    if integer and found.type_name not in ("BIGINT", "UBIGINT", "HUGEINT", "BOOLEAN"):
        whole = sum(counts.get(look, 0) for look in WHOLE)
        raise Misfit(f"{total - whole:,} of {total:,} values of column '{column}' are no {declared}", "BIGINT", "")


def _unite(per_file: list[tuple[str, dict[str, Found]]], csv_files: CsvFiles) -> dict[str, Found]:
    """One type for each column over all files.

    Raises:
        DataError: the types of two files do not go together, or times are written day first here and month first there.
    """
    if csv_files.options.get("union_by_name"):
        names = dict.fromkeys(name for _, found in per_file for name in found)
        per_file = [(file, {n: found.get(n, Found(NOTHING)) for n in names}) for file, found in per_file]
    types = common_types([(file, {n: f.type_name for n, f in found.items()}) for file, found in per_file], "read_csv")
    united = {}
    for name, type_name in types.items():
        formats = {found[name].formats: (file, found[name]) for file, found in per_file if found[name].formats}
        others = any(not f[name].formats and f[name].type_name != NOTHING for _, f in per_file)
        if len(formats) > 1 or (formats and others):
            written = ", ".join(f"{file}: {found.order or 'as given'} first" for file, found in formats.values())
            raise DataError(f"column '{name}': times are written in several ways ({written}); bring them to one form")
        known = next(iter(formats.values()))[1] if formats else Found(type_name)
        united[name] = replace(known, type_name=type_name)
    return united


def _announce_skipped(csv_files: CsvFiles, notices: list[Announcement]) -> None:
    """Says which first lines are taken for no data."""
    for file, dialect in csv_files.dialects.items():
        if dialect.skip and "skip" not in csv_files.options:
            found = f"{file}: the first {dialect.skip} lines are passed over, as the columns begin after them"
            cure = "data.samples=\"select * from read_csv('{path}', skip = 0)\" reads them too"
            notices.append(Announcement(found, dialect.skip, cure))


def _announce_twins(csv_files: CsvFiles, notices: list[Announcement]) -> None:
    """Says which columns got another name, since theirs stands in the first line twice."""
    if {"names", "columns"} & csv_files.options.keys():
        return
    for name in find_twins(csv_files.files[0], csv_files.dialects[csv_files.files[0].name]):
        got = [n for n in csv_files.names if n.lower() == name or n.lower().rpartition("_")[0] == name]
        found = f"{csv_files.files[0].name}: several columns are called '{name}', so they are read as {', '.join(got)}"
        notices.append(Announcement(found, len(got), "data.csv.names=[..] gives every column its name"))


def _announce(csv_files: CsvFiles, looks: list[tuple[str, dict[str, Counts]]], notices: list[Announcement]) -> None:
    """Says how dates are read, and which columns hold fractions though nearly all their numbers are whole."""
    for name, found in csv_files.found.items():
        if found.order:
            example = "%d/%m/%Y %H:%M:%S" if found.order == "day" else "%m/%d/%Y %H:%M:%S"
            read = f"column '{name}': dates are read {found.order} first, as only so every one of them is a date"
            cure = f"data.csv.timestamp_format='{example}' says it for good"
            notices.append(Announcement(read, 1, cure, suspicious=False))
        counts = [columns[name] for _, columns in looks if name in columns]
        fractions = sum(c.get(Look.fraction, 0) for c in counts)
        numbers = sum(c.get(look, 0) for c in counts for look in (*WHOLE, Look.fraction))
        if found.type_name == "DOUBLE" and name not in csv_files.declared and fractions <= FEW * numbers:
            few = f"column '{name}': {fractions:,} of {numbers:,} numbers have a fraction, so it is a number and no id"
            notices.append(Announcement(few, fractions, f"data.csv.types.{name}=DOUBLE says that it is meant"))
