"""A plan as numbers for people: each table's place, memory, bytes and milliseconds, and what a whole step comes to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torchrec.distributed.types import ShardingPlan

from recd_dist.embedding.placement import Placed, Placement, placement
from recd_dist.embedding.tables import Embeddings
from recd_dist.plan.cost import Array, StepTime, mean_ms, no_work, split_bytes, step_time, work_of
from recd_dist.plan.machines import Machine
from recd_dist.plan.placing import World
from recd_dist.plan.saved import FORMAT, VERSION
from recd_dist.plan.step_bytes import step_bytes
from recd_dist.plan.step_rows import StepRows, TableUse


@dataclass(frozen=True)
class PlanRow:
    """One table of a plan.

    Attributes:
        table, num_embeddings, dim, features, groups: what it is; ``features`` and ``groups`` joined by commas.
        send, reason: what travels of it, and why.
        sharding: TW, RW, CW, TWCW, TWRW, GRID or DP.
        ranks: where its shards lie; all ranks for DP.
        num_shards: rectangles it is cut into.
        memory_bytes: weights and optimizer state over all ranks.
        rank_bytes: the same on the rank that holds most of it.
        unique_bytes, expanded_bytes: sent a step by one rank, input, output and backward, by formula; 0 without
            statistics.
        unique_ms, expanded_ms: of a step on the mean rank, latencies and kernel calls apart.
    """

    table: str
    num_embeddings: int
    dim: int
    features: str
    groups: str
    send: str
    reason: str
    sharding: str
    ranks: tuple[int, ...]
    num_shards: int
    memory_bytes: int
    rank_bytes: int
    unique_bytes: int = 0
    expanded_bytes: int = 0
    unique_ms: float = 0.0
    expanded_ms: float = 0.0


@dataclass(frozen=True)
class Side:
    """What a step costs, deduplicated or expanded.

    Attributes:
        time: of the slowest rank.
        inside_bytes, between_bytes: sent by the mean rank to ranks of its host and to other hosts.
    """

    time: StepTime
    inside_bytes: float
    between_bytes: float

    @property
    def num_bytes(self) -> float:
        """Sent by the mean rank."""
        return self.inside_bytes + self.between_bytes


@dataclass(frozen=True)
class Estimate:
    """What a whole plan comes to.

    Attributes:
        world_size: ranks.
        rank_bytes: weights and optimizer state of the tables on the rank that holds most.
        unique, expanded: a step, deduplicated through our exchange and expanded through plain TorchRec.
    """

    world_size: int
    rank_bytes: int
    unique: Side
    expanded: Side


def describe(
    found: ShardingPlan,
    embeddings: Embeddings,
    uses: Sequence[TableUse],
    world_size: int,
    machine: Machine,
    step: StepRows | None = None,
    optimizer: str = "rowwise_adagrad",
    reasons: Mapping[str, str] | None = None,
    expanded: Placement | None = None,
) -> list[PlanRow]:
    """A plan as rows, in schema order.

    Args:
        found: a plan.
        embeddings: the tables it was made for.
        uses: the same tables, with what travels of each.
        world_size: ranks it was made for.
        machine: what a rank's device and links cost.
        step: rows and ids of one rank's batch; None leaves bytes and milliseconds 0.
        optimizer: of the tables, for the memory.
        reasons: by table, why its rows or ids travel.
        expanded: where tables would lie if batches were expanded; the same when absent.
    """
    placed = placement(found)
    rows = []
    for use in uses:
        place = placed[use.table]
        memory = table_memory(use, place, world_size, optimizer)
        sides = {"unique": place, "expanded": (expanded or placed)[use.table]}
        numbers = _numbers(use, sides, step, world_size, machine) if step else {}
        rows.append(
            PlanRow(
                table=use.table,
                num_embeddings=use.num_embeddings,
                dim=use.dim,
                features=", ".join(use.features),
                groups=", ".join(dict.fromkeys(embeddings.schema[f].group for f in use.features)),
                send=use.send if embeddings.dedup else "samples",
                reason=(reasons or {}).get(use.table, ""),
                sharding=place.sharding,
                ranks=place.ranks or tuple(range(world_size)),
                num_shards=len(place.shards) or world_size,
                memory_bytes=int(memory.sum()),
                rank_bytes=int(memory.max()),
                **numbers,
            )
        )
    return rows


def _numbers(
    use: TableUse, sides: Mapping[str, Placed], step: StepRows, world_size: int, machine: Machine
) -> dict[str, Any]:
    """Bytes and milliseconds of a table, unique and expanded."""
    numbers: dict[str, Any] = {}
    for name, place in sides.items():
        dedup = name == "unique"
        numbers[f"{name}_bytes"] = round(step_bytes([use], {use.table: place}, step, world_size, dedup=dedup).total)
        numbers[f"{name}_ms"] = mean_ms(work_of(use, place, step, world_size, machine, dedup=dedup), machine)
    return numbers


def estimate(
    uses: Sequence[TableUse],
    placed: Placement,
    step: StepRows,
    world_size: int,
    machine: Machine,
    expanded: Placement | None = None,
    *,
    optimizer: str = "rowwise_adagrad",
    num_dense: int = 0,
) -> Estimate:
    """What a plan comes to.

    Args:
        uses: the tables.
        placed: where they lie.
        step: rows and ids of one rank's batch.
        world_size: ranks.
        machine: what a rank's device and links cost.
        expanded: where they would lie if batches were expanded; the same when absent.
        optimizer: of the tables.
        num_dense: parameters of the dense layers.
    """
    sides = {}
    for dedup, places in ((True, placed), (False, expanded or placed)):
        works = {u.table: work_of(u, places[u.table], step, world_size, machine, dedup=dedup) for u in uses}
        every = sum(works.values(), no_work(world_size))
        time = step_time(uses, places, works, world_size, machine, dedup=dedup, num_dense=num_dense)
        sides[dedup] = Side(time, *split_bytes(every, machine))
    memory = rank_memory(uses, placed, world_size, optimizer)
    return Estimate(world_size, int(memory.max()), sides[True], sides[False])


def rank_memory(uses: Sequence[TableUse], placed: Placement, world_size: int, optimizer: str) -> Array:
    """Bytes of weights and optimizer state on each rank, float [W].

    Args:
        uses: the tables.
        placed: where they lie.
        world_size: W.
        optimizer: of the tables.
    """
    return sum((table_memory(u, placed[u.table], world_size, optimizer) for u in uses), np.zeros(world_size))


def table_memory(use: TableUse, place: Placed, world_size: int, optimizer: str) -> Array:
    """One table's bytes on each rank, float [W]."""
    found = np.zeros(world_size)
    for shard in place.shards:
        found[shard.rank] += _shard_bytes(shard.num_rows, shard.num_columns, optimizer)
    return found if place.shards else found + _shard_bytes(use.num_embeddings, use.dim, optimizer)


def _shard_bytes(num_rows: int, num_columns: int, optimizer: str) -> float:
    """Weights and optimizer state; row-wise states are kept once per shard and row."""
    numbers = num_rows * num_columns
    states = {
        "sgd": 0,
        "rowwise_adagrad": num_rows,
        "adagrad": numbers,
        "partial_rowwise_adam": numbers + num_rows,
    }
    return 4.0 * (numbers + states.get(optimizer, 2 * numbers))


def to_json(
    uses: Sequence[TableUse], placed: Mapping[str, Placed], world: World, numbers: Mapping[str, float]
) -> dict[str, Any]:
    """A plan, JSON-ready.

    Args:
        uses: the tables and what travels of them.
        placed: where they lie.
        world: the ranks.
        numbers: what it comes to, for people and for comparing.
    """
    tables = {
        u.table: {
            "num_embeddings": u.num_embeddings,
            "dim": u.dim,
            "send": u.send,
            **place_of(placed[u.table], world),
        }
        for u in uses
    }
    return {
        "format": FORMAT,
        "version": VERSION,
        "world_size": world.size,
        "local_world_size": world.local,
        "tables": tables,
        "numbers": dict(numbers),
    }


def place_of(place: Placed, world: World) -> dict[str, Any]:
    """A table's place as the config writes it: ``{"type": "TW", "ranks": [0]}``."""
    columns = sorted(place.shards, key=lambda s: (s.column, s.row))
    if place.sharding in ("TW", "CW", "TWCW"):
        return {"type": place.sharding, "ranks": [s.rank for s in columns]}
    hosts = list(dict.fromkeys(s.rank // world.local for s in columns))
    if place.sharding == "TWRW":
        return {"type": "TWRW", "host": hosts[0]}
    return {"type": place.sharding, "hosts": hosts} if place.sharding == "GRID" else {"type": place.sharding}
