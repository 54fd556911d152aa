"""TorchRec's sharding plan of the tables, from the config or from a planner.

A plan depends on sizes and statistics only: ``recd plan`` prints one for any number of ranks without starting them, and
every rank of a job computes the same one.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.distributed._shard.metadata import ShardMetadata
from torch.distributed._shard.sharding_spec import EnumerableShardingSpec
from torchrec.distributed import sharding_plan
from torchrec.distributed.types import ParameterSharding, ShardingPlan
from torchrec.modules.embedding_configs import EmbeddingBagConfig
from torchrec.modules.embedding_modules import EmbeddingBagCollection, EmbeddingCollection

from recd_dist.embedding.sharders import BagSharder, ListSharder, kernel_of
from recd_dist.embedding.tables import Embeddings
from recd_dist.embedding.vocabulary.names import SHARDING_TYPES, WIDTH_UNIT
from recd_dist.embedding.vocabulary.placement import Placement, Shard, TablePlace
from recd_dist.errors import ConfigError
from recd_dist.plan.assign_shards import assign_shards
from recd_dist.plan.choose_places import choose_places
from recd_dist.plan.machines import Machine, find_machine
from recd_dist.plan.step_rows import StepRows, table_uses
from recd_dist.plan.torchrec_planner import plan_with_torchrec
from recd_dist.plan.wanted_sharding import parse_sharding
from recd_dist.plan.world import World

Sharding = str | Mapping[str, Any]
"""What the config asks for the places of the tables.

``auto`` is table-wise on CPU and the planner on CUDA; ``planner`` is the search of ``choose_places.py``, or with
``dedup`` off TorchRec's planner. Any other string is one sharding type for all tables. A map has for each table a type
or a map such as ``{type: TW, ranks: [0]}``, ``{type: TWRW, host: 1}`` or ``{type: GRID, hosts: [0, 1]}``; its key
``default`` is for the tables that it does not name.
"""


def place_tables(
    embeddings: Embeddings,
    world: World,
    sharding: Sharding = "auto",
    *,
    step: StepRows | None = None,
    machine: Machine | None = None,
    prefix: str = "embeddings",
) -> ShardingPlan:
    """Decides where each table lies.

    Args:
        embeddings: the tables, not sharded yet, on the meta device or any other.
        world: the ranks of the job, and their device.
        sharding: what the config asks for, see ``Sharding``.
        step: rows and ids of one rank's batch, by which the load of the ranks is balanced; without them, the sizes of
            the tables are balanced.
        machine: memory and bandwidths of a rank, for the planner; the figures of the world's device when absent.
        prefix: path of the embeddings in the model.

    Returns:
        The plan. With ``dedup`` on it has one module plan, under ``prefix``, that holds every table; with ``dedup`` off
        it has a module plan for each TorchRec module.

    Raises:
        ConfigError: a table or sharding type does not exist, a rank lies outside the world, a width cannot be split,
            an un-pooled table would be data-parallel, or no plan fits in memory.
    """
    for table in embeddings.tables.values():
        if table.dim % WIDTH_UNIT:
            raise ConfigError(
                f"tables.{table.name}.dim={table.dim}: the embedding kernels want a multiple of {WIDTH_UNIT}; "
                f"use {-(-table.dim // WIDTH_UNIT) * WIDTH_UNIT}"
            )
    modules = dict(_sharded_modules(embeddings, prefix))
    uses = table_uses(embeddings)
    if uses_planner(sharding, world.device_type):
        if not embeddings.dedup:
            return plan_with_torchrec(embeddings, modules, world, step, machine)
        known = machine or find_machine(None, world.device_type)
        search = choose_places([uses], world, known, step or StepRows.unknown(uses), pinned=embeddings.send)
        return build_plan(embeddings, world, {t: a.place for t, a in search.ledger.chosen.items()}, prefix)
    sharding = "table_wise" if sharding == "auto" else sharding
    wanted = parse_sharding(uses, world, sharding, embeddings.dedup)
    shards = assign_shards(uses, world, wanted, step, embeddings.dedup)
    return build_plan(embeddings, world, {t: TablePlace(wanted[t].type, shards[t]) for t in shards}, prefix)


def build_plan(embeddings: Embeddings, world: World, placement: Placement, prefix: str = "embeddings") -> ShardingPlan:
    """Builds the plan that TorchRec takes.

    Args:
        embeddings: the tables.
        world: the ranks of the job, and their device.
        placement: where the tables lie.
        prefix: path of the embeddings in the model.
    """
    return ShardingPlan(
        {
            path: sharding_plan.construct_module_sharding_plan(
                module,
                {t: _parameter_sharding(placement[t].sharding, placement[t].shards) for t in _table_names(module)},
                sharder,
                local_size=world.host_size,
                world_size=world.size,
                device_type=world.device_type,
            )
            for path, (module, sharder) in _sharded_modules(embeddings, prefix)
        }
    )


def uses_planner(sharding: Sharding, device_type: str) -> bool:
    """Whether a planner places the tables: our search, or with ``dedup`` off TorchRec's planner.

    On CPU, ``auto`` places tables whole: a plan is then the same on every machine, whatever its figures are.

    Args:
        sharding: what the config asks for.
        device_type: ``cpu`` or ``cuda``.
    """
    return sharding == "planner" or (sharding == "auto" and device_type == "cuda")


def _sharded_modules(embeddings: Embeddings, prefix: str) -> Iterator[tuple[str, tuple[nn.Module, Any]]]:
    """For each module that is sharded: its path, a module with its tables as TorchRec knows them, and its sharder.

    With ``dedup`` on, Embeddings are sharded as one module. A stand-in on the meta device then holds all tables, with
    one feature for each.
    """
    if embeddings.dedup:
        configs = [
            EmbeddingBagConfig(name=t, embedding_dim=s.dim, num_embeddings=s.num_embeddings, feature_names=[t])
            for t, s in embeddings.tables.items()
        ]
        yield prefix, (EmbeddingBagCollection(tables=configs, device=torch.device("meta")), BagSharder())
        return
    for name, module in embeddings.pooled.items():
        yield f"{prefix}.pooled.{name}", (module, BagSharder())
    if embeddings.sequences is not None:
        yield f"{prefix}.sequences", (embeddings.sequences, ListSharder())


def _table_names(module: nn.Module) -> list[str]:
    configs: Any = module.embedding_configs if isinstance(module, EmbeddingCollection) else module.embedding_bag_configs
    return [c.name for c in configs()]


def _parameter_sharding(sharding: str, shards: Sequence[Shard]) -> Callable[..., ParameterSharding]:
    """The function that ``construct_module_sharding_plan`` calls for a table with these shards."""
    if sharding == "DP":
        return sharding_plan.data_parallel()

    def build(
        param: nn.Parameter, local_size: int, world_size: int, device_type: str, sharder: Any
    ) -> ParameterSharding:
        del param, world_size, sharder
        rectangles = [
            ShardMetadata(
                shard_offsets=[s.row, s.column],
                shard_sizes=[s.num_rows, s.num_columns],
                placement=sharding_plan.placement(device_type, s.rank, local_size),
            )
            for s in shards
        ]
        return ParameterSharding(
            sharding_type=SHARDING_TYPES[sharding],
            compute_kernel=kernel_of(SHARDING_TYPES[sharding]),
            ranks=[s.rank for s in shards],
            sharding_spec=EnumerableShardingSpec(rectangles),
        )

    return build
