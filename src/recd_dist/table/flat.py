"""SQL that turns a clustered table back into flat samples, for several engines.

The query names the files of the manifest, never a glob: what a crashed append left behind is no part of the table.
DuckDB reads them by ``read_parquet([...], union_by_name = true)``, Spark by ``parquet.`.../{part-00000,...}.parquet```.
Ids are one column even where some parts store them as int32 and later ones as int64.
"""

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from recd_dist.errors import ConfigError, nearest
from recd_dist.table.location import Location
from recd_dist.table.manifest import ROW, STREAM, FileEntry, Manifest, Part, length_of, start_of
from recd_dist.table.schema import KEYS, SAMPLE, Feature, Schema

_GLOB = re.compile(r"([\\*?\[\]{}])")


def string_literal(text: str) -> str:
    """A text as an SQL string, in single quotes."""
    return "'" + text.replace("'", "''") + "'"


def identifier(name: str) -> str:
    """A name as an SQL identifier, in double quotes."""
    return '"' + name.replace('"', '""') + '"'


def flat_view(
    table: Location,
    dialect: str = "duckdb",
    partitions: Collection[str] | None = None,
    columns: Collection[str] | None = None,
    parts: Collection[Part] | None = None,
) -> str:
    """A query that returns the flat samples: keys, labels, every feature and its weights, one row per sample.

    Args:
        table: directory of one split.
        dialect: the SQL to write, ``duckdb`` or ``spark``.
        partitions: take only the samples of these partitions, such as ``2026-11-25``; None takes all.
        columns: take only these columns, in the order of the table; a group is not read when none of its columns is
            named. None takes all.
        parts: take only the samples of these parts of the table; None takes all.

    Raises:
        DataError: there is no table.
        ConfigError: the dialect, a partition or a column is unknown.
    """
    if dialect not in _DIALECTS:
        raise ConfigError(f"dialect '{dialect}': unknown{nearest(dialect, _DIALECTS)}")
    sql = _DIALECTS[dialect]
    manifest = Manifest.load(table)
    parts = list(parts) if parts is not None else _choose_parts(manifest, partitions)
    names = _choose_columns(manifest.schema, columns)
    features = [f for f in manifest.schema.features if {f.name, f.weights} & set(names)]
    expressions = {name: f"samples.{sql.identifier(name)}" for name in (*KEYS, *manifest.schema.labels)}
    for name in (n for n, stats in manifest.labels.items() if stats.num_null):  # stored as nan
        expressions[name] = f"nullif({expressions[name]}, cast('nan' as float))"
    for feature in features:
        expressions |= _expressions(feature, sql)
    joins: list[str] = []
    for group in manifest.schema.dedup_groups:
        members = [f for f in features if f.group == group]
        if members:
            joins += _joins(table, group, parts, any(f.window for f in members), sql)
    selected = ", ".join(f"{expressions[name]} as {sql.identifier(name)}" for name in names)
    source = sql.scan(table, [part.samples for part in parts])
    return "\n".join([f"select {selected}", f"from {source} as samples", *joins])


@dataclass(frozen=True)
class _Dialect:
    """How an engine writes names, scans of files, and slices of lists.

    Attributes:
        identifier: turns a name into an SQL identifier.
        scan: turns a table and some of its files into the SQL that scans them.
        slice: turns a list, the place at which the slice begins (from 0) and its length into SQL.
    """

    identifier: Callable[[str], str]
    scan: Callable[[Location, list[FileEntry]], str]
    slice: Callable[[str, str, str], str]


def _choose_parts(manifest: Manifest, partitions: Collection[str] | None) -> list[Part]:
    """The parts of some partitions; None takes all."""
    if partitions is None:
        return list(manifest.parts)
    there = {part.partition for part in manifest.parts}
    for partition in partitions:
        if partition not in there:
            raise ConfigError(f"partition '{partition}': the table has none{nearest(partition, there)}")
    return [part for part in manifest.parts if part.partition in partitions]


def _choose_columns(schema: Schema, columns: Collection[str] | None) -> list[str]:
    """The names of some columns in the order of the table; None takes all."""
    named = [name for f in schema.features for name in (f.name, f.weights) if name is not None]
    there = [*KEYS, *schema.labels, *named]
    for column in columns or ():
        if column not in there:
            raise ConfigError(f"column '{column}': the table has none{nearest(column, there)}")
    return [name for name in there if columns is None or name in columns]


def _expressions(feature: Feature, sql: _Dialect) -> dict[str, str]:
    """By name the expressions that read a feature and its weights."""
    names = [name for name in (feature.name, feature.weights) if name is not None]
    rows = "samples" if feature.group == SAMPLE else f"{feature.group}_rows"
    if not feature.window:
        return {name: f"{sql.identifier(rows)}.{sql.identifier(name)}" for name in names}
    start, length = (f"{sql.identifier(rows)}.{sql.identifier(of(feature.name))}" for of in (start_of, length_of))
    streams = sql.identifier(f"{feature.group}_streams")
    return {name: sql.slice(f"{streams}.{sql.identifier(name)}", start, length) for name in names}


def _joins(table: Location, group: str, parts: list[Part], windowed: bool, sql: _Dialect) -> Iterable[str]:
    """The joins of a group's rows and, where it has windows, of its streams."""
    rows, streams = sql.identifier(f"{group}_rows"), sql.identifier(f"{group}_streams")
    files = sql.scan(table, [part.groups[group] for part in parts])
    yield f"join {files} as {rows} on {rows}.{ROW} = samples.{sql.identifier(f'{group}_{ROW}')}"
    if windowed:
        files = sql.scan(table, [part.streams[group] for part in parts])
        yield f"join {files} as {streams} on {streams}.{STREAM} = {rows}.{STREAM}"


def _scan_in_duckdb(table: Location, entries: list[FileEntry]) -> str:
    """A scan that reads files by name, in which ``*``, ``?`` and brackets stand for themselves."""
    names = ", ".join(string_literal(_GLOB.sub(r"[\1]", str(table)) + f"/{entry.path}") for entry in entries)
    return f"read_parquet([{names}], union_by_name = true)"


def _scan_in_spark(table: Location, entries: list[FileEntry]) -> str:
    """One scan of all files of the same types; several scans are put together, with ids as wide as the widest."""
    scans: dict[str, list[str]] = {}
    for entry in entries:
        types = str(pq.read_schema(table / entry.path).remove_metadata()) if len(entries) > 1 else ""
        scans.setdefault(types, []).append(Path(entry.path).stem)
    directory = _GLOB.sub(r"\\\1", str(table.resolve() / Path(entries[0].path).parent)).replace("`", "``")
    paths = [f"{directory}/{names[0] if len(names) == 1 else '{' + ','.join(names) + '}'}" for names in scans.values()]
    queries = [f"select * from parquet.`{path}.parquet`" for path in paths]
    return f"({' union all '.join(queries)})" if len(queries) > 1 else f"parquet.`{paths[0]}.parquet`"


_DIALECTS = {
    "duckdb": _Dialect(identifier, _scan_in_duckdb, lambda x, a, n: f"list_slice({x}, {a} + 1, {a} + {n})"),
    "spark": _Dialect(
        lambda name: "`" + name.replace("`", "``") + "`", _scan_in_spark, lambda x, a, n: f"slice({x}, {a} + 1, {n})"
    ),
}
