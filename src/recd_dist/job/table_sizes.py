"""Sizes of embedding tables, inferred from the ids that the ETL counted."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from recd_dist.errors import ConfigError, nearest
from recd_dist.screen.command_line import command_line, override
from recd_dist.table.manifest import IdStats, Manifest
from recd_dist.table.schema import EVICTIONS, Feature, IdRules, Schema, Table

_OPTIONS = ("num_embeddings", "dim", "hashed", "mapped", "admit_after", "evict", "max_age")
_OF_MAPPED = ("admit_after", "evict", "max_age")
_MULTIPLE = 64  # the number of rows of a hashed table is a multiple of this
_MAX_ROWS = 2**40
_MOST_TIMES = 2**31 - 1  # times below it travel as int32; a table that is not looked up takes no memory


def infer_tables(
    manifest: Manifest,
    schema: Schema,
    overrides: Mapping[str, Mapping[str, Any]],
    dim: int,
    limits: Mapping[str, int] | None = None,
    times: Collection[str] = (),
) -> dict[str, Table]:
    """Infers the embedding tables that a schema needs.

    Ids that nearly fill [0, max_id] are row numbers; sparse or negative ones are hashed into twice as many rows as
    there are distinct ids: about 0.6 of them (e^-0.5) then have a row to themselves.

    Args:
        manifest: the manifest of the training table, whose id statistics cover every split.
        schema: the features that are trained.
        overrides: for each table any of num_embeddings, dim and hashed; what is None or absent is inferred.
        dim: width of the tables for which ``overrides`` names none.
        limits: features whose transforms bring every id into [0, limit), from ``Transforms.id_limits``. A table that
            only such features look up needs no more rows than the largest limit.
        times: features that the model takes as times: their ids are not looked up, and never hashed.

    Returns:
        Tables by name, in order of first use.

    Raises:
        ConfigError: an unknown table or option, or a size that the ids do not fit; every mistake in one message.
    """
    mistakes: list[str] = []
    known = set(schema.tables) | set(manifest.schema.tables)
    for name, options in overrides.items():
        if name not in known:
            mistakes.append(f"data.tables.{name}: no feature looks it up{nearest(name, known)}")
        mistakes += [
            f"data.tables.{name}.{option}: unknown option{nearest(option, _OPTIONS)}"
            for option in options
            if option not in _OPTIONS
        ]
    if mistakes:
        raise ConfigError("\n  ".join(mistakes))
    tables = {}
    for name in schema.tables:
        options = {k: v for k, v in overrides.get(name, {}).items() if v is not None}
        features = [f.name for f in schema.sparse if f.table == name]
        bounds = [(limits or {}).get(feature) for feature in features]
        known_bounds = [b for b in bounds if b is not None]
        stats = manifest.ids.get(name) or IdStats(0, -1, 0)
        if len(known_bounds) == len(bounds):
            stats = IdStats(0, max(known_bounds) - 1, max(known_bounds))
        try:
            _require_bound(name, options, [f for f in schema.sparse if f.table == name], limits or {})
            _check_limits(name, options, features, limits or {})
            own_times = [feature for feature in features if feature in times]
            tables[name] = _table_with_times(name, stats, options, dim, own_times, len(own_times) == len(features))
        except ConfigError as error:
            mistakes.append(str(error))
    if mistakes:
        raise ConfigError("\n  ".join(mistakes))
    return tables


def _table(name: str, stats: IdStats, options: Mapping[str, Any], dim: int) -> Table:
    """Infers what the options of one table leave open."""
    width, rows, hashed = options.get("dim", dim), options.get("num_embeddings"), options.get("hashed")
    for option, value in (("dim", width), ("num_embeddings", rows)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not 0 < value < _MAX_ROWS):
            raise ConfigError(f"data.tables.{name}.{option}={value}: wanted a whole number above 0")
    if hashed is not None and not isinstance(hashed, bool):
        raise ConfigError(f"data.tables.{name}.hashed={hashed}: wanted true or false")
    if (rules := _rules(name, options)) is not None:
        # Zones fill unevenly: with a quarter more rows than ids, none is full before the others.
        return Table(name, rows or _round_up(stats.num_distinct * 5 // 4 + 1), width, mapped=rules)
    sparse = stats.min_id < 0 or stats.max_id + 1 > 4 * stats.num_distinct + 1000
    if hashed is None:
        hashed = sparse and rows is None
    if hashed:
        return Table(name, rows or _round_up(2 * stats.num_distinct), width, hashed=True)
    hashed_line = command_line(override(("data", "tables", name, "hashed"), True))
    if stats.min_id < 0:
        raise ConfigError(f"data.tables.{name}: ids go down to {stats.min_id}; set {hashed_line}, or mapped=true")
    if rows is None:
        rows = max(stats.max_id + 1, 1)
    if stats.max_id >= rows:
        raise ConfigError(
            f"data.tables.{name}.num_embeddings={rows}: ids go up to {stats.max_id}; "
            f"set num_embeddings={stats.max_id + 1} or more, or {hashed_line}, or mapped=true"
        )
    return Table(name, rows, width)


def _table_with_times(
    name: str, stats: IdStats, options: Mapping[str, Any], dim: int, times: Sequence[str], alone: bool
) -> Table:
    """A table of which some features are times, or all: these are not looked up, and stay what they are."""
    if not times:
        return _table(name, stats, options, dim)
    if not alone:
        if (table := _table(name, stats, options, dim)).hashed:
            raise ConfigError(
                f"data.tables.{name}: '{times[0]}' is a time (model.times), and the table that it shares with other "
                f"features is hashed; give it one of its own in the ETL, data.features.{times[0]}.table={times[0]}"
            )
        return table
    for option in ("hashed", "mapped"):
        if options.get(option):
            raise ConfigError(
                f"data.tables.{name}.{option}=true: '{times[0]}' is a time (model.times), which is taken as it is; "
                "leave it out"
            )
    if stats.min_id < 0:
        raise ConfigError(
            f"data.tables.{name}: '{times[0]}' is a time (model.times) and goes down to {stats.min_id}; times are at "
            "least 0: count them from an earlier start in data.samples, and make the table again"
        )
    if "num_embeddings" in options:
        return _table(name, stats, options, dim)
    return replace(_table(name, IdStats(0, -1, 0), options, dim), num_embeddings=max(_MOST_TIMES, stats.max_id + 1))


def _round_up(rows: int) -> int:
    return max(-(-rows // _MULTIPLE) * _MULTIPLE, _MULTIPLE)


def _require_bound(
    name: str, options: Mapping[str, Any], features: Sequence[Feature], bounds: Mapping[str, int]
) -> None:
    """Refuses a table of features that are made, of whose ids the manifest says nothing, where nobody else does."""
    unbounded = [f.name for f in features if f.name not in bounds]
    if unbounded and all(f.made_from for f in features) and "num_embeddings" not in options:
        raise ConfigError(
            f"data.tables.{name}: nothing tells how many ids '{unbounded[0]}' has; end its transforms with "
            f"{{hash: ROWS}}, or set data.tables.{name}.num_embeddings=ROWS"
        )


def _check_limits(name: str, options: Mapping[str, Any], features: list[str], limits: Mapping[str, int]) -> None:
    """Refuses a mapped table whose ids do not reach it as they are: ids that were hashed collide before."""
    limited = [feature for feature in features if feature in limits]
    if options.get("mapped") and limited:
        raise ConfigError(
            f"data.tables.{name}.mapped=true: the transforms of '{limited[0]}' bring its ids into "
            f"[0, {limits[limited[0]]}); leave them out, so that ids come as they are, or leave mapped out"
        )


def _rules(name: str, options: Mapping[str, Any]) -> IdRules | None:
    """How ids of a mapped table come and go; None for a table that is not mapped."""
    where, mapped = f"data.tables.{name}", options.get("mapped", False)
    if not isinstance(mapped, bool):
        raise ConfigError(f"{where}.mapped={mapped}: wanted true or false")
    if not mapped:
        if given := [option for option in _OF_MAPPED if option in options]:
            line = command_line(override(("data", "tables", name, "mapped"), True))
            raise ConfigError(f"{where}.{given[0]}={options[given[0]]}: counts for mapped tables only; add {line}")
        return None
    if options.get("hashed"):
        raise ConfigError(f"{where}: hashed and mapped; keep mapped=true, where no two ids share a row, or hashed=true")
    if options.get("num_embeddings", 2) < 2:
        raise ConfigError(f"{where}.num_embeddings=1: a mapped table keeps one row for unknown ids; write 2 or more")
    admit_after, evict, max_age = options.get("admit_after", 1), options.get("evict", "lru"), options.get("max_age")
    for option, value in (("admit_after", admit_after), ("max_age", max_age)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not 0 < value < _MAX_ROWS):
            raise ConfigError(f"{where}.{option}={value}: wanted a whole number above 0")
    if evict not in EVICTIONS:
        raise ConfigError(f"{where}.evict={evict}: unknown{nearest(str(evict), EVICTIONS)}")
    if evict == "age" and max_age is None:
        raise ConfigError(f"{where}.evict=age: after how many steps? Add {where}.max_age=10000")
    if evict != "age" and max_age is not None:
        raise ConfigError(
            f"{where}.max_age={max_age}: counts with evict=age, found evict={evict}; add {where}.evict=age"
        )
    return IdRules(admit_after, evict, max_age)
