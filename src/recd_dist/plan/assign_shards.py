"""Shards of tables, cut by sharding type and assigned to named or least loaded ranks."""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

from recd_dist.embedding.vocabulary.names import WIDTH_UNIT
from recd_dist.embedding.vocabulary.placement import Shard
from recd_dist.plan.step_rows import StepRows, TableUse, ids_and_rows
from recd_dist.plan.wanted_sharding import WantedSharding
from recd_dist.plan.world import World

Named = tuple[int, ...] | None
"""The ranks or hosts that the config names for a table, or None where it leaves them open."""


def assign_shards(
    uses: Sequence[TableUse], world: World, wanted: Mapping[str, WantedSharding], step: StepRows | None, dedup: bool
) -> dict[str, tuple[Shard, ...]]:
    """Cuts each table into shards and assigns each shard to a rank.

    The tables with the highest load come first. Where the config leaves the ranks open, a table goes to the rank or
    the host that has the least load so far.

    Args:
        uses: the tables.
        world: the ranks.
        wanted: for each table what ``parse_sharding`` read.
        step: rows and ids of one rank's batch; without them the load of a table is its size.
        dedup: True where batches travel through our exchange, False where they travel through plain TorchRec.

    Returns:
        For each table its shards; none for a table of which every rank holds a copy.
    """
    rank_loads = [0.0] * world.size
    table_loads = {u.table: _table_load(u, step, dedup) for u in uses}
    assigned: dict[str, tuple[Shard, ...]] = {}
    for use in sorted(uses, key=lambda u: -table_loads[u.table]):
        sharding = wanted[use.table]
        if sharding.type == "DP":
            assigned[use.table] = ()
            continue
        assigned[use.table] = shards = tuple(_ASSIGN[sharding.type](use, sharding.places, world, rank_loads))
        for shard in shards:
            share = shard.num_rows * shard.num_columns / (use.num_embeddings * use.dim)
            rank_loads[shard.rank] += table_loads[use.table] * share
    return assigned


def _table_load(use: TableUse, step: StepRows | None, dedup: bool) -> float:
    """What a table costs the rank that holds it: bytes gathered and sent in a step, or its size without statistics."""
    if step is None:
        return float(use.num_embeddings * use.dim)
    ids, rows = ids_and_rows(use, step, dedup=dedup)
    return (ids + 2 * (ids if rows is None else rows)) * use.dim * 4.0


def _assign_table_wise(use: TableUse, named: Named, world: World, loads: Sequence[float]) -> list[Shard]:
    ranks = named or _sort_by_load(range(world.size), loads.__getitem__)
    return cut_columns(use, ranks[:1])


def _assign_column_wise(use: TableUse, named: Named, world: World, loads: Sequence[float]) -> list[Shard]:
    ranks = named or _sort_by_load(range(world.size), loads.__getitem__)
    return cut_columns(use, ranks if named else ranks[: _num_column_shards(use, len(ranks))])


def _assign_table_column_wise(use: TableUse, named: Named, world: World, loads: Sequence[float]) -> list[Shard]:
    if named:
        return cut_columns(use, named)
    host = _sort_hosts_by_load(world, loads)[0]
    ranks = _sort_by_load(world.ranks_of(host), loads.__getitem__)
    return cut_columns(use, ranks[: _num_column_shards(use, len(ranks))])


def _assign_row_wise(use: TableUse, named: Named, world: World, loads: Sequence[float]) -> list[Shard]:
    del named, loads
    return cut_rows(use, range(world.size), 0, use.dim)


def _assign_table_row_wise(use: TableUse, named: Named, world: World, loads: Sequence[float]) -> list[Shard]:
    (host,) = named or _sort_hosts_by_load(world, loads)[:1]
    return cut_rows(use, world.ranks_of(host), 0, use.dim)


def _assign_grid(use: TableUse, named: Named, world: World, loads: Sequence[float]) -> list[Shard]:
    hosts = named or _sort_hosts_by_load(world, loads)[: _num_column_shards(use, world.num_hosts)]
    spans = cut_width(use.dim, len(hosts))
    return [s for host, span in zip(hosts, spans, strict=True) for s in cut_rows(use, world.ranks_of(host), *span)]


_ASSIGN: dict[str, Callable[[TableUse, Named, World, Sequence[float]], list[Shard]]] = {
    "TW": _assign_table_wise,
    "CW": _assign_column_wise,
    "TWCW": _assign_table_column_wise,
    "RW": _assign_row_wise,
    "TWRW": _assign_table_row_wise,
    "GRID": _assign_grid,
}
"""For each sharding type that cuts tables the function that assigns a table's shards."""


def cut_width(dim: int, num_shards: int) -> list[tuple[int, int]]:
    """Cuts a table's columns into shards as equal in width as the kernels allow, the wider ones first.

    Args:
        dim: number of the table's columns, a multiple of WIDTH_UNIT.
        num_shards: number of the shards, at most one for each WIDTH_UNIT columns.

    Returns:
        For each shard its first column and the number of its columns.
    """
    units, rest = divmod(dim // WIDTH_UNIT, num_shards)
    ends = [WIDTH_UNIT * (n * units + min(n, rest)) for n in range(num_shards + 1)]
    return [(start, end - start) for start, end in pairwise(ends)]


def cut_columns(use: TableUse, ranks: Sequence[int]) -> list[Shard]:
    """Column shards, one for each of the ranks.

    Args:
        use: the table.
        ranks: the ranks, in the order of the columns.
    """
    spans = cut_width(use.dim, len(ranks))
    return [Shard(rank, 0, use.num_embeddings, *span) for rank, span in zip(ranks, spans, strict=True)]


def cut_rows(use: TableUse, ranks: Sequence[int], column: int, num_columns: int) -> list[Shard]:
    """Blocks of equal height, one for each of the ranks, as TorchRec cuts them; the last may be lower, or empty.

    Args:
        use: the table.
        ranks: the ranks, in the order of the rows.
        column: first column of the shards.
        num_columns: number of their columns.
    """
    height = -(-use.num_embeddings // len(ranks))
    starts = [min(n * height, use.num_embeddings) for n in range(len(ranks) + 1)]
    return [Shard(r, starts[n], starts[n + 1] - starts[n], column, num_columns) for n, r in enumerate(ranks)]


def _num_column_shards(use: TableUse, most: int) -> int:
    """How many column shards a table gets where the config leaves that open: as many as its width allows."""
    units = use.dim // WIDTH_UNIT
    return max(n for n in range(1, min(most, units) + 1) if units % n == 0)


def _sort_by_load(places: Sequence[int], load: Callable[[int], float]) -> tuple[int, ...]:
    """Ranks or hosts, those with the least load first."""
    return tuple(sorted(places, key=lambda p: (load(p), p)))


def _sort_hosts_by_load(world: World, loads: Sequence[float]) -> tuple[int, ...]:
    return _sort_by_load(range(world.num_hosts), lambda host: sum(loads[r] for r in world.ranks_of(host)))
