"""TorchRec's planner, with the rows and ids that travel and the speed of the device.

The planner counts samples. If it takes the number of a table's unique rows as the batch size and their ids per row as
the pooling factor, its compute, exchange and memory come out right. For a table of which distinct ids travel, each id
is a row of one id.
"""

import logging
from collections.abc import Mapping
from typing import Any

from torch import nn
from torchrec.distributed.planner import EmbeddingShardingPlanner, ParameterConstraints, Topology
from torchrec.distributed.planner.types import PlannerError
from torchrec.distributed.types import ShardingPlan

from recd_dist.embedding.tables import Embeddings
from recd_dist.embedding.vocabulary.names import SHARDING_TYPES, WIDTH_UNIT
from recd_dist.errors import ConfigError
from recd_dist.plan.machines import Machine
from recd_dist.plan.step_rows import StepRows, TableUse, ids_and_rows, table_uses
from recd_dist.plan.world import World, can_divide_rows


class _PathModule(nn.Module):
    """An empty module, which gives the tables the path that they have in the model."""


def plan_with_torchrec(
    embeddings: Embeddings,
    modules: Mapping[str, tuple[nn.Module, Any]],
    world: World,
    step: StepRows | None,
    machine: Machine | None,
) -> ShardingPlan:
    """Makes a plan with TorchRec's EmbeddingShardingPlanner.

    Args:
        embeddings: the tables.
        modules: for each path a module that TorchRec knows, and its sharder.
        world: the ranks.
        step: rows and ids of one rank's batch; without them the planner guesses.
        machine: memory and bandwidths of a rank; without it the planner uses its own figures.

    Raises:
        ConfigError: the planner finds no plan.
    """
    constraints = {u.table: table_constraints(embeddings, u, step, world) for u in table_uses(embeddings)}
    planner_logger = logging.getLogger("torchrec.distributed.planner")
    level = planner_logger.level
    planner_logger.setLevel(logging.ERROR)
    try:
        planner = EmbeddingShardingPlanner(
            topology=_topology(world, machine),
            batch_size=step.batch_size if step else 512,
            constraints=constraints,
        )
        plan: ShardingPlan = planner.plan(
            module=_build_tree({path: module for path, (module, _) in modules.items()}),
            sharders=[sharder for _, sharder in modules.values()],
        )
    except PlannerError as error:
        raise ConfigError(
            f"plan.sharding=planner: TorchRec's planner found none ({error}); name one, e.g. plan=row_wise"
        ) from error
    finally:
        planner_logger.setLevel(level)
    return plan


def _build_tree(modules: Mapping[str, nn.Module]) -> nn.Module:
    """Builds a module that holds each of the modules at its path."""
    root = _PathModule()
    for path, module in modules.items():
        parent: nn.Module = root
        *names, last = path.split(".")
        for name in names:
            if name not in dict(parent.named_children()):
                parent.add_module(name, _PathModule())
            parent = parent.get_submodule(name)
        parent.add_module(last, module)
    return root


def _topology(world: World, machine: Machine | None) -> Topology:
    """The machines as TorchRec describes them; its bandwidths are bytes a millisecond."""
    own: dict[str, Any] = {}
    if machine is not None:
        memory = "hbm" if world.device_type == "cuda" else "ddr"
        own = {
            f"{memory}_cap": int(machine.memory_bytes),
            f"{memory}_mem_bw": machine.gather_bytes_per_s / 1000,
            "intra_host_bw": machine.inside_bytes_per_s / 1000,
            "inter_host_bw": machine.between_bytes_per_s / 1000,
        }
    return Topology(world_size=world.size, compute_device=world.device_type, local_world_size=world.host_size, **own)


def table_constraints(
    embeddings: Embeddings, use: TableUse, step: StepRows | None, world: World
) -> ParameterConstraints:
    """What the planner must know of a table: the sharding types on offer, and rows and ids of a step.

    Args:
        embeddings: the tables.
        use: the table.
        step: rows and ids of one rank's batch; without them the planner guesses.
        world: the ranks.
    """
    can_split = use.dim % (2 * WIDTH_UNIT) == 0
    types = ["TW"] + ["RW"] * can_divide_rows(use.num_embeddings, world.size) + ["CW"] * can_split
    if not use.is_sequence and world.num_hosts > 1 and world.size % world.host_size == 0 and embeddings.dedup:
        types += ["TWRW"] * can_divide_rows(use.num_embeddings, world.host_size)
    options: dict[str, Any] = {}
    if step is not None:
        num_keys = 1 if embeddings.dedup else len(use.features)
        ids, pooled = ids_and_rows(use, step, dedup=embeddings.dedup)
        rows = max(1.0, ids if pooled is None else pooled)
        if use.is_sequence and not embeddings.dedup:  # TorchRec knows that these lists are not summed up
            rows = step.num_rows(use.features, dedup=False)
        options = {
            "pooling_factors": [max(ids / rows, 1e-3)] * num_keys,
            "num_poolings": [1.0] * num_keys,
            "batch_sizes": [max(1, round(rows / num_keys))] * num_keys,
        }
    names = [SHARDING_TYPES[t] for t in types]
    return ParameterConstraints(sharding_types=names, min_partition=min(64, use.dim // 2), **options)
