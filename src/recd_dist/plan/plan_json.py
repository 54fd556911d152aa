"""Converts a plan to the JSON that recd plan --save writes and saved_plan reads."""

from collections.abc import Mapping, Sequence
from typing import Any

from recd_dist.embedding.vocabulary.placement import TablePlace
from recd_dist.plan.saved_plan import FORMAT, VERSION
from recd_dist.plan.step_rows import TableUse
from recd_dist.plan.world import World


def plan_to_json(
    uses: Sequence[TableUse], placement: Mapping[str, TablePlace], world: World, numbers: Mapping[str, float]
) -> dict[str, Any]:
    """A plan, ready for JSON.

    Args:
        uses: the tables, with what travels of each.
        placement: where the tables lie.
        world: the ranks of the plan.
        numbers: what the plan costs, for people and for comparing plans.
    """
    tables = {
        u.table: {
            "num_embeddings": u.num_embeddings,
            "dim": u.dim,
            "send": u.send,
            **place_to_json(placement[u.table], world),
        }
        for u in uses
    }
    return {
        "format": FORMAT,
        "version": VERSION,
        "world_size": world.size,
        "local_world_size": world.host_size,
        "exchange": "by_host" if any(u.host_size for u in uses) else "direct",
        "tables": tables,
        "numbers": dict(numbers),
    }


def place_to_json(place: TablePlace, world: World) -> dict[str, Any]:
    """A table's place as the config writes it, such as ``{"type": "TW", "ranks": [0]}``.

    Args:
        place: where the table lies.
        world: the ranks of the plan.
    """
    shards = sorted(place.shards, key=lambda s: (s.column, s.row))
    if place.sharding in ("TW", "CW", "TWCW"):
        return {"type": place.sharding, "ranks": [s.rank for s in shards]}
    hosts = list({s.column: s.rank // world.host_size for s in shards}.values())  # one may hold several column shards
    if place.sharding == "TWRW":
        return {"type": "TWRW", "host": hosts[0]}
    return {"type": place.sharding, "hosts": hosts} if place.sharding == "GRID" else {"type": place.sharding}
