"""Looks at the first rows of a source for what its column types do not tell.

::

    text             numbers, decimal commas, several ids in one text      text_shapes.py
    float            whole numbers in a column that is named like an id
    integer          a column that numbers the rows
    integer, float   a column that equals a label, or its opposite

One query over some tens of thousands of rows: what is wrong with a column is wrong in many of its rows. Texts that mean
a missing value, which may be rare, are counted over all rows (``deal/null_texts.py``), and fractions where ids are
wanted are looked for in the whole column.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import duckdb

from recd_dist.errors import DataError
from recd_dist.etl.raw import duckdb_sql as engine
from recd_dist.etl.source.column_sql import is_float, is_integer, is_text
from recd_dist.etl.source.described_queries import RawQuery
from recd_dist.etl.source.examine_sessions import examine_sessions
from recd_dist.etl.source.inspection import Inspection
from recd_dist.etl.source.source import Source
from recd_dist.etl.source.source_groups import FeatureSource
from recd_dist.etl.source.text_shapes import read_shapes, shapes_sql
from recd_dist.table.announcement import Announcement
from recd_dist.table.flat import identifier
from recd_dist.table.schema import SAMPLE, Feature, Kind

NUM_ROWS = 50_000
_LEAST_ROWS = 20  # in fewer rows, a column equals another one by chance
_LIKE_AN_ID = re.compile(r"(^|_)(id|ids|key|sku|code)$|[a-z](Id|ID|Key)$", re.IGNORECASE)
_NEEDS_ALL_ROWS = re.compile(r"\b(join|group\s+by|order\s+by|over|distinct)\b", re.IGNORECASE)
_EXACT = 2**53  # from here on a float skips integers


@dataclass(frozen=True)
class _Look:
    """One look at a column: aggregates, and what their values say.

    Attributes:
        aggregates: SQL aggregates over the first rows.
        judge: says what people may not expect, from the words for the rows and the value of each aggregate.
    """

    aggregates: tuple[str, ...]
    judge: Callable[..., Iterable[Announcement]]


def examine_rows(
    source: Source, inspection: Inspection, connection: duckdb.DuckDBPyConnection, cheap: bool = False
) -> tuple[Announcement, ...]:
    """Looks at the first rows of each query of a source.

    Args:
        source: describes the raw logs.
        inspection: the inspected source.
        connection: an open DuckDB, in whose reach the source's files are.
        cheap: whether to pass over queries whose first rows cannot be had without most of the others, since they join,
            group or order them: what Spark reads may be too much for one machine.

    Returns:
        What people may not expect.

    Raises:
        DataError: a query fails, or a feature that shall be ids holds fractions.
    """
    found: list[Announcement] = []
    for name, query in inspection.queries.items():
        if cheap and _NEEDS_ALL_ROWS.search(query.sql):
            continue
        own = name in inspection.groups
        groups = {name} if own else {*inspection.schema.groups} - {*inspection.groups}
        features = [f for f in inspection.schema.features if f.group in groups]
        where = f"query of group '{name}'" if own else "samples query"
        looks = [look for feature in features for look in _looks_at(source, feature, query.types[feature.name])]
        if name == SAMPLE:
            looks += [_look_for_copy(f, label) for f in _numbers(features, query) for label in source.labels]
        found += _examine(connection, query, looks, where)
        if name == SAMPLE:
            found += _find_row_numbers(connection, query, [f.name for f in _counted(source, features, query)], where)
            found += examine_sessions(source, query, NUM_ROWS, partial(_ask_all, connection, where=where))
        found += _check_float_ids(connection, query, features, where)
    return tuple(found)


def _looks_at(source: Source, feature: Feature, type_name: str) -> list[_Look]:
    """What to look at in a feature; nothing where its kind is named, since people know then what it holds."""
    if source.features.get(feature.name, FeatureSource()).kind is not None:
        return []
    name = feature.name
    if is_text(type_name):
        return [_Look(shapes_sql(name), lambda rows, *counts: read_shapes(*counts).announcements(name, rows))]
    if is_float(type_name) and _LIKE_AN_ID.search(name):
        column = identifier(name)
        finite = f"isfinite({column})"
        aggregates = (f"count(*) filter ({finite})", f"count(*) filter ({finite} and {column} = floor({column}))")

        def judge(rows: str, num: int, num_whole: int) -> Iterable[Announcement]:
            if num and num == num_whole:
                found = f"column '{name}' is {type_name} and becomes a dense number; {rows} hold whole numbers only"
                yield Announcement(found, num, f"data.features.{name}.kind=id makes ids of them, kind=dense numbers")

        return [_Look(aggregates, judge)]
    return []


def _numbers(features: Sequence[Feature], query: RawQuery) -> list[Feature]:
    types = query.types
    return [f for f in features if is_integer(types[f.name]) or is_float(types[f.name])]


def _counted(source: Source, features: Sequence[Feature], query: RawQuery) -> list[Feature]:
    """The features that may number the rows."""
    named = {name for name, options in source.features.items() if options.kind is not None}
    return [f for f in features if is_integer(query.types[f.name]) and f.name not in named]


def _look_for_copy(feature: Feature, label: str) -> _Look:
    """Looks whether a column equals a label, or one minus the label."""
    name, column, other = feature.name, f"{identifier(feature.name)}::double", f"{identifier(label)}::double"
    aggregates = (
        "count(*)",
        f"max({other}) > min({other})",
        f"count(*) filter ({column} is distinct from {other})",
        f"count(*) filter ({column} is distinct from 1 - {other})",
    )

    def judge(rows: str, num: int, differs: bool, num_other: int, num_equal: int) -> Iterable[Announcement]:
        if differs and num >= _LEAST_ROWS and 0 in (num_other, num_equal):
            what = "equals" if num_other == 0 else "is the opposite of"
            found = f"column '{name}' {what} the label '{label}' in {rows}, and a model need look at nothing else"
            yield Announcement(found, num, f"data.drop=[{name}] leaves it out")

    return _Look(aggregates, judge)


def _examine(
    connection: duckdb.DuckDBPyConnection, query: RawQuery, looks: Sequence[_Look], where: str
) -> Iterable[Announcement]:
    """Takes all looks in one query."""
    if not looks:
        return
    num_rows, *values = _ask(connection, query, ["count(*)", *(a for look in looks for a in look.aggregates)], where)
    for look in looks:
        mine, values = values[: len(look.aggregates)], values[len(look.aggregates) :]
        yield from look.judge(_words(num_rows), *mine)


def _find_row_numbers(
    connection: duckdb.DuckDBPyConnection, query: RawQuery, names: Sequence[str], where: str
) -> Iterable[Announcement]:
    """Columns that hold each number of a range once, as a counter of rows does; as ids they tell rows by heart."""
    if not names:
        return
    columns = [f"{identifier(name)}::hugeint" for name in names]
    spans = [f"max({column}) - min({column}) + 1 = count({column})" for column in columns]
    num_rows, *tight = _ask(connection, query, ["count(*)", *spans], where)
    candidates = [name for name, is_tight in zip(names, tight, strict=True) if is_tight]
    if num_rows < _LEAST_ROWS or not candidates:
        return
    distinct = _ask(connection, query, [f"count(distinct {identifier(name)})" for name in candidates], where)
    for name, num in zip(candidates, distinct, strict=True):
        if num == num_rows:
            yield Announcement(
                f"column '{name}' numbers the rows: in {_words(num_rows)}, each has the number after another one's",
                num_rows,
                f"data.drop=[{name}] leaves it out, data.features.{name}.kind=id says that it is an id",
            )


def _check_float_ids(
    connection: duckdb.DuckDBPyConnection, query: RawQuery, features: Sequence[Feature], where: str
) -> Iterable[Announcement]:
    """Looks through the floats that shall be ids.

    Raises:
        DataError: one of them is no whole number.
    """
    for name in (f.name for f in features if f.kind is not Kind.dense and is_float(query.types[f.name])):
        column = identifier(name)
        fraction = f"isfinite({column}) and {column} != floor({column})"
        counts = [f"count(*) filter ({fraction})", f"min({column}) filter ({fraction})", "count(*)"]
        counts += [f"count(*) filter (isfinite({column}) and abs({column}) >= {_EXACT})"]
        counts += [f"count(*) filter (not isfinite({column}))"]  # DuckDB 2.0 may take isnan() for false unseen
        num, example, num_rows, num_wide, num_nan = _ask(connection, query, counts, where, all_rows=True)
        if num:
            raise DataError(
                f"{where}: column '{name}' shall be ids, but {num:,} of {num_rows:,} values are no whole numbers, such "
                f"as {example}; data.features.{name}.kind=dense takes numbers, floor({name}) in the SQL cuts them"
            )
        if num_wide:
            found = f"column '{name}': {num_wide:,} of {num_rows:,} ids are 2^53 or more, where floats skip numbers"
            yield Announcement(found, num_wide, "have them written as integers or texts upstream")
        if num_nan:
            found = f"column '{name}': {num_nan:,} of {num_rows:,} ids are NaN or infinite and count as missing"
            yield Announcement(found, num_nan, "", suspicious=False)


def _words(num_rows: int) -> str:
    return f"the first {num_rows:,} rows" if num_rows == NUM_ROWS else f"{num_rows:,} rows"


def _ask(
    connection: duckdb.DuckDBPyConnection, query: RawQuery, columns: Sequence[str], where: str, all_rows: bool = False
) -> list[Any]:
    """The values of aggregates over the first rows of a query, or over all of them."""
    limit = "" if all_rows else f" limit {NUM_ROWS}"
    return _ask_all(connection, columns, f"select * from ({query.sql}\n){limit}", where)


def _ask_all(connection: duckdb.DuckDBPyConnection, columns: Sequence[str], sql: str, where: str) -> list[Any]:
    """The values of aggregates over a query."""
    try:
        return list(connection.execute(f"select {', '.join(columns)} from ({sql})").fetchall()[0])
    except duckdb.Error as error:
        raise DataError(f"{where}: {engine.short_message(error)}") from error
