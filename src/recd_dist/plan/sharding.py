"""Where each table lies: explicit sharding per table, or TorchRec's planner told how few rows really travel.

A plan is a pure function of sizes and statistics: ``recd plan`` prints one for any number of ranks without starting
them, and every rank of a job computes the same one.
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

from recd_dist.embedding.names import TYPES, WIDTH_UNIT
from recd_dist.embedding.placement import Shard
from recd_dist.embedding.sharders import BagSharder, ListSharder, kernel_of
from recd_dist.embedding.tables import Embeddings
from recd_dist.errors import ConfigError
from recd_dist.plan.machines import Machine
from recd_dist.plan.placing import World, choices, shards_of
from recd_dist.plan.step_rows import StepRows, table_uses
from recd_dist.plan.torchrec_planner import torchrec_plan

Sharding = str | Mapping[str, Any]
"""``auto`` (table-wise on CPU, TorchRec's planner on CUDA), ``planner``, a type for all tables, or per table a type or
a map: ``{type: TW, ranks: [0]}``, ``{type: TWRW, host: 1}``, ``{type: GRID, hosts: [0, 1]}``; ``default`` names the
rest."""


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
        embeddings: the tables, on meta or any device, not sharded.
        world: the ranks of the job, and their device.
        sharding: what is asked for, see ``Sharding``.
        step: rows and ids of a batch, from the manifest or a batch; they balance the ranks. Without them, sizes do.
        machine: memory and bandwidths for TorchRec's planner; its own figures when absent.
        prefix: where the embeddings stand in the model.

    Returns:
        With ``dedup`` on one module plan under ``prefix`` that holds every table; else one for each TorchRec module.

    Raises:
        ConfigError: an unknown table or type, a rank outside the world, a width that cannot be split, data-parallel
            un-pooled tables, or a plan that does not fit in memory.
    """
    for table in embeddings.tables.values():
        if table.dim % WIDTH_UNIT:
            raise ConfigError(
                f"tables.{table.name}.dim={table.dim}: the embedding kernels want a multiple of {WIDTH_UNIT}; "
                f"use {-(-table.dim // WIDTH_UNIT) * WIDTH_UNIT}"
            )
    modules = dict(_modules(embeddings, prefix))
    if is_planned(sharding, world.device_type):
        return torchrec_plan(embeddings, modules, world, step, machine)
    sharding = "table_wise" if sharding == "auto" else sharding
    uses = table_uses(embeddings)
    chosen = choices(uses, world, sharding, embeddings.dedup)
    shards = shards_of(uses, world, chosen, step, embeddings.dedup)
    return ShardingPlan(
        {
            path: sharding_plan.construct_module_sharding_plan(
                module,
                {t: _generator(chosen[t].sharding, shards[t]) for t in _tables_of(module)},
                sharder,
                local_size=world.local,
                world_size=world.size,
                device_type=world.device_type,
            )
            for path, (module, sharder) in modules.items()
        }
    )


def is_planned(sharding: Sharding, device_type: str) -> bool:
    """Whether TorchRec's planner places the tables.

    Not on CPU by itself: on gloo a row-wise table sends (W - 1) times its rows, a table-wise one (W - 1) / W times, and
    the planner, which has no figures for CPU hosts, chose row-wise even for tables of ten rows.
    """
    return sharding == "planner" or (sharding == "auto" and device_type == "cuda")


def _modules(embeddings: Embeddings, prefix: str) -> Iterator[tuple[str, tuple[nn.Module, Any]]]:
    """Path of everything that is sharded, a module with its tables as TorchRec knows them, and a sharder.

    With ``dedup`` on, Embeddings are sharded as one; a stand-in on meta holds all their tables, a feature each.
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


def _tables_of(module: nn.Module) -> list[str]:
    configs: Any = module.embedding_configs if isinstance(module, EmbeddingCollection) else module.embedding_bag_configs
    return [c.name for c in configs()]


def _generator(sharding: str, shards: Sequence[Shard]) -> Callable[..., ParameterSharding]:
    """What ``construct_module_sharding_plan`` asks for a table."""
    if sharding == "DP":
        return sharding_plan.data_parallel()

    def parameter(
        param: nn.Parameter, local_size: int, world_size: int, device_type: str, sharder: Any
    ) -> ParameterSharding:
        del param, world_size, sharder
        parts = [
            ShardMetadata(
                shard_offsets=[s.row, s.column],
                shard_sizes=[s.num_rows, s.num_columns],
                placement=sharding_plan.placement(device_type, s.rank, local_size),
            )
            for s in shards
        ]
        return ParameterSharding(
            sharding_type=TYPES[sharding],
            compute_kernel=kernel_of(TYPES[sharding]),
            ranks=[s.rank for s in shards],
            sharding_spec=EnumerableShardingSpec(parts),
        )

    return parameter
