"""The plan of a job's tables: where each lies, what travels of it, and what that costs.

::

    rows and ids of a batch (StepRows) --.
    figures of device and links (Machine) +--> places --> rows or ids per table --> memory, bytes, milliseconds
    what the config asks for -------------'

A plan depends on its arguments only. Training and ``recd plan`` call the same function, and every rank of a job
computes the same plan.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from torchrec.distributed.types import ShardingPlan

from recd_dist.embedding.tables import Embeddings
from recd_dist.embedding.vocabulary.names import CPU_OPTIMIZERS, Send
from recd_dist.embedding.vocabulary.placement import Placement, TablePlace, read_placement
from recd_dist.plan.assign_shards import row_wise_place
from recd_dist.plan.choose_send import MAX_COPIED, TableChoice, choose_send, expanded_places
from recd_dist.plan.machines import Machine
from recd_dist.plan.plan_json import place_to_json, plan_to_json
from recd_dist.plan.plan_summary import PlanEstimate, TableSummary, estimate_plan, summarise_tables
from recd_dist.plan.sharding import Sharding, place_tables, uses_planner
from recd_dist.plan.step_rows import StepRows, TableUse, table_uses
from recd_dist.plan.world import World, can_divide_rows


@dataclass(frozen=True)
class TablePlan:
    """A plan, with all that follows from it.

    Attributes:
        sharding: where the tables lie, as TorchRec takes it.
        uses: the tables, with what travels of each.
        choices: for each table what was chosen, and why.
        world: the ranks that the plan is for.
        machine: the figures of device and links from which the plan was made.
        step: rows and ids of one rank's batch.
        tables: a summary of each table, for people.
        estimate: memory, bytes and milliseconds of a whole step.
    """

    sharding: ShardingPlan
    uses: tuple[TableUse, ...]
    choices: Mapping[str, TableChoice]
    world: World
    machine: Machine
    step: StepRows
    tables: tuple[TableSummary, ...]
    estimate: PlanEstimate

    @property
    def send(self) -> dict[str, Send]:
        """What travels of each table."""
        return {u.table: u.send for u in self.uses}

    @property
    def placement(self) -> Placement:
        """Where each table lies."""
        return read_placement(self.sharding)

    def to_json(self) -> dict[str, Any]:
        """The content of the file that ``plan.file`` names."""
        costs = {"unique": self.estimate.unique, "expanded": self.estimate.expanded}
        numbers = {"rank_mib": self.estimate.rank_bytes / 2**20}
        numbers |= {f"{side}_kb_a_step": cost.num_bytes / 1e3 for side, cost in costs.items()}
        numbers |= {f"{side}_ms_a_step": cost.time.total for side, cost in costs.items()}
        return plan_to_json(self.uses, self.placement, self.world, {k: round(v, 3) for k, v in numbers.items()})


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
    """Decides where each table lies and what travels of it, and estimates what that costs; starts no rank.

    Args:
        embeddings: the tables, on the meta device.
        world: the ranks.
        machine: what a rank's device and links cost.
        step: rows and ids of one rank's batch.
        sharding: what the config asks for the places of the tables, see ``Sharding``.
        send: ``rows`` or ``ids`` for each table for which the config says what travels.
        optimizer: name of the tables' optimizer.
        num_dense: number of parameters of the dense layers; their gradients are all-reduced.

    Raises:
        ConfigError: the plan is not possible; the message names the remedy.
    """
    plan = place_tables(embeddings, world, sharding, step=step, machine=machine)
    uses, places = tuple(table_uses(embeddings)), read_placement(plan)
    is_free = uses_planner(sharding, world.device_type) and embeddings.dedup
    row_wise = _row_wise_places(uses, world) if is_free else {}
    others = _other_places(uses, row_wise, may_copy=is_free and optimizer in CPU_OPTIMIZERS)
    choices = choose_send(uses, places, step, world.size, machine, cast(Mapping[str, Send], send or {}), others)
    if any(choices[t].place != places[t] for t in places):
        wanted = {t: place_to_json(c.place, world) for t, c in choices.items()}
        plan = place_tables(embeddings, world, wanted, step=step, machine=machine)
    # Expanded batches have a placement of their own: the one that suits them.
    expanded = expanded_places(uses, places, row_wise, step, machine) if is_free else places
    uses = tuple(replace(u, send=choices[u.table].send) for u in uses)
    reasons = {t: c.reason for t, c in choices.items()}
    tables = summarise_tables(plan, embeddings, uses, world.size, machine, step, optimizer, reasons, expanded)
    estimate = estimate_plan(
        uses, read_placement(plan), step, world.size, machine, expanded, optimizer=optimizer, num_dense=num_dense
    )
    return TablePlan(plan, uses, choices, world, machine, step, tuple(tables), estimate)


def _row_wise_places(uses: Sequence[TableUse], world: World) -> dict[str, TablePlace]:
    """The row-wise place of each table that has enough rows for all ranks."""
    return {
        u.table: row_wise_place(u, world)
        for u in uses
        if can_divide_rows(u.num_embeddings, world.size, world.device_type)
    }


def _other_places(
    uses: Sequence[TableUse], row_wise: Mapping[str, TablePlace], *, may_copy: bool
) -> dict[str, list[TablePlace]]:
    """For each table the places that it may have instead of its own.

    Args:
        uses: the tables.
        row_wise: the row-wise place of each table that has enough rows.
        may_copy: True if small pooled tables may be copied to every rank; only some optimizers can update copies.
    """
    others = {u.table: [row_wise[u.table]] if u.table in row_wise else [] for u in uses}
    for use in uses:
        if may_copy and not use.is_sequence and use.num_embeddings * use.dim <= MAX_COPIED:
            others[use.table].append(TablePlace("DP"))
    return others
