"""What a config says of each table, and the shards that follow: named places as asked for, free ones by load."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recd_dist.embedding.names import TYPES, UNPOOLED, WIDTH_UNIT
from recd_dist.embedding.placement import Placed, Shard
from recd_dist.errors import ConfigError, nearest
from recd_dist.plan.step_rows import StepRows, TableUse, ids_and_rows

logger = logging.getLogger(__name__)


PLAIN_ON_CPU = ("TW", "RW", "CW", "TWCW", "DP")
"""Types of plain TorchRec on gloo; the others fail upstream when ranks hold different numbers of rows."""

_OPTIONS = {"TW": "ranks", "CW": "ranks", "TWCW": "ranks", "TWRW": "host", "GRID": "hosts"}
"""What each type can be told; row-wise and data-parallel tables lie on every rank."""


@dataclass(frozen=True)
class World:
    """The ranks that tables are spread over.

    Attributes:
        size: ranks.
        local: ranks of a host.
        device_type: ``cpu`` or ``cuda``.
    """

    size: int
    local: int
    device_type: str = "cpu"

    @staticmethod
    def of_one_host(size: int, device_type: str = "cpu") -> "World":
        """All ranks on one host."""
        return World(size, size, device_type)

    @property
    def num_hosts(self) -> int:
        """Hosts, the last perhaps with fewer ranks."""
        return -(-self.size // self.local)


@dataclass(frozen=True)
class Choice:
    """What is asked for a table.

    Attributes:
        sharding: short name of the type.
        places: ranks, or hosts for TWRW and GRID; None leaves them to the load.
    """

    sharding: str
    places: tuple[int, ...] | None = None


def choices(
    uses: Sequence[TableUse], world: World, sharding: str | Mapping[str, Any], dedup: bool
) -> dict[str, Choice]:
    """For each table its type and the places asked for.

    Args:
        uses: the tables.
        world: the ranks.
        sharding: a type for all tables, or per table a type or a map such as ``{type: TW, ranks: [0]}``.
        dedup: through our exchange; False: through plain TorchRec.

    Raises:
        ConfigError: a table, type or option that does not exist, or a place or split that is not possible.
    """
    named = {"default": sharding} if isinstance(sharding, str) else dict(sharding)
    default = named.pop("default", "TW")
    tables = {u.table: u for u in uses}
    for table in named:
        if table not in tables:
            raise ConfigError(f"plan: no table '{table}'{nearest(table, tables)}")
    chosen = {}
    for use in uses:
        choice = _choice(use, named.get(use.table, default), world, dedup)
        over = {"RW": world.size, "TWRW": world.local, "GRID": world.local}.get(choice.sharding, 1)
        if not rows_reach(use.num_embeddings, over, world.device_type):
            few = f"plan: table '{use.table}' has {use.num_embeddings} rows, too few to reach all "
            if use.table in named:
                raise ConfigError(f"{few}{over} ranks in equal blocks; use TW, CW or DP for it")
            logger.warning("%s%d ranks row-wise: it is placed table-wise", few, over)
            choice = Choice("TW")
        chosen[use.table] = choice
    return chosen


def rows_reach(num_embeddings: int, num_ranks: int, device_type: str = "cpu") -> bool:
    """Whether a table's rows can be divided into equal blocks, one a rank: on CPU every rank must get a row.

    fbgemm's CPU backward reads past its table sizes where a shard is empty (embedding_backward_split_cpu_template.cpp,
    ``get_hash_size``): sometimes an error about 2B rows, sometimes garbage.
    """
    return device_type != "cpu" or -(-num_embeddings // num_ranks) * (num_ranks - 1) < num_embeddings


def row_wise(use: TableUse, world: World) -> Placed:
    """A table whose rows are divided over all ranks."""
    return Placed("RW", tuple(s for s in _rows(use, range(world.size), 0, use.dim) if s.num_rows))


def _choice(use: TableUse, value: Any, world: World, dedup: bool) -> Choice:
    """A table's type and the places asked for, if any."""
    options = dict(value) if isinstance(value, Mapping) else {"type": value}
    given = str(options.pop("type", "TW"))
    kind = next((short for short, long in TYPES.items() if given in (long, short, short.lower())), None)
    if kind is None:
        raise ConfigError(f"plan.{use.table}={given}: unknown sharding type{nearest(given, [*TYPES, *TYPES.values()])}")
    _check_type(use, kind, world, dedup)
    option = _OPTIONS.get(kind)
    known = ["type", *filter(None, [option])]
    if unknown := [name for name in options if name not in known]:
        if unknown[0] in _OPTIONS.values():
            place = f"{unknown[0]}={options[unknown[0]]}"
            hint = f"name {option}" if option else "its shards lie on all ranks"
            raise ConfigError(f"plan.{use.table}: {place} does not fit {TYPES[kind]}; {hint}")
        raise ConfigError(f"plan.{use.table}: unknown option '{unknown[0]}'{nearest(unknown[0], known)}")
    if option is None or options.get(option) is None:
        return Choice(kind)
    found = options[option]
    places = tuple(int(p) for p in (found if isinstance(found, Sequence) else [found]))
    _check_places(use, kind, option, places, world)
    return Choice(kind, places)


def _check_type(use: TableUse, kind: str, world: World, dedup: bool) -> None:
    """Refuses a type that a table cannot have."""
    if use.is_sequence and kind not in UNPOOLED:
        verb = "cannot replicate" if kind == "DP" else f"has no {TYPES[kind]} sharding of"
        raise ConfigError(
            f"plan.{use.table}={kind}: TorchRec {verb} un-pooled tables (and '{use.table}' serves "
            f"{', '.join(use.features)}); use TW, RW or CW"
        )
    if not dedup and world.device_type == "cpu" and kind not in PLAIN_ON_CPU:
        raise ConfigError(
            f"plan.{use.table}={kind}: with dedup=off tables are exchanged by TorchRec, whose {TYPES[kind]} sharding "
            "fails on gloo when ranks hold different numbers of rows; use TW, RW or CW, or dedup=on"
        )
    if kind in ("TWRW", "GRID") and world.size % world.local:
        raise ConfigError(
            f"plan.{use.table}={kind}: wants hosts of equal size, {world.size} ranks are {world.num_hosts} hosts of "
            f"{world.local}, the last with fewer; use another type, or start a multiple of {world.local} ranks"
        )


def _check_places(use: TableUse, kind: str, option: str, places: Sequence[int], world: World) -> None:
    """Refuses ranks or hosts that are not there, or do not go with the type and the width."""
    if not places or (kind in ("TW", "TWRW") and len(places) != 1):
        raise ConfigError(
            f"plan.{use.table}: {option}={list(places)} does not fit {TYPES[kind]}; "
            "name one rank for TW, one host for TWRW, several for CW and GRID"
        )
    what, size = ("host", world.num_hosts) if option != "ranks" else ("rank", world.size)
    if wrong := [p for p in places if not 0 <= p < size]:
        raise ConfigError(
            f"plan.{use.table}: {what} {wrong[0]} is named, this job has {size} {what}{'s'[: size > 1]} (0 to "
            f"{size - 1}); "
            "wrong world size for this plan: start more ranks or plan again"
        )
    if kind == "TWCW" and len({p // world.local for p in places}) > 1:
        raise ConfigError(
            f"plan.{use.table}: ranks={list(places)} are of several hosts of {world.local} ranks, {TYPES[kind]} keeps "
            "a table on one; use CW"
        )
    if kind != "TWRW" and use.dim % (len(places) * WIDTH_UNIT):
        raise ConfigError(
            f"plan.{use.table}: {use.dim} columns cannot be split over {len(places)} {what}s; each shard's width must "
            f"be a multiple of {WIDTH_UNIT}"
        )


def shards_of(
    uses: Sequence[TableUse], world: World, chosen: Mapping[str, Choice], step: StepRows | None, dedup: bool
) -> dict[str, tuple[Shard, ...]]:
    """Each table's shards; where places are free, the largest table goes first, to the idlest rank or host.

    Args:
        uses: the tables.
        world: the ranks.
        chosen: from ``choices``.
        step: rows and ids of a batch; None weighs tables by their size.
        dedup: as in ``choices``.
    """
    load = [0.0] * world.size
    weights = {u.table: _load(u, step, dedup) for u in uses}
    found: dict[str, tuple[Shard, ...]] = {}
    for use in sorted(uses, key=lambda u: -weights[u.table]):
        choice = chosen[use.table]
        if choice.sharding == "DP":
            found[use.table] = ()
            continue
        found[use.table] = shards = tuple(_SHARDS[choice.sharding](use, choice.places, world, load))
        for shard in shards:
            share = shard.num_rows * shard.num_columns / (use.num_embeddings * use.dim)
            load[shard.rank] += weights[use.table] * share
    return found


def _load(use: TableUse, step: StepRows | None, dedup: bool) -> float:
    """What a table costs the rank that holds it: bytes gathered and sent a step, or its size without statistics."""
    if step is None:
        return float(use.num_embeddings * use.dim)
    ids, rows = ids_and_rows(use, step, dedup=dedup)
    return (ids + 2 * (ids if rows is None else rows)) * use.dim * 4.0


Places = tuple[int, ...] | None


def _table_wise(use: TableUse, places: Places, world: World, load: Sequence[float]) -> list[Shard]:
    ranks = places or _idlest(range(world.size), load.__getitem__)
    return _columns(use, ranks[:1])


def _column_wise(use: TableUse, places: Places, world: World, load: Sequence[float]) -> list[Shard]:
    ranks = places or _idlest(range(world.size), load.__getitem__)
    return _columns(use, ranks if places else ranks[: _num_columns(use, len(ranks))])


def _table_column_wise(use: TableUse, places: Places, world: World, load: Sequence[float]) -> list[Shard]:
    if places:
        return _columns(use, places)
    host = _idlest_hosts(world, load)[0]
    ranks = _idlest(_ranks_of(host, world), load.__getitem__)
    return _columns(use, ranks[: _num_columns(use, len(ranks))])


def _row_wise(use: TableUse, places: Places, world: World, load: Sequence[float]) -> list[Shard]:
    del places, load
    return _rows(use, range(world.size), 0, use.dim)


def _table_row_wise(use: TableUse, places: Places, world: World, load: Sequence[float]) -> list[Shard]:
    (host,) = places or _idlest_hosts(world, load)[:1]
    return _rows(use, _ranks_of(host, world), 0, use.dim)


def _grid(use: TableUse, places: Places, world: World, load: Sequence[float]) -> list[Shard]:
    hosts = places or _idlest_hosts(world, load)[: _num_columns(use, world.num_hosts)]
    width = use.dim // len(hosts)
    return [s for n, host in enumerate(hosts) for s in _rows(use, _ranks_of(host, world), n * width, width)]


_SHARDS: dict[str, Callable[[TableUse, Places, World, Sequence[float]], list[Shard]]] = {
    "TW": _table_wise,
    "CW": _column_wise,
    "TWCW": _table_column_wise,
    "RW": _row_wise,
    "TWRW": _table_row_wise,
    "GRID": _grid,
}


def _columns(use: TableUse, ranks: Sequence[int]) -> list[Shard]:
    width = use.dim // len(ranks)
    return [Shard(rank, 0, use.num_embeddings, n * width, width) for n, rank in enumerate(ranks)]


def _rows(use: TableUse, ranks: Sequence[int], column: int, num_columns: int) -> list[Shard]:
    """Blocks of equal height, as TorchRec cuts them; the last may be lower, or empty."""
    height = -(-use.num_embeddings // len(ranks))
    starts = [min(n * height, use.num_embeddings) for n in range(len(ranks) + 1)]
    return [Shard(r, starts[n], starts[n + 1] - starts[n], column, num_columns) for n, r in enumerate(ranks)]


def _num_columns(use: TableUse, most: int) -> int:
    """Column shards of a table whose number is free: as many as its width allows."""
    units = use.dim // WIDTH_UNIT
    return max(n for n in range(1, min(most, units) + 1) if units % n == 0)


def _idlest(places: Sequence[int], load: Callable[[int], float]) -> tuple[int, ...]:
    return tuple(sorted(places, key=lambda p: (load(p), p)))


def _idlest_hosts(world: World, load: Sequence[float]) -> tuple[int, ...]:
    return _idlest(range(world.num_hosts), lambda host: sum(load[r] for r in _ranks_of(host, world)))


def _ranks_of(host: int, world: World) -> range:
    return range(host * world.local, min((host + 1) * world.local, world.size))
