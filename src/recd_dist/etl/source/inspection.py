"""From the columns of a source's queries to a schema, and to normalised queries.

::

    samples query       visit varchar | at timestamp  | clicked boolean | history integer[] | item uinteger
    normalised query    __session     | __timestamp   | clicked         | history           | item
      with its types    bigint (hash) | bigint (us)   | float           | integer[]         | bigint
    schema              (key)         | (key)         | label           | feature: ids      | feature: id

No row is read here: DuckDB only describes the queries. ``column_sql.py`` says what becomes of each type.
"""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import duckdb

from recd_dist.errors import DataError, nearest
from recd_dist.etl.raw import duckdb_sql as engine
from recd_dist.etl.source.column_sql import (
    Unfit,
    duration_remedy,
    feature_sql,
    has_nanoseconds,
    is_integer,
    is_list,
    is_text,
    is_time,
    key_sql,
    label_sql,
    link_sql,
    nanoseconds_sql,
    session_sql,
    time_sql,
    weights_sql,
)
from recd_dist.etl.source.described_queries import RawQuery, check_split, describe_groups, describe_samples, saved_index
from recd_dist.etl.source.shared_tables import mixed_tables
from recd_dist.etl.source.source import Source
from recd_dist.etl.source.source_groups import FeatureSource, misfit_of_window
from recd_dist.etl.source.source_queries import joins_without_order
from recd_dist.table.announcement import Announcement
from recd_dist.table.flat import identifier
from recd_dist.table.module_names import is_taken, table_name
from recd_dist.table.schema import SAMPLE, Feature, Kind, Schema

SESSION, REQUEST, TIMESTAMP, TEST = "__session", "__request", "__timestamp", "__test"
SAMPLE_KEY, ORDER_KEY = "__sample", "__sample_order"
"""Columns of the normalised samples query, beside labels, links and features; absent where the source has none."""
ROW_KEY = "__key"
"""The key column of a normalised group query."""
_INDEX = re.compile(r"__index_level_\d+__$")


def link_column(group: str) -> str:
    """The column of the normalised samples query by which a sample finds its row of a group with its own query."""
    return f"__link_{group}"


@dataclass(frozen=True)
class Inspection:
    """What a source will become, as far as its columns tell.

    Attributes:
        schema: features, groups and labels. Only the rows can tell whether an id is missing in some samples and
            becomes a list of ids, and which automatic groups there are.
        samples: the normalised query of the samples.
        groups: the normalised query of each group that has its own query.
        automatic: whether the groups are still to be chosen by measuring.
        timed: whether the timestamp is a time, and not just an integer.
        texts: for each column of the normalised samples query that is a text upstream its name there.
        queries: the query of each group that has its own, and that of the samples under ``sample``.
        announcements: what was found in names and types of columns that people may not expect.
        select: the columns of the normalised query of the samples, each as ``expression as "name"``.
    """

    schema: Schema
    samples: str
    groups: dict[str, str]
    automatic: bool
    timed: bool = False
    announcements: tuple[Announcement, ...] = ()
    texts: Mapping[str, str] = field(default_factory=dict)
    queries: Mapping[str, RawQuery] = field(default_factory=dict)
    select: tuple[str, ...] = ()


def inspect(source: Source, connection: duckdb.DuckDBPyConnection | None = None) -> Inspection:
    """Looks at a source's columns, which takes milliseconds for Parquet.

    Args:
        source: describes the raw logs.
        connection: an open DuckDB, in whose reach stores come. None opens one for this call.

    Raises:
        DataError: paths, queries or columns that do not fit; the message lists every mistake.
    """
    if connection is None:
        with engine.connect() as opened:
            return inspect(source, opened)
    inspection = inspect_columns(source, describe_samples(source, connection), describe_groups(source, connection))
    check_split(source, connection, inspection.queries[SAMPLE].sql)
    groups = ((f"group '{group}'", query) for group, query in inspection.groups.items())
    for name, query in (("samples", inspection.samples), *groups):
        engine.describe_query(connection, query, f"data source '{source.name}', {name}")
    return inspection


def inspect_columns(source: Source, raw: RawQuery, raw_groups: Mapping[str, RawQuery]) -> Inspection:
    """Looks at columns whose types are known, as :func:`inspect` does; asks no engine.

    Args:
        source: names the columns.
        raw: the query of the samples.
        raw_groups: the query of each group that has its own.
    """
    columns = raw.types
    group_columns = {name: group.types for name, group in raw_groups.items()}
    resolver = _Resolver(source, columns, group_columns)
    for described in (raw, *raw_groups.values()):
        resolver.durations |= described.durations
    features, select = resolver.resolve_samples()
    groups = {}
    for name, raw_group in raw_groups.items():
        group_features, group_select = resolver.resolve_group(name)
        features += group_features
        groups[name] = f"select {', '.join(group_select)} from ({raw_group.sql}\n)"
    types = {(group, name): kind for group, given in group_columns.items() for name, kind in given.items()}
    types |= {(f.group, f.name): columns[f.name] for f in features if f.group not in group_columns}
    resolver.mistakes += mixed_tables(features, types)
    if "timestamp" not in source.keys and joins_without_order(source.samples or ""):
        resolver.mistakes.append(
            "samples: rows of a join come in any order; name keys.timestamp, or end with `order by`"
        )
    if resolver.mistakes:
        raise DataError(f"data source '{source.name}': " + "\n  ".join(dict.fromkeys(resolver.mistakes)))
    order = {name: i for i, name in enumerate((*(source.groups or {}), SAMPLE))}
    features.sort(key=lambda feature: order[feature.group])
    return Inspection(
        schema=Schema(tuple(features), source.labels),
        samples=f"select {', '.join(select)} from ({raw.sql}\n)",  # a query may end in a comment
        groups=groups,
        automatic=source.groups is None,
        timed=is_time(columns.get(source.keys.get("timestamp", ""), "")),
        announcements=tuple(resolver.found),
        texts=_hashed_texts(source, features, types, columns),
        queries={SAMPLE: raw, **raw_groups},
        select=tuple(select),
    )


def _hashed_texts(
    source: Source, features: list[Feature], types: Mapping[tuple[str, str], str], columns: Mapping[str, str]
) -> dict[str, str]:
    """The columns of the normalised samples query that are texts upstream, with their names there."""
    linked = {name for name, group in (source.groups or {}).items() if group.sql is not None}
    own = (f for f in features if f.group not in linked)
    texts = {f.name: f.name for f in own if is_text(types[f.group, f.name].removesuffix("[]"))}
    session = source.session_column if len(source.session_columns) == 1 else None
    keys = {SESSION: session, REQUEST: source.keys.get("request"), SAMPLE_KEY: source.keys.get("sample")}
    return texts | {key: column for key, column in keys.items() if column is not None and is_text(columns[column])}


class _Resolver:
    """Turns named columns into features and SQL, and collects all mistakes instead of stopping at the first.

    Args:
        source: names the columns.
        columns: the type of each column of the samples query.
        group_columns: the types of each group's own query.
    """

    def __init__(
        self, source: Source, columns: Mapping[str, str], group_columns: Mapping[str, Mapping[str, str]]
    ) -> None:
        self.source, self.columns, self.group_columns = source, columns, group_columns
        self.mistakes: list[str] = []
        self.found: list[Announcement] = []
        self.durations: dict[str, str] = {}
        self.feature_of_weights = {f.weights: name for name, f in source.features.items() if f.weights}
        every = {*columns, *(column for given in group_columns.values() for column in given)}
        self.is_weights_misnamed = not every >= self.feature_of_weights.keys()

    def resolve_samples(self) -> tuple[list[Feature], list[str]]:
        """The features among the samples' columns, and the columns of the normalised samples query."""
        source = self.source
        select = [*self._key_columns()]
        self._check_time()
        for column in source.labels:
            if self._is_known(column, "labels"):
                select.append(self._alias("labels", column, label_sql, column, self.columns[column]))
        if isinstance(source.split, str):
            select.append(f"coalesce(({source.split}\n), false) as {TEST}")
        for name, group in (source.groups or {}).items():
            where = f"groups.{name}.key"
            key = {column: self.columns[column] for column in group.key if self._is_known(column, where)}
            if group.sql is not None and key:
                select.append(self._alias(where, link_column(name), link_sql, key))
        features, expressions = self._resolve_features(self._group_of_columns(), self.columns, "samples query")
        return features, [*select, *expressions]

    def _key_columns(self) -> list[str]:
        source = self.source
        named = {"request": REQUEST, "timestamp": TIMESTAMP, "sample": SAMPLE_KEY, "order": ORDER_KEY}
        select, where, user = [], f"keys.{source.session_key}", source.keys.get("user")
        session = {
            column: self.columns[column]
            for column in source.session_columns
            if self._is_known(column, "keys.user" if column == user else where)
        }
        if len(session) == len(source.session_columns) > 0:
            select.append(self._alias(where, SESSION, session_sql, session))
        for key, alias in named.items():
            column = source.keys.get(key)
            if column is not None and self._is_known(column, f"keys.{key}"):
                to_sql = time_sql if key in ("timestamp", "order") else key_sql
                select.append(self._alias(f"keys.{key}", alias, to_sql, column, self.columns[column]))
        if "order" not in source.keys and has_nanoseconds(self.columns.get(source.keys.get("timestamp", ""), "")):
            select.append(f"{nanoseconds_sql(source.keys['timestamp'])} as {ORDER_KEY}")
        return select

    def _check_time(self) -> None:
        """Gaps and partitions need times: nobody knows the unit of an integer."""
        source, column = self.source, self.source.keys.get("timestamp", "")
        if column in self.columns and not is_time(self.columns[column]) and (source.partition or source.gap_us):
            self.mistakes.append(
                f"keys.timestamp: column '{column}' is {self.columns[column]}; sessions by gap and partitions need a "
                f"TIMESTAMP: make one in the SQL, such as to_timestamp({column}) of seconds"
            )

    def resolve_group(self, name: str) -> tuple[list[Feature], list[str]]:
        """The features of a group with its own query, and the columns of its normalised query."""
        group = (self.source.groups or {})[name]
        columns = self.group_columns[name]
        self._check_group(name)
        chosen = group.features or tuple(c for c in columns if c not in (*group.key, *self.feature_of_weights))
        group_of = {column: name for column in chosen if column in columns and column not in self.source.drop}
        features, expressions = self._resolve_features(group_of, columns, f"query of group '{name}'")
        key = {column: columns[column] for column in group.key if column in columns}
        key_expression = self._alias(f"groups.{name}.key", ROW_KEY, link_sql, key) if key else f"0 as {ROW_KEY}"
        return features, [key_expression, *expressions]

    def _check_group(self, name: str) -> None:
        group, columns = (self.source.groups or {})[name], self.group_columns[name]
        for key in group.key:
            if key not in columns:
                self.mistakes.append(f"groups.{name}.key: no column '{key}' in its query{nearest(key, columns)}")
            elif key in self.columns and is_text(columns[key]) != is_text(self.columns[key]):
                self.mistakes.append(
                    f"groups.{name}.key: '{key}' is {columns[key]} in the group's query and {self.columns[key]} in the "
                    "samples; cast one of them"
                )
        self.mistakes += [
            f"groups.{name}.features: no column '{column}' in the group's query{nearest(column, columns)}"
            for column in group.features
            if column not in columns
        ]

    def _group_of_columns(self) -> dict[str, str]:
        """The group of each of the samples' columns that is a feature, in the order of the query."""
        source = self.source
        chosen = {
            column: name
            for name, group in (source.groups or {}).items()
            if group.sql is None
            for column in group.features
            if self._is_known(column, f"groups.{name}.features")
        }
        every = {column for columns in (self.columns, *self.group_columns.values()) for column in columns}
        self.mistakes += [
            f"column '{name}': names with two underscores before them are kept for the ETL; rename it in the SQL"
            for name in {*source.labels, *(c for c in self.columns if c not in source.drop)}
            if name.startswith("__") and not name.endswith("__") and name in self.columns
        ]
        self.mistakes += [
            f"features.{name}: no such column{nearest(name, every)}" for name in source.features if name not in every
        ]
        self.mistakes += [
            f"drop: no column '{name}'{nearest(name, every)}" for name in source.drop if name not in every
        ]
        links = {key for group in (source.groups or {}).values() for key in group.key}
        no_feature = {*source.keys.values(), *source.labels, *links} - set(source.features)
        no_feature |= {*source.drop, *source.labels, *self.feature_of_weights, *self._saved_indexes(chosen)}
        return {c: chosen.get(c, SAMPLE) for c in self.columns if c in chosen or c not in no_feature}

    def _saved_indexes(self, chosen: Collection[str]) -> list[str]:
        """Columns in which pandas has saved the index of a data frame, which are no features unless named as such."""
        indexes = [c for c in self.columns if _INDEX.match(c) and c not in (*chosen, *self.source.features)]
        indexes = [c for c in indexes if c not in (*self.source.keys.values(), *self.source.labels, *self.source.drop)]
        self.found += map(saved_index, indexes)
        return indexes

    def _resolve_features(
        self, group_of: Mapping[str, str], columns: Mapping[str, str], where: str
    ) -> tuple[list[Feature], list[str]]:
        features, expressions = [], []
        for column, group in group_of.items():
            options = self.source.features.get(column, FeatureSource())
            try:
                if options.kind is None and column in self.durations and is_integer(columns[column]):
                    raise Unfit(duration_remedy(column, self.durations[column]))
                kind, expression = feature_sql(column, columns[column], options.kind)
            except Unfit as error:
                if not (self.is_weights_misnamed and is_list(columns[column])):  # else these may be the weights
                    self.mistakes.append(f"{where}, column '{column}': {error}")
                continue
            if options.window:
                self.mistakes += misfit_of_window(column, kind, is_single=group == SAMPLE and bool(self.source.groups))
            table = None if kind is Kind.dense else options.table or table_name(column, columns)
            if table is not None and is_taken(table):
                self.mistakes.append(f"features.{column}.table: torch keeps '{table}' for itself; take another name")
            features.append(Feature(column, kind, group, table, weights=options.weights))
            expressions.append(f"{expression} as {identifier(column)}")
            if column in self.feature_of_weights:
                feature = self.feature_of_weights[column]
                self.mistakes.append(f"{where}: '{column}' is the weights of '{feature}', no feature")
            if options.weights:
                expressions.append(self._weights_sql(options.weights, column, columns, where))
        return features, expressions

    def _weights_sql(self, name: str, feature: str, columns: Mapping[str, str], where: str) -> str:
        """The SQL expression of a weights column, which must stand beside its feature as a list of numbers."""
        option = f"features.{feature}.weights"
        if name not in columns:
            self.mistakes.append(f"{option}: no column '{name}' in the {where}{nearest(name, columns)}")
        elif not is_list(columns[feature]):
            self.mistakes.append(f"{option}: '{feature}' is {columns[feature]}, no list of ids")
        else:
            return self._alias(option, name, weights_sql, name, columns[name])
        return f"null as {identifier(name)}"

    def _is_known(self, column: str, where: str) -> bool:
        if column in self.columns:
            return True
        self.mistakes.append(f"{where}: no column '{column}' in the samples{nearest(column, self.columns)}")
        return False

    def _alias(self, where: str, alias: str, to_sql: Callable[..., str], *column: Any) -> str:
        """The expression of a column under a name; null, and a mistake, where the column's type is unfit."""
        try:
            expression = to_sql(*column)
        except Unfit as error:
            self.mistakes.append(f"{where}: {error}")
            expression = "null"
        return f"{expression} as {identifier(alias)}"
