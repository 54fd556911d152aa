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
from torchrec.distributed.embedding import EmbeddingCollectionSharder
from torchrec.distributed.embedding_types import EmbeddingComputeKernel
from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
from torchrec.distributed.types import ParameterSharding, ShardingPlan
from torchrec.modules.embedding_configs import EmbeddingBagConfig
from torchrec.modules.embedding_modules import EmbeddingBagCollection, EmbeddingCollection

from recd_dist.embedding.floor import StepRows, table_uses
from recd_dist.embedding.planning.machines import Machine
from recd_dist.embedding.planning.placing import UNPOOLED, WIDTH_UNIT, World, choices, shards_of
from recd_dist.embedding.planning.planner import torchrec_plan
from recd_dist.embedding.shards import Shard, parameters
from recd_dist.embedding.tables import Embeddings
from recd_dist.embedding.types import TYPES
from recd_dist.errors import ConfigError

Sharding = str | Mapping[str, Any]
"""``auto`` (table-wise on CPU, TorchRec's planner on CUDA), ``planner``, a type for all tables, or per table a type or
a map: ``{type: TW, ranks: [0]}``, ``{type: TWRW, host: 1}``, ``{type: GRID, hosts: [0, 1]}``; ``default`` names the
rest."""


class BagSharder(EmbeddingBagCollectionSharder):
    """Allows row-wise sharding on CPU, which upstream refuses (embedding_types.py:559) and torchrec_patches repairs."""

    def sharding_types(self, compute_device_type: str) -> list[str]:
        """The types that this project offers."""
        del compute_device_type
        return list(TYPES.values())

    def compute_kernels(self, sharding_type: str, compute_device_type: str) -> list[str]:
        """One kernel a type: the planner knows more, which this project does not train with."""
        del compute_device_type
        return [kernel_of(sharding_type)]


class ListSharder(EmbeddingCollectionSharder):
    """The same for un-pooled tables; data-parallel ones fail upstream even for a plain KeyedJaggedTensor."""

    def sharding_types(self, compute_device_type: str) -> list[str]:
        """The types that this project offers for un-pooled tables."""
        del compute_device_type
        return [TYPES[t] for t in UNPOOLED]

    def compute_kernels(self, sharding_type: str, compute_device_type: str) -> list[str]:
        """As for pooled tables."""
        del compute_device_type
        return [kernel_of(sharding_type)]


def kernel_of(sharding_type: str) -> str:
    """The fused kernel of fbgemm, or the dense one whose gradient DDP sums.

    Named, because TorchRec would choose the dense one, which on CPU corrupts the heap for un-pooled tables.
    """
    is_replicated = sharding_type == TYPES["DP"]
    return (EmbeddingComputeKernel.DENSE if is_replicated else EmbeddingComputeKernel.FUSED).value


def plan(
    embeddings: Embeddings,
    world_size: int,
    sharding: Sharding = "auto",
    *,
    step: StepRows | None = None,
    local_world_size: int | None = None,
    device_type: str = "cpu",
    machine: Machine | None = None,
    prefix: str = "embeddings",
) -> ShardingPlan:
    """Decides where each table lies.

    Args:
        embeddings: the tables, on meta or any device, not sharded.
        world_size: ranks of the job.
        sharding: see ``Sharding``.
        step: rows and ids of a batch, from the manifest or a batch; balances the ranks. None: by size only.
        local_world_size: ranks of a host; all when absent.
        device_type: ``cpu`` or ``cuda``.
        machine: memory and bandwidths for TorchRec's planner; its own when absent.
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
    world = World(world_size, min(local_world_size or world_size, world_size), device_type)
    modules = dict(_modules(embeddings, prefix))
    if is_planned(sharding, device_type):
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
                world_size=world_size,
                device_type=device_type,
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


def check_world(found: ShardingPlan, world_size: int) -> None:
    """Refuses a plan that was made for more ranks than there are.

    Raises:
        ConfigError: names the table, its rank and the remedy.
    """
    for table, part in parameters(found):
        ranks = part.ranks or []
        if any(not 0 <= r < world_size for r in ranks):
            raise ConfigError(
                f"plan: table '{table}' lies on rank {max(ranks)}, this job has {world_size} ranks (0 to "
                f"{world_size - 1}); wrong world size for this plan: start more ranks or plan again"
            )


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
