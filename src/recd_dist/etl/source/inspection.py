"""From the columns of a source's queries to a schema, and to queries whose columns have the table's types.

::

    varchar | integer | integer[] | varchar[] | double       what the raw query gives
       id   |   id    |    ids    |    ids    | dense        what it becomes
      hash  | bigint  |   as is   | hash each | float        how

Only DESCRIBE runs here: preflight calls :func:`inspect` before any rank starts.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

import duckdb

from recd_dist.errors import DataError, nearest
from recd_dist.etl.source import duckdb_sql as engine
from recd_dist.etl.source.source import Source
from recd_dist.table.flat import identifier
from recd_dist.table.schema import SAMPLE, Feature, Kind, Schema

SESSION, REQUEST, TIMESTAMP, TEST = "__session", "__request", "__timestamp", "__test"
SAMPLE_KEY, ORDER_KEY = "__sample", "__sample_order"
"""Columns of the normalised samples query, beside labels, links and features; absent where the source has none."""
ROW_KEY = "__key"
"""The key column of a normalised group query."""

_INTEGERS = {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT"}
_INTEGERS |= {"UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT"}
_NUMBERS = ("FLOAT", "DOUBLE", "DECIMAL")
_KEPT_LISTS = {"INTEGER[]", "BIGINT[]"}


def link(group: str) -> str:
    """The column of the normalised samples that finds a sample's row of a group with its own query."""
    return f"__link_{group}"


@dataclass(frozen=True)
class Inspection:
    """What a source will become, found without reading its rows.

    Attributes:
        schema: features, groups and labels. A single id that turns out to be missing in some samples becomes a list
            of ids, and automatic groups are found, only when the rows are read.
        samples: normalised query of the samples.
        groups: normalised query of each group that has its own.
        automatic: the groups are still to be found by measuring.
        timed: the timestamp is a time, not just an integer.
    """

    schema: Schema
    samples: str
    groups: dict[str, str]
    automatic: bool
    timed: bool = False


def inspect(source: Source) -> Inspection:
    """Looks at a source's columns, in milliseconds for Parquet.

    Raises:
        DataError: a path, query or column that does not fit, listing every mistake.
    """
    with engine.connect() as connection:
        return inspected(source, connection)


def inspected(source: Source, connection: duckdb.DuckDBPyConnection) -> Inspection:
    """:func:`inspect` over an open connection."""
    path = engine.checked_path(source.path)
    sql = engine.filled(source.samples, path) if source.samples else engine.default_samples(path)
    columns = engine.described(connection, sql, "samples query" if source.samples else f"path {source.path}")
    own = {
        name: (query := engine.filled(group.sql, path), engine.described(connection, query, f"query of group '{name}'"))
        for name, group in (source.groups or {}).items()
        if group.sql is not None
    }
    resolver = _Resolver(source, columns, {name: described for name, (_, described) in own.items()})
    schema_features, select = resolver.samples()
    group_selects = {}
    for name, (query, _) in own.items():
        features, group_select = resolver.group(name)
        schema_features += features
        group_selects[name] = f"select {group_select} from ({query}\n)"  # a query may end in a comment
    if resolver.mistakes:
        raise DataError(f"data source '{source.name}': " + "\n  ".join(dict.fromkeys(resolver.mistakes)))
    order = {name: i for i, name in enumerate((*(source.groups or {}), SAMPLE))}
    ordered = tuple(sorted(schema_features, key=lambda feature: order[feature.group]))
    samples = f"select {select} from ({sql}\n)"
    for name, query in (("split", samples), *((f"group '{g}'", q) for g, q in group_selects.items())):
        engine.described(connection, query, f"data source '{source.name}', {name}")
    timed = _is_time(columns.get(source.keys.get("timestamp", ""), ""))
    return Inspection(Schema(ordered, source.labels), samples, group_selects, source.groups is None, timed)


class _Resolver:
    """Turns named columns into features and SQL expressions, collecting mistakes instead of stopping at the first."""

    def __init__(self, source: Source, columns: dict[str, str], own: dict[str, dict[str, str]]) -> None:
        self.source = source
        self.columns = columns
        self.own = own
        self.mistakes: list[str] = []
        self.weights = {f.weights: name for name, f in source.features.items() if f.weights}

    def samples(self) -> tuple[list[Feature], str]:
        """Features among the samples' columns, and the select list of the normalised query."""
        source = self.source
        select = []
        keys = {"request": REQUEST, "timestamp": TIMESTAMP, "sample": SAMPLE_KEY, "order": ORDER_KEY}
        named = [(key, source.keys.get(key), alias) for key, alias in keys.items()]
        which = {"gap": "user", "column": "session"}.get(source.session_by, source.session_by)
        for key, column, alias in ((which, source.session_column, SESSION), *named):
            if column is not None and self._known(column, f"keys.{key}"):
                to_sql = _time if key in ("timestamp", "order") else _key
                select.append(self._aliased(to_sql(column, self.columns[column]), f"keys.{key}", alias))
        self._check_time()
        for column in source.labels:
            if self._known(column, "labels"):
                select.append(self._aliased(_label(column, self.columns[column]), "labels", column))
        if isinstance(source.split, str):
            select.append(f"coalesce(({source.split}), false) as {TEST}")
        for name, group in (source.groups or {}).items():
            known = {key: self.columns[key] for key in group.key if self._known(key, f"groups.{name}.key")}
            if group.sql is not None and known:
                expression = _link(known)
                select.append(self._aliased(expression, f"groups.{name}.key", link(name)))
        features, expressions = self._features(self._group_of(), self.columns, "samples query")
        return features, ", ".join([*select, *expressions])

    def _check_time(self) -> None:
        """Gaps and partitions are times; of an integer nobody knows the unit."""
        source, column = self.source, self.source.keys.get("timestamp", "")
        if column in self.columns and not _is_time(self.columns[column]) and (source.partition or source.gap_us):
            self.mistakes.append(
                f"keys.timestamp: column '{column}' is {self.columns[column]}; sessions by gap and partitions need a "
                f"TIMESTAMP: make one in the SQL, such as to_timestamp({column}) of seconds"
            )

    def group(self, name: str) -> tuple[list[Feature], str]:
        """Features of a group with its own query, and the select list of that query, normalised."""
        group = (self.source.groups or {})[name]
        columns = self.own[name]
        for key in group.key:
            if key not in columns:
                self.mistakes.append(f"groups.{name}.key: no column '{key}' in its query{nearest(key, columns)}")
            elif key in self.columns and _is_text(columns[key]) != _is_text(self.columns[key]):
                self.mistakes.append(
                    f"groups.{name}.key: '{key}' is {columns[key]} in the group's query and {self.columns[key]} in the "
                    "samples; cast one of them"
                )
        for column in group.features:
            if column not in columns:
                self.mistakes.append(
                    f"groups.{name}.features: no column '{column}' in the group's query{nearest(column, columns)}"
                )
        chosen = group.features or tuple(c for c in columns if c not in (*group.key, *self.weights))
        taken = {c: name for c in chosen if c in columns and c not in self.source.drop}
        features, expressions = self._features(taken, columns, f"query of group '{name}'")
        known_keys = {k: columns[k] for k in group.key if k in columns}
        key = self._aliased(_link(known_keys), f"groups.{name}.key", ROW_KEY) if known_keys else f"0 as {ROW_KEY}"
        return features, ", ".join([key, *expressions])

    def _group_of(self) -> dict[str, str]:
        """The group of each of the samples' columns that is a feature, in the order of the query."""
        source = self.source
        chosen = {
            column: name
            for name, group in (source.groups or {}).items()
            if group.sql is None
            for column in group.features
            if self._known(column, f"groups.{name}.features")
        }
        everywhere = {c for columns in (self.columns, *self.own.values()) for c in columns}
        self.mistakes += [
            f"features.{name}: no such column{nearest(name, everywhere)}"
            for name in source.features
            if name not in everywhere
        ]
        self.mistakes += [
            f"drop: no column '{name}'{nearest(name, everywhere)}" for name in source.drop if name not in everywhere
        ]
        links = {key for group in (source.groups or {}).values() for key in group.key}
        taken = {*source.keys.values(), *source.labels, *links} - set(source.features)
        taken |= {*source.drop, *source.labels, *self.weights}
        rest = {c: SAMPLE for c in self.columns if c not in chosen and c not in taken}
        return {c: g for c, g in ((c, chosen.get(c) or rest.get(c)) for c in self.columns) if g is not None}

    def _features(
        self, group_of: dict[str, str], columns: dict[str, str], where: str
    ) -> tuple[list[Feature], list[str]]:
        features, expressions = [], []
        for column, group in group_of.items():
            wanted = self.source.features.get(column)
            try:
                kind, expression = _feature(column, columns[column], wanted.kind if wanted else None)
            except _Unfit as error:
                self.mistakes.append(f"{where}, column '{column}': {error}")
                continue
            table = None if kind is Kind.dense else (wanted.table if wanted and wanted.table else column)
            weights = wanted.weights if wanted else None
            features.append(Feature(column, kind, group, table, weights=weights))
            expressions.append(f"{expression} as {identifier(column)}")
            if column in self.weights:
                self.mistakes.append(f"{where}: '{column}' is the weights of '{self.weights[column]}', no feature")
            if weights:
                expressions.append(self._weights(weights, column, columns, where))
        return features, expressions

    def _weights(self, name: str, feature: str, columns: dict[str, str], where: str) -> str:
        """The SQL expression of a weights column, which must stand beside its feature as a list of numbers."""
        if name not in columns:
            self.mistakes.append(
                f"features.{feature}.weights: no column '{name}' in the {where}{nearest(name, columns)}"
            )
        elif not _base(columns[feature]).endswith("[]"):
            self.mistakes.append(f"features.{feature}.weights: '{feature}' is {columns[feature]}, no list of ids")
        elif _base(columns[name]).removesuffix("[]") not in {*_INTEGERS, *_NUMBERS} or "[" not in columns[name]:
            self.mistakes.append(f"features.{feature}.weights: '{name}' is {columns[name]}, no list of numbers")
        return f"{identifier(name)}::float[] as {identifier(name)}"

    def _known(self, column: str, where: str) -> bool:
        if column in self.columns:
            return True
        self.mistakes.append(f"{where}: no column '{column}' in the samples{nearest(column, self.columns)}")
        return False

    def _aliased(self, expression: "str | _Unfit", where: str, alias: str) -> str:
        if isinstance(expression, _Unfit):
            self.mistakes.append(f"{where}: {expression}")
            return f"null as {identifier(alias)}"
        return f"{expression} as {identifier(alias)}"


class _Unfit(Exception):
    """A column type that cannot be what it is asked to be; the message names type and remedy."""


def _feature(column: str, type_name: str, wanted: Kind | None) -> tuple[Kind, str]:
    """Kind and SQL expression of a feature column."""
    name, base = identifier(column), _base(type_name)
    if base.endswith("[]"):
        if wanted not in (None, Kind.ids):
            raise _Unfit(f"a {type_name} cannot be kind '{wanted}'; take one element in the SQL, such as {column}[1]")
        return Kind.ids, _ids(name, type_name, base)
    found = _kind(base)
    if found is None:
        raise _Unfit(_remedy(column, type_name))
    expression = HASHED.format(name) if _is_text(base) else f"{name}::{'float' if found is Kind.dense else 'bigint'}"
    if wanted is None or wanted is found:
        return found, expression
    if _is_text(base) and wanted is Kind.dense:
        raise _Unfit(f"a {type_name} cannot be dense; cast it in the SQL, such as {column}::float")
    if wanted is Kind.dense:
        return wanted, f"{name}::float"
    expression = f"{name}::bigint" if found is Kind.dense else expression
    if wanted is Kind.ids:
        expression = f"case when {name} is null then []::bigint[] else [{expression}] end"
    return wanted, expression


HASHED = engine.HASH.replace("{}", "{}::varchar")


def _ids(name: str, type_name: str, base: str) -> str:
    element = base.removesuffix("[]")
    if type_name in _KEPT_LISTS:
        return name
    if element in _INTEGERS or element == "BOOLEAN":
        return f"{name}::bigint[]"
    if _is_text(element):
        return f"list_transform({name}, lambda x: {HASHED.format('x')})"
    raise _Unfit(
        f"a list of {element} is no list of ids; turn its elements into integers in the SQL, such as "
        f"list_transform({name}, lambda x: floor(x)::int), or drop it"
    )


def _kind(base: str) -> Kind | None:
    if base in _INTEGERS or base == "BOOLEAN" or _is_text(base):
        return Kind.id
    if base in _NUMBERS:
        return Kind.dense
    return None


def _base(type_name: str) -> str:
    """``DECIMAL(18,3)`` -> ``DECIMAL``, ``ENUM('a')`` -> ``ENUM``, ``INTEGER[3]`` -> ``INTEGER[]``."""
    brackets = re.search(r"(\[\d*\])+$", type_name)
    lists = "[]" * brackets.group().count("[") if brackets else ""
    return type_name[: brackets.start() if brackets else None].split("(", maxsplit=1)[0] + lists


def _is_text(type_name: str) -> bool:
    return _base(type_name) in ("VARCHAR", "ENUM", "UUID")


def _is_time(type_name: str) -> bool:
    return type_name.startswith("TIMESTAMP") or type_name == "DATE"


def _remedy(column: str, type_name: str) -> str:
    if _is_time(type_name):
        return (
            f"a {type_name} is no feature; name it keys.timestamp, drop it (drop: [{column}]) or take numbers from it "
            f"in the SQL, such as hour({column})"
        )
    if type_name.startswith("STRUCT"):
        return f"a {type_name[:60]} is no feature; take its fields in the SQL, such as {column}.field, or drop it"
    return f"type {type_name[:60]} is no feature; cast it in the SQL to a number, text or list of ids, or drop it"


def _key(column: str, type_name: str) -> "str | _Unfit":
    name, base = identifier(column), _base(type_name)
    if base in _INTEGERS:
        return f"{name}::bigint"
    if _is_text(base):
        return HASHED.format(f"nullif({name}::varchar, '')")
    if _is_time(type_name):
        return f"epoch_us({name})"
    return _Unfit(f"column '{column}' is {type_name[:60]}; a key is an integer, text or timestamp: cast it in the SQL")


def _time(column: str, type_name: str) -> "str | _Unfit":
    if _is_time(type_name):
        return f"epoch_us({identifier(column)})"
    if _base(type_name) in _INTEGERS:
        return f"{identifier(column)}::bigint"
    return _Unfit(
        f"column '{column}' is {type_name[:60]}; a timestamp is a TIMESTAMP, DATE or integer: cast it in the SQL, such "
        f"as {column}::timestamp"
    )


def _label(column: str, type_name: str) -> "str | _Unfit":
    base = _base(type_name)
    if base in _INTEGERS or base in ("BOOLEAN", "FLOAT", "DOUBLE", "DECIMAL"):
        return f"{identifier(column)}::float"
    return _Unfit(f"column '{column}' is {type_name[:60]}; a label is a number or true/false: cast it in the SQL")


def _link(columns: dict[str, str]) -> "str | _Unfit":
    """One int64 for one or several key columns; several are hashed together."""
    expressions = {column: _key(column, type_name) for column, type_name in columns.items()}
    for expression in expressions.values():
        if isinstance(expression, _Unfit):
            return expression
    if len(expressions) == 1:
        return next(iter(expressions.values()))
    return HASHED.format(f"({_joined(columns)})")


def _joined(columns: Iterable[str]) -> str:
    return " || chr(31) || ".join(f"{identifier(column)}::varchar" for column in columns)
