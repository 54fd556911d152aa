"""JSON lines: the types of all rows of all files, where DuckDB looks at the first 20,480 rows alone."""

import re
from collections.abc import Collection, Sequence

import duckdb

from recd_dist.errors import DataError
from recd_dist.etl.raw.common_types import NOTHING, wider_type
from recd_dist.etl.raw.duckdb_sql import short_message
from recd_dist.etl.raw.folder_columns import folder_option
from recd_dist.etl.raw.found_files import FoundFile, list_literal
from recd_dist.etl.raw.read_options import ReadOptions
from recd_dist.etl.raw.value_classes import Found, Look, Misfit, count_looks_sql, look_sql, slash_conversion, type_of
from recd_dist.table.announcement import Announcement
from recd_dist.table.flat import identifier, string_literal

_FILE = "__file"
_TEXTS = ("VARCHAR", "JSON", "DATE", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE", "TIME", "UUID")
"""Types of columns that hold texts, or texts beside numbers."""
_NUMBERED = re.compile(r"_\d+$")
"""What DuckDB puts behind a name that is there already."""
_TIMES = ("DATE", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE")
_STATED = (
    "columns",
    "auto_detect",
    "sample_size",
    "maximum_sample_files",
    "union_by_name",
    "records",
    "map_inference_threshold",
)


def pin_json(
    connection: duckdb.DuckDBPyConnection,
    files: tuple[FoundFile, ...],
    call_options: dict[str, str],
    options: ReadOptions,
    notices: list[Announcement],
) -> str:
    """Looks at every row of JSON files, and says how to read them.

    Args:
        connection: an open DuckDB that reaches the files.
        files: the files that are read as one table.
        call_options: SQL of each option of the query's call. Columns that it states stay as they are.
        options: what the data config says.
        notices: gets what was decided.

    Returns:
        SQL of a table that stands in the place of the call.

    Raises:
        DataError: the types of two files do not go together, or values of a column do not.
    """
    kept = {name: text for name, text in call_options.items() if name not in _STATED}
    if "columns" in call_options:
        return _call(files, call_options)
    types = _types_of_files(connection, files, kept)
    texts = [name for name, kind in types.items() if kind in _TEXTS]
    shown = types | dict.fromkeys(texts, "VARCHAR")
    found = _read_texts(connection, files, shown, {name: types[name] for name in texts}, kept, options)
    types |= {name: "VARCHAR" if f.type_name == NOTHING else f.type_name for name, f in found.items()}
    folders = folder_option(files, types, notices) if "hive_partitioning" not in call_options else None
    more = {"hive_partitioning": folders} if folders else {}
    nulls = ", ".join(map(string_literal, options.null_values))
    replaced = []
    for name, f in found.items():
        text = identifier(name)
        text = f"(case when {text} not in ({nulls}) then {text} end)" if nulls else text
        value = slash_conversion(text, f) if f.formats else f"{text}::{types[name]}"
        if f.formats or nulls or types[name] != "VARCHAR":
            replaced.append(f"{value} as {identifier(name)}")
        if f.order:
            read = f"column '{name}': dates are read {f.order} first, as only so every one of them is a date"
            notices.append(Announcement(read, 1, "", suspicious=False))
    call = _call(files, kept | more | {"columns": _columns(shown)})
    return f"(select * replace ({', '.join(replaced)}) from {call})" if replaced else call


def _types_of_files(
    connection: duckdb.DuckDBPyConnection, files: Sequence[FoundFile], kept: dict[str, str]
) -> dict[str, str]:
    """The type of each column over all files; a key that a file lacks is missing in its rows.

    Raises:
        DataError: the types of two files do not go together.
    """
    types, found_in = dict[str, str](), dict[str, str]()
    for file in files:
        call = _call((file,), kept | {"sample_size": "-1", "hive_partitioning": "false"})
        try:
            rows = connection.execute(f"describe select * from {call}").fetchall()
        except duckdb.Error as error:
            raise DataError(f"{file.name}: {_short(error)}") from error
        if _is_empty(connection, call, rows):
            continue
        for name, kind, *_ in rows:
            known, now = types.get(name, NOTHING), _plain(kind)
            wide = "VARCHAR" if known in _TEXTS and now in _TEXTS and known != now else wider_type(known, now)
            if wide is None:
                raise DataError(
                    f"{file.name}: column '{name}' is {now}, in {found_in[name]} it is {known}: the logs' columns have "
                    "changed. Give `data.samples`, a query that brings both to one form"
                )
            if wide != known:
                found_in[name] = file.name
            types[name] = wide
    if not types:
        raise DataError(f"{files[0].name}: the file is empty")
    _refuse_twins(connection, files, types)
    return {name: {NOTHING: "VARCHAR", f"{NOTHING}[]": "BIGINT[]"}.get(kind, kind) for name, kind in types.items()}


def _is_empty(connection: duckdb.DuckDBPyConnection, call: str, columns: Sequence[Sequence[object]]) -> bool:
    """Whether a file holds no row: DuckDB gives it a column ``json``, which the other files would get too."""
    alone = [tuple(column[:2]) for column in columns] == [("json", "JSON")]
    return alone and not connection.execute(f"select 1 from {call} limit 1").fetchall()


def _refuse_twins(connection: duckdb.DuckDBPyConnection, files: Sequence[FoundFile], types: Collection[str]) -> None:
    """Refuses keys that differ in case alone: DuckDB renames one of them, and then finds no value of it.

    Raises:
        DataError: there are such keys.
    """
    bases = {name.lower() for name in types}
    numbered = any(_NUMBERED.sub("", name) in bases - {name} for name in bases)
    if len(bases) == len(types) and not numbered:
        return
    query = f"select distinct unnest(json_keys(json)) as key from read_json_objects({list_literal(tuple(files))})"
    grouped = f"select list(key order by key) from ({query}) group by lower(key) having count(*) > 1 limit 1"
    for (twins,) in connection.execute(grouped).fetchall():
        raise DataError(
            f"{files[0].name}: keys that differ in upper and lower case alone ({', '.join(twins)}) would be "
            "one column; give them one name in the files"
        )


def _plain(kind: str) -> str:
    """DuckDB's type of what it saw; what was never filled tells nothing."""
    return {"JSON[]": f"{NOTHING}[]"}.get(kind, kind)


def _read_texts(
    connection: duckdb.DuckDBPyConnection,
    files: tuple[FoundFile, ...],
    shown: dict[str, str],
    texts: dict[str, str],
    kept: dict[str, str],
    options: ReadOptions,
) -> dict[str, Found]:
    """What the texts of columns are: texts, times, or numbers beside what means a missing value.

    Args:
        connection: an open DuckDB that reaches the files.
        files: the files.
        shown: the type of each column for this look; that of texts is VARCHAR.
        texts: the type that DuckDB found for each column of texts.
        kept: SQL of the other options of the call.
        options: what the data config says.
    """
    if not texts:
        return {}
    call = _call(files, kept | {"columns": _columns(shown), "filename": string_literal(_FILE)})
    nulls = ", ".join(map(string_literal, options.null_values))
    values = {n: f"(case when {t} not in ({nulls}) then {t} end)" if nulls else t for n, t in _identifiers(texts)}
    query = count_looks_sql(values.values(), call, _FILE, ".", options.timestamp_format)
    counts: dict[str, dict[Look, int]] = {name: {} for name in texts}
    try:
        for _, place, look, count in connection.execute(query).fetchall():
            of_column = counts[list(texts)[place]]
            of_column[Look(look)] = of_column.get(Look(look), 0) + count
    except duckdb.Error as error:
        raise DataError(f"{files[0].name}: {_short(error)}") from error
    declared = dict(options.types)
    found = {}
    for name, kind in texts.items():
        counted = counts[name]
        if name in declared:
            found[name] = Found(declared[name])
            continue
        if kind == "VARCHAR" and not any(
            Look.date <= look <= Look.given_time for look, count in counted.items() if count
        ):
            found[name] = Found("VARCHAR")  # digits between quotes are text: whoever wrote the file says so
            continue
        try:
            type_found = type_of(name, counted, options.timestamp_format)
        except Misfit as misfit:
            raise DataError(_explain(connection, files, kept, shown, name, misfit, options)) from misfit
        as_it_is = kind not in _TIMES and type_found.type_name == "VARCHAR"
        found[name] = Found(kind) if as_it_is else type_found
    return found


def _explain(
    connection: duckdb.DuckDBPyConnection,
    files: tuple[FoundFile, ...],
    kept: dict[str, str],
    shown: dict[str, str],
    name: str,
    misfit: Misfit,
    options: ReadOptions,
) -> str:
    """The error of a column whose values do not fit together, with the first value that does not and its line."""
    if not misfit.wanted:
        return f"{files[0].name}: {misfit.what}; {misfit.cure}"
    text, look = identifier(name), look_sql(identifier(name), ".", options.timestamp_format)
    good = (
        (0, 1, 2, 3, 4)
        if misfit.wanted in ("BIGINT", "UBIGINT", "HUGEINT", "DOUBLE")
        else (0, 5, 6, 7, 8, 9, 10, 11, 12)
    )
    for file in files:
        call = _call((file,), kept | {"columns": _columns(shown)})
        query = f"select {text}, row_number() over () as n from {call}"
        rows = connection.execute(f"from ({query}) where {look} not in {good} order by n limit 1").fetchall()
        if rows:
            return (
                f"{file.name}, line {rows[0][1]}, column '{name}': '{rows[0][0]}' is no {misfit.wanted} "
                f"({misfit.what}); 'data.null_values=[{rows[0][0]}]' if it means a missing value, or "
                f"data.csv.types.{name}=VARCHAR if the column is text"
            )
    return f"{files[0].name}: {misfit.what}"


def _short(error: duckdb.Error) -> str:
    """DuckDB's message without the query, which the user has not written."""
    return short_message(error).split("; at LINE ", maxsplit=1)[0]


def _identifiers(texts: dict[str, str]) -> list[tuple[str, str]]:
    return [(name, identifier(name)) for name in texts]


def _columns(types: dict[str, str]) -> str:
    return "{" + ", ".join(f"{string_literal(name)}: {string_literal(kind)}" for name, kind in types.items()) + "}"


def _call(files: tuple[FoundFile, ...], options: dict[str, str]) -> str:
    text = "".join(f", {name} = {value}" for name, value in options.items())
    return f"read_json({list_literal(files)}{text})"
