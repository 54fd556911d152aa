"""What the config asks for each table: a sharding type, perhaps with ranks or hosts."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recd_dist.embedding.vocabulary.names import PLACE_OPTIONS, SHARDING_TYPES, UNPOOLED_TYPES, WIDTH_UNIT
from recd_dist.errors import ConfigError, nearest
from recd_dist.plan.step_rows import TableUse
from recd_dist.plan.world import World, can_divide_rows

logger = logging.getLogger(__name__)

PLAIN_CPU_TYPES = ("TW", "RW", "CW", "TWCW", "DP")
"""Sharding types that plain TorchRec can run on gloo; its others fail when ranks hold different numbers of rows."""


@dataclass(frozen=True)
class WantedSharding:
    """What the config asks for one table.

    Attributes:
        type: short name of the sharding type.
        places: the ranks that hold the table (the hosts, for TWRW and GRID). None: those with the least load.
    """

    type: str
    places: tuple[int, ...] | None = None


def parse_sharding(
    uses: Sequence[TableUse], world: World, sharding: str | Mapping[str, Any], dedup: bool
) -> dict[str, WantedSharding]:
    """Reads for each table the sharding type and the ranks or hosts that the config asks for.

    A table that has too few rows for a type is placed table-wise, with a warning, unless the config names the table.

    Args:
        uses: the tables.
        world: the ranks.
        sharding: one type for all tables, or for each table a type or a map such as ``{type: TW, ranks: [0]}``.
        dedup: True where batches travel through our exchange, False where they travel through plain TorchRec.

    Raises:
        ConfigError: there is no such table, type, option, rank or host, or the table cannot be split like that.
    """
    by_table = {"default": sharding} if isinstance(sharding, str) else dict(sharding)
    default = by_table.pop("default", "TW")
    tables = {u.table: u for u in uses}
    for table in by_table:
        if table not in tables:
            raise ConfigError(f"plan: no table '{table}'{nearest(table, tables)}")
    wanted = {}
    for use in uses:
        asked = _parse_table(use, by_table.get(use.table, default), world, dedup)
        num_ranks = {"RW": world.size, "TWRW": world.host_size, "GRID": world.host_size}.get(asked.type, 1)
        if not can_divide_rows(use.num_embeddings, num_ranks, world.device_type):
            few = f"plan: table '{use.table}' has {use.num_embeddings} rows, too few to reach all "
            if use.table in by_table:
                raise ConfigError(f"{few}{num_ranks} ranks in equal blocks; use TW, CW or DP for it")
            logger.warning("%s%d ranks row-wise: it is placed table-wise", few, num_ranks)
            asked = WantedSharding("TW")
        wanted[use.table] = asked
    return wanted


def _parse_table(use: TableUse, value: Any, world: World, dedup: bool) -> WantedSharding:
    """Reads what the config says of one table."""
    options = dict(value) if isinstance(value, Mapping) else {"type": value}
    sharding_type = _parse_type(use, str(options.pop("type", "TW")))
    _check_type(use, sharding_type, world, dedup)
    option = PLACE_OPTIONS.get(sharding_type)
    known = ["type", *filter(None, [option])]
    if unknown := [name for name in options if name not in known]:
        if unknown[0] in PLACE_OPTIONS.values():
            asked = f"{unknown[0]}={options[unknown[0]]}"
            hint = f"name {option}" if option else "its shards lie on all ranks"
            raise ConfigError(f"plan.{use.table}: {asked} does not fit {SHARDING_TYPES[sharding_type]}; {hint}")
        raise ConfigError(f"plan.{use.table}: unknown option '{unknown[0]}'{nearest(unknown[0], known)}")
    if option is None or options.get(option) is None:
        return WantedSharding(sharding_type)
    named = options[option]
    places = tuple(int(p) for p in (named if isinstance(named, Sequence) else [named]))
    _check_places(use, sharding_type, option, places, world, dedup)
    return WantedSharding(sharding_type, places)


def _parse_type(use: TableUse, name: str) -> str:
    """The short name of a sharding type, which the config may write in capitals, in small letters or in full."""
    for short, long in SHARDING_TYPES.items():
        if name in (long, short, short.lower()):
            return short
    known = [*SHARDING_TYPES, *SHARDING_TYPES.values()]
    raise ConfigError(f"plan.{use.table}={name}: unknown sharding type{nearest(name, known)}")


def _check_type(use: TableUse, sharding_type: str, world: World, dedup: bool) -> None:
    """Refuses a sharding type that the table cannot have."""
    name = SHARDING_TYPES[sharding_type]
    if use.is_sequence and sharding_type not in UNPOOLED_TYPES:
        verb = "cannot replicate" if sharding_type == "DP" else f"has no {name} sharding of"
        raise ConfigError(
            f"plan.{use.table}={sharding_type}: TorchRec {verb} un-pooled tables (and '{use.table}' serves "
            f"{', '.join(use.features)}); use TW, RW or CW"
        )
    if not dedup and world.device_type == "cpu" and sharding_type not in PLAIN_CPU_TYPES:
        raise ConfigError(
            f"plan.{use.table}={sharding_type}: with dedup=off tables are exchanged by TorchRec, whose {name} sharding "
            "fails on gloo when ranks hold different numbers of rows; use TW, RW or CW, or dedup=on"
        )
    if sharding_type in ("TWRW", "GRID") and world.size % world.host_size:
        raise ConfigError(
            f"plan.{use.table}={sharding_type}: wants hosts of equal size, {world.size} ranks are {world.num_hosts} "
            f"hosts of {world.host_size}, the last with fewer; use another type, or start a multiple of "
            f"{world.host_size} ranks"
        )


def _check_places(
    use: TableUse, sharding_type: str, option: str, places: Sequence[int], world: World, dedup: bool
) -> None:
    """Refuses ranks or hosts that do not exist, or that do not fit the sharding type or the table's width."""
    if not places or (sharding_type in ("TW", "TWRW") and len(places) != 1):
        raise ConfigError(
            f"plan.{use.table}: {option}={list(places)} does not fit {SHARDING_TYPES[sharding_type]}; "
            "name one rank for TW, one host for TWRW, several for CW and GRID"
        )
    what, size = ("host", world.num_hosts) if option != "ranks" else ("rank", world.size)
    if wrong := [p for p in places if not 0 <= p < size]:
        raise ConfigError(
            f"plan.{use.table}: {what} {wrong[0]} is named, this job has {size} {what}{'s'[: size > 1]} (0 to "
            f"{size - 1}); wrong world size for this plan: start more ranks or plan again"
        )
    if sharding_type == "TWCW" and len({p // world.host_size for p in places}) > 1:
        raise ConfigError(
            f"plan.{use.table}: ranks={list(places)} are of several hosts of {world.host_size} ranks, "
            f"{SHARDING_TYPES[sharding_type]} keeps a table on one; use CW"
        )
    if sharding_type == "TWRW":
        return
    cannot = f"plan.{use.table}: {use.dim} columns cannot be split over {len(places)} {what}s"
    if len(places) * WIDTH_UNIT > use.dim:
        raise ConfigError(f"{cannot}; a shard has at least {WIDTH_UNIT} of them: name {use.dim // WIDTH_UNIT} or fewer")
    is_even = use.dim % (len(places) * WIDTH_UNIT) == 0
    if not is_even and not dedup:
        raise ConfigError(
            f"{cannot} evenly, as TorchRec's own exchange (dedup=off) wants them: their number must divide "
            f"{use.dim // WIDTH_UNIT}"
        )
    if not is_even and len(set(places)) < len(places):
        raise ConfigError(
            f"{cannot} evenly, and TorchRec's kernels want shards of one width where a {what} has several: name each "
            f"{what} once"
        )
