"""TorchRec's planner, told what it cannot know: how few rows and ids of each table travel, and how fast this device is.

It knows batches by samples: told the unique rows of a table as its batch and their ids as its pooling factor, it scales
compute, exchange and memory rightly. A table of which distinct ids are sent has them as rows of one id.
"""

import logging
from collections.abc import Mapping
from typing import Any

from torch import nn
from torchrec.distributed.planner import EmbeddingShardingPlanner, ParameterConstraints, Topology
from torchrec.distributed.planner.types import PlannerError
from torchrec.distributed.types import ShardingPlan

from recd_dist.embedding.names import TYPES, WIDTH_UNIT
from recd_dist.embedding.tables import Embeddings
from recd_dist.errors import ConfigError
from recd_dist.plan.machines import Machine
from recd_dist.plan.placing import World, rows_reach
from recd_dist.plan.step_rows import StepRows, TableUse, ids_and_rows, table_uses


class _Holder(nn.Module):
    """Gives the tables the path that they have in the model."""


def torchrec_plan(
    embeddings: Embeddings,
    modules: Mapping[str, tuple[nn.Module, Any]],
    world: World,
    step: StepRows | None,
    machine: Machine | None,
) -> ShardingPlan:
    """The plan that TorchRec's EmbeddingShardingPlanner finds.

    Args:
        embeddings: the tables.
        modules: by path a module that TorchRec knows, and its sharder.
        world: the ranks.
        step: rows and ids of a batch; None lets it guess.
        machine: memory and bandwidths; its own figures when absent.

    Raises:
        ConfigError: it finds none.
    """
    constraints = {u.table: _constraints(embeddings, u, step, world) for u in table_uses(embeddings)}
    noisy = logging.getLogger("torchrec.distributed.planner")
    level = noisy.level
    noisy.setLevel(logging.ERROR)
    try:
        planner = EmbeddingShardingPlanner(
            topology=_topology(world, machine),
            batch_size=step.batch_size if step else 512,
            constraints=constraints,
        )
        found: ShardingPlan = planner.plan(
            module=_tree({path: module for path, (module, _) in modules.items()}),
            sharders=[sharder for _, sharder in modules.values()],
        )
    except PlannerError as error:
        raise ConfigError(
            f"plan.sharding=planner: TorchRec's planner found none ({error}); name one, e.g. plan=row_wise"
        ) from error
    finally:
        noisy.setLevel(level)
    return found


def _tree(modules: Mapping[str, nn.Module]) -> nn.Module:
    """Modules at their paths."""
    root = _Holder()
    for path, module in modules.items():
        parent: nn.Module = root
        *names, last = path.split(".")
        for name in names:
            if name not in dict(parent.named_children()):
                parent.add_module(name, _Holder())
            parent = parent.get_submodule(name)
        parent.add_module(last, module)
    return root


def _topology(world: World, machine: Machine | None) -> Topology:
    """The machines in TorchRec's words, bytes a millisecond."""
    own: dict[str, Any] = {}
    if machine is not None:
        memory = "hbm" if world.device_type == "cuda" else "ddr"
        own = {
            f"{memory}_cap": int(machine.memory_bytes),
            f"{memory}_mem_bw": machine.gather_bytes_per_s / 1000,
            "intra_host_bw": machine.inside_bytes_per_s / 1000,
            "inter_host_bw": machine.between_bytes_per_s / 1000,
        }
    return Topology(world_size=world.size, compute_device=world.device_type, local_world_size=world.local, **own)


def _constraints(embeddings: Embeddings, use: TableUse, step: StepRows | None, world: World) -> ParameterConstraints:
    """What the planner must know of a table: types offered, rows and ids of a step."""
    splits = use.dim % (2 * WIDTH_UNIT) == 0
    types = ["TW"] + ["RW"] * rows_reach(use.num_embeddings, world.size) + ["CW"] * splits
    if not use.is_sequence and world.num_hosts > 1 and world.size % world.local == 0 and embeddings.dedup:
        types += ["TWRW"] * rows_reach(use.num_embeddings, world.local)
    options: dict[str, Any] = {}
    if step is not None:
        keys = 1 if embeddings.dedup else len(use.features)
        ids, pooled = ids_and_rows(use, step, dedup=embeddings.dedup)
        rows = max(1.0, ids if pooled is None else pooled)
        if use.is_sequence and not embeddings.dedup:  # TorchRec knows that these lists are not summed up
            rows = step.num_rows(use.features, dedup=False)
        options = {
            "pooling_factors": [max(ids / rows, 1e-3)] * keys,
            "num_poolings": [1.0] * keys,
            "batch_sizes": [max(1, round(rows / keys))] * keys,
        }
    names = [TYPES[t] for t in types]
    return ParameterConstraints(sharding_types=names, min_partition=min(64, use.dim // 2), **options)
