"""From a job to its plan: rows counted in a few batches, tables placed, what travels chosen, all of it costed.

::

    manifest, a few batches --> StepRows --.
    config, topology, costs --> Machine ---+--> plan --> rows or ids per table --> memory, bytes, milliseconds

Training and ``recd plan`` call the same function, and every rank of a job computes the same plan.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torchrec.distributed.types import ShardingPlan

from recd_dist import assembly
from recd_dist.embedding.exchange.classes import Send
from recd_dist.embedding.floor import StepRows, TableUse, table_uses
from recd_dist.embedding.plan import Sharding, is_planned, plan
from recd_dist.embedding.planning.choose import MAX_COPIED, SendChoice, choose_send, expanded_places
from recd_dist.embedding.planning.describe import Estimate, PlanRow, describe, estimate, place_of, to_json
from recd_dist.embedding.planning.machines import Machine, machine_of
from recd_dist.embedding.planning.placing import World, row_wise, rows_reach
from recd_dist.embedding.planning.saved import Saved, load
from recd_dist.embedding.shard import ON_CPU
from recd_dist.embedding.shards import Placed, Placement, placement
from recd_dist.job import Job


@dataclass(frozen=True)
class Planned:
    """A plan with all that it follows from.

    Attributes:
        sharding: as TorchRec takes it.
        uses: the tables, with what travels of each.
        choices: why.
        world: ranks it is for.
        machine: figures of device and links.
        step: rows and ids of one rank's batch.
        rows: table by table, for people.
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
        """What ``plan.file`` reads."""
        sides = {"unique": self.estimate.unique, "expanded": self.estimate.expanded}
        numbers = {"rank_mib": self.estimate.rank_bytes / 2**20}
        numbers |= {f"{name}_kb_a_step": side.num_bytes / 1e3 for name, side in sides.items()}
        numbers |= {f"{name}_ms_a_step": side.time.total for name, side in sides.items()}
        return to_json(self.uses, self.placement, self.world, {k: round(v, 3) for k, v in numbers.items()})


def planned(
    job: Job,
    world_size: int,
    *,
    local_world_size: int | None = None,
    device_type: str | None = None,
    step: StepRows | None = None,
) -> Planned:
    """Where each table of a job lies, what travels of it, and what that costs; starts no rank.

    Args:
        job: resolved config.
        world_size: ranks.
        local_world_size: ranks of a host; the topology's when absent.
        device_type: ``cpu`` or ``cuda``; the topology's, or what the config and this machine say, when absent.
        step: rows and ids of a batch; counted in a few batches of the table when absent.

    Raises:
        ConfigError: a plan that is not possible, with the remedy.
    """
    wanted = job.config.plan
    machine = machine_of(
        wanted.topology, device_type or _device_type(job), Path(wanted.costs) if wanted.costs else None
    )
    if local_world_size is not None:
        machine = replace(machine, ranks_per_host=local_world_size)
    device_type = device_type or machine.device_type
    world = World(world_size, machine.local_world_size(world_size), device_type)
    step = step or assembly.step_rows(job)
    saved = _saved(job, world)
    embeddings = assembly.tables_of(job, job.dedup)
    wanted_sharding = saved.sharding if saved else assembly.sharding(job)

    def placed(sharding: Sharding) -> ShardingPlan:
        return plan(
            embeddings,
            world_size,
            sharding,
            step=step,
            local_world_size=world.local,
            device_type=device_type,
            machine=machine,
        )

    found = placed(wanted_sharding)
    uses, places = table_uses(embeddings), placement(found)
    pinned = cast(Mapping[str, Send], {**(saved.send if saved else {}), **wanted.send})
    free = is_planned(wanted_sharding, device_type) and embeddings.dedup
    splittable = [u for u in uses if free and rows_reach(u.num_embeddings, world_size, device_type)]
    others = {u.table: row_wise(u, world) for u in splittable}
    copied = job.config.optim.tables.name in ON_CPU  # the others have no update for copies
    ways = {u.table: [others[u.table]] if u.table in others else [] for u in uses}
    for use in uses:
        if free and copied and not use.is_sequence and use.num_embeddings * use.dim <= MAX_COPIED:
            ways[use.table].append(Placed("DP"))
    choices = choose_send(uses, places, step, world_size, machine, pinned, ways)
    if any(choices[t].place != places[t] for t in places):
        found = placed({t: place_of(c.place, world) for t, c in choices.items()})
    expanded = expanded_places(uses, places, others, step, machine) if free else places
    return _described(job, found, expanded, choices, world, machine, step)


def _described(
    job: Job,
    found: ShardingPlan,
    expanded: Placement,
    choices: Mapping[str, SendChoice],
    world: World,
    machine: Machine,
    step: StepRows,
) -> Planned:
    """A plan with its numbers; expanded batches are costed where they would want the tables."""
    embeddings = assembly.tables_of(job, job.dedup, send={t: c.send for t, c in choices.items()})
    uses, optimizer = tuple(table_uses(embeddings)), job.config.optim.tables.name
    reasons = {t: c.reason for t, c in choices.items()}
    return Planned(
        found,
        uses,
        choices,
        world,
        machine,
        step,
        tuple(describe(found, embeddings, world.size, machine, step, optimizer, reasons, expanded)),
        estimate(
            uses, placement(found), step, world.size, machine, expanded, optimizer=optimizer, num_dense=_num_dense(job)
        ),
    )


def simulate(job: Job, world_sizes: Iterable[int], step: StepRows) -> list[Estimate]:
    """How a step grows with the ranks, each with a batch of its own; every size gets a plan of its own.

    Args:
        job: resolved config.
        world_sizes: ranks.
        step: rows and ids of one rank's batch.
    """
    return [planned(job, size, step=step).estimate for size in world_sizes]


def _device_type(job: Job) -> str:
    """Where a job without a topology would run."""
    device = job.config.device
    return device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"


def _saved(job: Job, world: World) -> Saved | None:
    """The plan that the config names."""
    if not job.config.plan.file:
        return None
    found = load(Path(job.config.plan.file))
    found.check({t.name: (t.num_embeddings, t.dim) for t in job.tables.values()}, world.size, world.local)
    return found


def _num_dense(job: Job) -> int:
    """Parameters of the dense layers."""
    return sum(p.numel() for p in assembly.train_model(job, job.dedup).head.parameters())
