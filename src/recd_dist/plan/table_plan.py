"""The whole plan of a job's tables: where each lies, what travels of it, and what a step then costs.

::

    rows and ids of a batch (StepRows) --.
    figures of device and links (Machine) +--> places --> rows or ids per table --> memory, bytes, milliseconds
    what the config asks for -------------'

A plan is a pure function of its arguments. Training and ``recd plan`` call the same function, and every rank of a job
computes the same plan.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from torchrec.distributed.types import ShardingPlan

from recd_dist.embedding.exchange.classes import Send
from recd_dist.embedding.names import ON_CPU
from recd_dist.embedding.placement import Placed, Placement, placement
from recd_dist.embedding.tables import Embeddings
from recd_dist.plan.choose import MAX_COPIED, SendChoice, choose_send, expanded_places
from recd_dist.plan.describe import Estimate, PlanRow, describe, estimate, place_of, to_json
from recd_dist.plan.machines import Machine
from recd_dist.plan.placing import World, row_wise, rows_reach
from recd_dist.plan.sharding import Sharding, is_planned, place_tables
from recd_dist.plan.step_rows import StepRows, TableUse, table_uses


@dataclass(frozen=True)
class TablePlan:
    """A plan with everything that follows from it.

    Attributes:
        sharding: the plan as TorchRec takes it.
        uses: the tables, with what travels of each.
        choices: why that travels, by table.
        world: the ranks that the plan is for.
        machine: the figures of device and links that it was made with.
        step: rows and ids of one rank's batch.
        rows: one row a table, for people.
        estimate: memory, bytes and milliseconds of a step.
    """

    sharding: ShardingPlan
    uses: tuple[TableUse, ...]
    choices: Mapping[str, SendChoice]
    world: World
    machine: Machine
    step: StepRows
    rows: tuple[PlanRow, ...]
    estimate: Estimate

    @property
    def send(self) -> dict[str, Send]:
        """What travels of each table."""
        return {u.table: u.send for u in self.uses}

    @property
    def placement(self) -> Placement:
        """Where each table lies."""
        return placement(self.sharding)

    def to_json(self) -> dict[str, Any]:
        """The content of the file that ``plan.file`` reads."""
        sides = {"unique": self.estimate.unique, "expanded": self.estimate.expanded}
        numbers = {"rank_mib": self.estimate.rank_bytes / 2**20}
        numbers |= {f"{name}_kb_a_step": side.num_bytes / 1e3 for name, side in sides.items()}
        numbers |= {f"{name}_ms_a_step": side.time.total for name, side in sides.items()}
        return to_json(self.uses, self.placement, self.world, {k: round(v, 3) for k, v in numbers.items()})


def plan_tables(
    embeddings: Embeddings,
    world: World,
    machine: Machine,
    step: StepRows,
    *,
    sharding: Sharding = "auto",
    send: Mapping[str, str] | None = None,
    optimizer: str = "rowwise_adagrad",
    num_dense: int = 0,
) -> TablePlan:
    """Decides where each table lies and what travels of it, and computes what that costs; starts no rank.

    Args:
        embeddings: the tables, on the meta device.
        world: the ranks.
        machine: what a rank's device and links cost.
        step: rows and ids of one rank's batch.
        sharding: what is asked for the tables' places, see ``Sharding``.
        send: ``rows`` or ``ids`` for the tables whose choice is not free.
        optimizer: of the tables.
        num_dense: parameters of the dense layers, whose gradients are all-reduced.

    Raises:
        ConfigError: the plan is not possible; the message names the remedy.
    """
    found = place_tables(embeddings, world, sharding, step=step, machine=machine)
    uses, places = tuple(table_uses(embeddings)), placement(found)
    free = is_planned(sharding, world.device_type) and embeddings.dedup
    others = _row_wise_places(uses, world) if free else {}
    ways = _other_ways(uses, others, copied=free and optimizer in ON_CPU)
    choices = choose_send(uses, places, step, world.size, machine, cast(Mapping[str, Send], send or {}), ways)
    if any(choices[t].place != places[t] for t in places):
        wanted = {t: place_of(c.place, world) for t, c in choices.items()}
        found = place_tables(embeddings, world, wanted, step=step, machine=machine)
    # Expanded batches are costed where they would want the tables.
    expanded = expanded_places(uses, places, others, step, machine) if free else places
    uses = tuple(replace(u, send=choices[u.table].send) for u in uses)
    reasons = {t: c.reason for t, c in choices.items()}
    rows = describe(found, embeddings, uses, world.size, machine, step, optimizer, reasons, expanded)
    costs = estimate(
        uses, placement(found), step, world.size, machine, expanded, optimizer=optimizer, num_dense=num_dense
    )
    return TablePlan(found, uses, choices, world, machine, step, tuple(rows), costs)


def _row_wise_places(uses: Sequence[TableUse], world: World) -> dict[str, Placed]:
    """For each table that has enough rows for the ranks, its row-wise place."""
    reaching = [u for u in uses if rows_reach(u.num_embeddings, world.size, world.device_type)]
    return {u.table: row_wise(u, world) for u in reaching}


def _other_ways(uses: Sequence[TableUse], others: Mapping[str, Placed], *, copied: bool) -> dict[str, list[Placed]]:
    """Places that each table may have instead of its own: row-wise, or a copy on every rank where it is small.

    Args:
        uses: the tables.
        others: row-wise places by table.
        copied: copies are allowed; only some optimizers can update them.
    """
    ways = {u.table: [others[u.table]] if u.table in others else [] for u in uses}
    for use in uses:
        if copied and not use.is_sequence and use.num_embeddings * use.dim <= MAX_COPIED:
            ways[use.table].append(Placed("DP"))
    return ways
