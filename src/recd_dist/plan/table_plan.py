"""The plan of a job's tables: where each lies, what travels of it, and what that costs.

::

    rows and ids of a batch (StepRows) --.
    figures of device and links (Machine) +--> places --> rows or ids per table --> memory, bytes, milliseconds
    what the config asks for -------------'

A plan depends on its arguments only. Training and ``recd plan`` call the same function, and every rank of a job
computes the same plan.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

from torchrec.distributed.types import ShardingPlan

from recd_dist.embedding.tables import Embeddings
from recd_dist.embedding.vocabulary.names import EXCHANGES, ExchangeName, Send
from recd_dist.embedding.vocabulary.placement import Placement, read_placement
from recd_dist.errors import ConfigError, nearest
from recd_dist.plan.choose_places import choose_places
from recd_dist.plan.choose_send import TableChoice, choose_send, explain_choice
from recd_dist.plan.machines import Machine
from recd_dist.plan.plan_json import plan_to_json
from recd_dist.plan.plan_summary import PlanEstimate, TableSummary, estimate_plan, summarise_tables
from recd_dist.plan.sharding import Sharding, build_plan, place_tables, uses_planner
from recd_dist.plan.step_rows import StepRows, TableUse, table_uses
from recd_dist.plan.world import World


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
    def exchange(self) -> ExchangeName:
        """How batches travel."""
        return "by_host" if any(u.host_size for u in self.uses) else "direct"

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
    exchange: str = "auto",
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
        exchange: ``direct``, ``by_host``, or ``auto`` for the cheaper of the two where the planner is free, and
            ``direct`` elsewhere.
        optimizer: name of the tables' optimizer.
        num_dense: number of parameters of the dense layers; their gradients are all-reduced.

    Raises:
        ConfigError: the plan is not possible; the message names the remedy.
    """
    uses, pinned = tuple(table_uses(embeddings)), cast(Mapping[str, Send], send or {})
    _check_exchange(exchange, world, embeddings.dedup)
    by_host = tuple(replace(u, host_size=world.host_size) for u in uses)
    if uses_planner(sharding, world.device_type) and embeddings.dedup:
        ways = {"direct": [uses], "by_host": [by_host]}.get(exchange, [uses, by_host] if _has_hosts(world) else [uses])
        # Expanded batches, with which a step is compared, have the places that suit them.
        plain = choose_places([uses], world, machine, step, optimizer=optimizer, dedup=False)
        expanded: Placement = {t: a.place for t, a in plain.ledger.chosen.items()}
        search = choose_places(ways, world, machine, step, optimizer=optimizer, pinned=pinned, expanded=plain)
        uses = tuple(search.uses)
        plan = build_plan(embeddings, world, {t: a.place for t, a in search.ledger.chosen.items()})
        choices = {u.table: explain_choice(u, search.ledger, pinned, search.reason(u.table)) for u in uses}
    else:
        plan = place_tables(embeddings, world, sharding, step=step, machine=machine)
        expanded = read_placement(plan)
        uses = by_host if exchange == "by_host" else uses
        choices = choose_send(uses, expanded, step, world.size, machine, pinned)
    uses = tuple(replace(u, send=choices[u.table].send) for u in uses)
    reasons = {t: c.reason for t, c in choices.items()}
    tables = summarise_tables(plan, embeddings, uses, world.size, machine, step, optimizer, reasons, expanded)
    estimate = estimate_plan(
        uses, read_placement(plan), step, world.size, machine, expanded, optimizer=optimizer, num_dense=num_dense
    )
    return TablePlan(plan, uses, choices, world, machine, step, tuple(tables), estimate)


def _has_hosts(world: World) -> bool:
    """Whether there are several hosts, of as many ranks each, so that batches can travel inside the host first."""
    return 1 < world.host_size < world.size and not world.size % world.host_size


def _check_exchange(exchange: str, world: World, dedup: bool) -> None:
    """Refuses an exchange that does not exist, or that these ranks cannot have."""
    if exchange not in ("auto", *EXCHANGES):
        raise ConfigError(f"plan.exchange={exchange}: unknown{nearest(exchange, ('auto', *EXCHANGES))}")
    if exchange == "by_host" and not _has_hosts(world):
        raise ConfigError(
            f"plan.exchange=by_host: wants several hosts with as many ranks each, these are {world.size} ranks on "
            f"{world.num_hosts} host{'s'[: world.num_hosts > 1]} of up to {world.host_size}; use plan.exchange=auto"
        )
    if exchange == "by_host" and not dedup:
        raise ConfigError("plan.exchange=by_host: with dedup=off tables are exchanged by TorchRec; use dedup=on")
