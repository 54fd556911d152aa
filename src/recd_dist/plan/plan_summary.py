"""A plan as numbers for people: memory, bytes and milliseconds, per table and in all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torchrec.distributed.types import ShardingPlan

from recd_dist.embedding.tables import Embeddings
from recd_dist.embedding.vocabulary.placement import Placement, TablePlace, read_placement
from recd_dist.plan.cost import (
    StepTime,
    dense_flops,
    mean_ms,
    no_work,
    split_bytes,
    step_time,
    table_work,
)
from recd_dist.plan.link_time import split_all_reduce
from recd_dist.plan.machines import Machine
from recd_dist.plan.shard_memory import table_memory
from recd_dist.plan.step_bytes import Array, step_bytes
from recd_dist.plan.step_rows import StepRows, TableUse


@dataclass(frozen=True)
class TableSummary:
    """One table of a plan.

    Attributes:
        table: name of the table.
        num_embeddings: rows of the table.
        dim: columns of the table.
        features: names of the features that look up the table, joined by commas.
        groups: names of the groups of these features, joined by commas.
        send: what travels of the table: ``rows``, ``ids``, or ``samples`` where batches are trained expanded.
        reason: why that travels, in words.
        sharding: short name of the sharding type: TW, RW, CW, TWCW, TWRW, GRID or DP.
        ranks: the ranks that hold a shard; all ranks for DP.
        num_shards: number of rectangles into which the table is cut; for DP the number of copies.
        memory_bytes: bytes of weights and optimizer state on all ranks together.
        rank_bytes: bytes of weights and optimizer state on the rank that holds most of them.
        unique_bytes: bytes that a rank sends in a step by formula, in all directions, if batches are deduplicated;
            0 without statistics.
        expanded_bytes: the same bytes if batches are expanded.
        unique_ms: milliseconds of a step on the mean rank, without latencies and kernel calls, if batches are
            deduplicated; 0 without statistics.
        expanded_ms: the same milliseconds if batches are expanded.
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
class StepCost:
    """What a step costs, either deduplicated or expanded.

    Attributes:
        time: milliseconds of the slowest rank, by part.
        inside_bytes: bytes that the mean rank sends to ranks of its host.
        between_bytes: bytes that the mean rank sends to other hosts.
        copied_bytes: bytes that it sends to other hosts when the gradients of copied tables are summed over all ranks;
            they are not part of the two numbers above.
    """

    time: StepTime
    inside_bytes: float
    between_bytes: float
    copied_bytes: float = 0.0

    @property
    def num_bytes(self) -> float:
        """Bytes that the mean rank sends."""
        return self.inside_bytes + self.between_bytes

    @property
    def bytes_to_other_hosts(self) -> float:
        """Bytes that the mean rank sends to other hosts, gradients of copied tables included."""
        return self.between_bytes + self.copied_bytes


@dataclass(frozen=True)
class PlanEstimate:
    """What a whole plan costs.

    Attributes:
        world_size: number of ranks.
        rank_bytes: bytes of weights and optimizer state of the tables on the rank that holds most of them.
        unique: the cost of a step whose batches are deduplicated and travel through our exchange.
        expanded: the cost of a step whose batches are expanded and travel through plain TorchRec.
        dense_ms: milliseconds of the dense layers by the number of their parameters, on either side; 0 where that
            number is unknown. Attention, products between features, the reader and Python come on top.
    """

    world_size: int
    rank_bytes: int
    unique: StepCost
    expanded: StepCost
    dense_ms: float = 0.0

    @property
    def tables_share(self) -> float:
        """The tables' share of a deduplicated step, from 0 to 1, as far as it is known."""
        return self.unique.time.total / (self.unique.time.total + self.dense_ms)

    @property
    def step_ratio(self) -> float:
        """How many times faster a whole step is for deduplicating, as far as it is known."""
        return (self.expanded.time.total + self.dense_ms) / (self.unique.time.total + self.dense_ms)


def summarise_tables(
    plan: ShardingPlan,
    embeddings: Embeddings,
    uses: Sequence[TableUse],
    world_size: int,
    machine: Machine,
    step: StepRows | None = None,
    optimizer: str = "rowwise_adagrad",
    reasons: Mapping[str, str] | None = None,
    expanded: Placement | None = None,
) -> list[TableSummary]:
    """Summarises each table of a plan, in the order of the schema.

    Args:
        plan: where the tables lie.
        embeddings: the tables.
        uses: the same tables, with what travels of each.
        world_size: number of ranks of the plan.
        machine: what a rank's device and links cost.
        step: rows and ids of one rank's batch; without them bytes and milliseconds are 0.
        optimizer: name of the tables' optimizer, whose states take memory.
        reasons: for each table why its rows or ids travel.
        expanded: where the tables would lie if batches were expanded; as in the plan when absent.
    """
    placement = read_placement(plan)
    summaries = []
    for use in uses:
        place = placement[use.table]
        memory = table_memory(use, place, world_size, optimizer)
        places = {"unique": place, "expanded": (expanded or placement)[use.table]}
        costs = _table_costs(use, places, step, world_size, machine) if step else {}
        summaries.append(
            TableSummary(
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
                **costs,
            )
        )
    return summaries


def _table_costs(
    use: TableUse, places: Mapping[str, TablePlace], step: StepRows, world_size: int, machine: Machine
) -> dict[str, Any]:
    """Bytes and milliseconds of a table, for each side of ``places``: ``unique`` and ``expanded``."""
    costs: dict[str, Any] = {}
    for side, place in places.items():
        dedup = side == "unique"
        costs[f"{side}_bytes"] = round(step_bytes([use], {use.table: place}, step, world_size, dedup=dedup).total)
        costs[f"{side}_ms"] = mean_ms(table_work(use, place, step, world_size, machine, dedup=dedup), machine)
    return costs


def estimate_plan(
    uses: Sequence[TableUse],
    placement: Placement,
    step: StepRows,
    world_size: int,
    machine: Machine,
    expanded: Placement | None = None,
    *,
    optimizer: str = "rowwise_adagrad",
    num_dense: int = 0,
) -> PlanEstimate:
    """Estimates what a whole plan costs.

    Args:
        uses: the tables, with what travels of each.
        placement: where the tables lie.
        step: rows and ids of one rank's batch.
        world_size: number of ranks.
        machine: what a rank's device and links cost.
        expanded: where the tables would lie if batches were expanded; as in ``placement`` when absent.
        optimizer: name of the tables' optimizer.
        num_dense: number of parameters of the dense layers.
    """
    costs = {}
    for dedup, places in ((True, placement), (False, expanded or placement)):
        works = {u.table: table_work(u, places[u.table], step, world_size, machine, dedup=dedup) for u in uses}
        total = sum(works.values(), no_work(world_size))
        time = step_time(uses, places, works, world_size, machine, dedup=dedup, num_dense=num_dense)
        copied = split_all_reduce(total.replicated, world_size, machine)[1]
        costs[dedup] = StepCost(time, *split_bytes(total, machine), copied)
    memory = _rank_memory_bytes(uses, placement, world_size, optimizer)
    dense_ms = dense_flops(num_dense, step.batch_size) / machine.dense_flops_per_s * 1e3
    return PlanEstimate(world_size, int(memory.max()), costs[True], costs[False], dense_ms)


def _rank_memory_bytes(uses: Sequence[TableUse], placement: Placement, world_size: int, optimizer: str) -> Array:
    """Bytes of all tables' weights and optimizer states on each rank, float64 [W]."""
    return sum((table_memory(u, placement[u.table], world_size, optimizer) for u in uses), np.zeros(world_size))
