"""A clustered table as flat samples again, in any SQL engine that reads Parquet.

The files are those that the manifest names, never a glob: what a crashed append left behind is no part of the table.
DuckDB reads them by ``read_parquet([...], union_by_name = true)``, Spark by ``parquet.`.../{part-00000,...}.parquet```.
Parts whose ids were later stored wider (int32, then int64) are one column all the same.
"""

import re
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

import pyarrow.parquet as pq

from recd_dist.errors import ConfigError, nearest
from recd_dist.table.location import Location
from recd_dist.table.manifest import ROW, STREAM, FileEntry, Manifest, Part, length_of, start_of
from recd_dist.table.schema import KEYS, SAMPLE, Feature, Schema

_GLOB = re.compile(r"([\\*?\[\]{}])")


def quoted(text: str) -> str:
    """An SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def identifier(name: str) -> str:
    """An SQL identifier, quoted."""
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
        dialect: ``duckdb`` or ``spark``.
        partitions: only samples of these, such as ``2026-11-25``; None takes all.
        columns: only these, in the order of the table; groups of which none is named are not read. None takes all.
        parts: only the samples of these parts of the table; None takes all.

    Raises:
        DataError: no table there.
        ConfigError: an unknown dialect, partition or column.
    """
    if dialect not in _DIALECTS:
        raise ConfigError(f"dialect '{dialect}': unknown{nearest(dialect, _DIALECTS)}")
    speaks = _DIALECTS[dialect]
    manifest = Manifest.load(table)
    chosen = list(parts) if parts is not None else _parts(manifest, partitions)
    wanted = _columns(manifest.schema, columns)
    features = [f for f in manifest.schema.features if {f.name, f.weights} & set(wanted)]
    expressions = {name: f"samples.{speaks.name(name)}" for name in (*KEYS, *manifest.schema.labels)}
    for feature in features:
        expressions |= _expressions(feature, speaks)
    joins: list[str] = []
    for group in manifest.schema.dedup_groups:
        mine = [f for f in features if f.group == group]
        if mine:
            joins += _joins(table, group, chosen, any(f.window for f in mine), speaks)
    selected = ", ".join(f"{expressions[name]} as {speaks.name(name)}" for name in wanted)
    source = speaks.files(table, [part.samples for part in chosen])
    return "\n".join([f"select {selected}", f"from {source} as samples", *joins])


class _Dialect:
    """How an engine writes names, files and slices of lists."""

    def __init__(
        self,
        name: Callable[[str], str],
        files: Callable[[Location, list[FileEntry]], str],
        piece: Callable[[str, str, str], str],
    ) -> None:
        self.name, self.files, self.piece = name, files, piece


def _parts(manifest: Manifest, partitions: Collection[str] | None) -> list[Part]:
    if partitions is None:
        return list(manifest.parts)
    there = {part.partition for part in manifest.parts}
    for partition in partitions:
        if partition not in there:
            raise ConfigError(f"partition '{partition}': the table has none{nearest(partition, there)}")
    return [part for part in manifest.parts if part.partition in partitions]


def _columns(schema: Schema, columns: Collection[str] | None) -> list[str]:
    """Names to select, in the order of the table."""
    named = [name for f in schema.features for name in (f.name, f.weights) if name is not None]
    there = [*KEYS, *schema.labels, *named]
    for column in columns or ():
        if column not in there:
            raise ConfigError(f"column '{column}': the table has none{nearest(column, there)}")
    return [name for name in there if columns is None or name in columns]


def _expressions(feature: Feature, speaks: _Dialect) -> dict[str, str]:
    """How a feature, and its weights, are read."""
    names = [name for name in (feature.name, feature.weights) if name is not None]
    rows = "samples" if feature.group == SAMPLE else f"{feature.group}_rows"
    if not feature.window:
        return {name: f"{speaks.name(rows)}.{speaks.name(name)}" for name in names}
    start, length = (f"{speaks.name(rows)}.{speaks.name(of(feature.name))}" for of in (start_of, length_of))
    streams = speaks.name(f"{feature.group}_streams")
    return {name: speaks.piece(f"{streams}.{speaks.name(name)}", start, length) for name in names}


def _joins(table: Location, group: str, parts: list[Part], windows: bool, speaks: _Dialect) -> Iterable[str]:
    rows, streams = speaks.name(f"{group}_rows"), speaks.name(f"{group}_streams")
    files = speaks.files(table, [part.groups[group] for part in parts])
    yield f"join {files} as {rows} on {rows}.{ROW} = samples.{speaks.name(f'{group}_{ROW}')}"
    if windows:
        files = speaks.files(table, [part.streams[group] for part in parts])
        yield f"join {files} as {streams} on {streams}.{STREAM} = {rows}.{STREAM}"


def _duckdb_files(table: Location, entries: list[FileEntry]) -> str:
    names = ", ".join(quoted(_GLOB.sub(r"[\1]", str(table)) + f"/{entry.path}") for entry in entries)
    return f"read_parquet([{names}], union_by_name = true)"


def _spark_files(table: Location, entries: list[FileEntry]) -> str:
    """One scan for files of equal types; several are put together, with ids as wide as the widest."""
    scans: dict[str, list[str]] = {}
    for entry in entries:
        types = str(pq.read_schema(table / entry.path).remove_metadata()) if len(entries) > 1 else ""
        scans.setdefault(types, []).append(Path(entry.path).stem)
    directory = _GLOB.sub(r"\\\1", str(table.resolve() / Path(entries[0].path).parent)).replace("`", "``")
    paths = [f"{directory}/{names[0] if len(names) == 1 else '{' + ','.join(names) + '}'}" for names in scans.values()]
    queries = [f"select * from parquet.`{path}.parquet`" for path in paths]
    return f"({' union all '.join(queries)})" if len(queries) > 1 else f"parquet.`{paths[0]}.parquet`"


_DIALECTS = {
    "duckdb": _Dialect(identifier, _duckdb_files, lambda x, a, n: f"list_slice({x}, {a} + 1, {a} + {n})"),
    "spark": _Dialect(
        lambda name: "`" + name.replace("`", "``") + "`", _spark_files, lambda x, a, n: f"slice({x}, {a} + 1, {n})"
    ),
}
