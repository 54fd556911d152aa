"""A model over ranks: sharded tables with a fused optimizer, dense layers under DDP."""

import logging
from dataclasses import dataclass
from typing import Any

import torch.distributed as dist
from fbgemm_gpu.split_embedding_configs import EmbOptimType
from torch import nn
from torch.optim import SGD, Adagrad, Optimizer
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.distributed.types import ShardingEnv, ShardingPlan
from torchrec.optim.keyed import CombinedOptimizer, KeyedOptimizer, KeyedOptimizerWrapper
from torchrec.optim.rowwise_adagrad import RowWiseAdagrad

from recd_dist.embedding import torchrec_patches
from recd_dist.embedding.gradient_buckets import FixedBucketsWrapper
from recd_dist.embedding.sharded_embeddings import EmbeddingsSharder
from recd_dist.embedding.sharders import BagSharder, ListSharder, check_world
from recd_dist.embedding.tables import portable_name
from recd_dist.embedding.vocabulary.names import CPU_OPTIMIZERS, LOOKUP_KERNELS, LookupKernel, OptimizerName
from recd_dist.errors import ConfigError, nearest
from recd_dist.ranks.process_group import Ranks

logger = logging.getLogger(__name__)

OPTIMIZERS = {
    "sgd": EmbOptimType.EXACT_SGD,
    "adagrad": EmbOptimType.EXACT_ADAGRAD,
    "rowwise_adagrad": EmbOptimType.EXACT_ROWWISE_ADAGRAD,
    "adam": EmbOptimType.ADAM,
    "partial_rowwise_adam": EmbOptimType.PARTIAL_ROWWISE_ADAM,
    "lamb": EmbOptimType.LAMB,
}
"""For each name of ``names.TABLE_OPTIMIZERS`` fbgemm's optimizer."""


@dataclass(frozen=True)
class TableOptimizer:
    """The optimizer of the tables. It runs inside the backward pass (fused), with one exact update per row and step.

    Attributes:
        name: name of the optimizer, one of ``names.TABLE_OPTIMIZERS``.
        lr: learning rate.
        eps: number that is added to the root of the squared gradients; sgd does not use it.
        kernel: what looks the tables up and updates them, one of ``names.LOOKUP_KERNELS``.
    """

    name: OptimizerName = "rowwise_adagrad"
    lr: float = 0.01
    eps: float = 1e-8
    kernel: LookupKernel = "auto"

    def check(self, device_type: str) -> None:
        """Refuses an optimizer that does not exist, or that has no kernel on the device.

        Args:
            device_type: ``cpu`` or ``cuda``.

        Raises:
            ConfigError: the message gives the reason and the names that are possible.
        """
        if self.name not in OPTIMIZERS:
            raise ConfigError(f"table optimizer '{self.name}' is unknown{nearest(self.name, OPTIMIZERS)}")
        if device_type == "cpu" and self.name not in CPU_OPTIMIZERS:
            raise ConfigError(
                f"table optimizer '{self.name}' has no CPU kernel in fbgemm; use {', '.join(CPU_OPTIMIZERS)}, or "
                "device=cuda"
            )
        if self.kernel not in LOOKUP_KERNELS:
            raise ConfigError(f"optim.tables.kernel={self.kernel}: unknown{nearest(self.kernel, LOOKUP_KERNELS)}")
        if self.kernel == "recd" and device_type != "cpu":
            raise ConfigError("optim.tables.kernel=recd: runs on CPU only; use auto or fbgemm with device=cuda")

    def fused_params(self) -> dict[str, Any]:
        """The arguments that TorchRec's sharders take for a fused optimizer."""
        params: dict[str, Any] = {"optimizer": OPTIMIZERS[self.name], "learning_rate": self.lr}
        return params if self.name == "sgd" else {**params, "eps": self.eps}

    def build_plain(self, parameters: list[nn.Parameter]) -> Optimizer:
        """Builds an optimizer that makes the same update outside the backward pass, for data-parallel tables.

        Args:
            parameters: weights of the tables; their gradients are dense.

        Raises:
            ConfigError: there is none for this optimizer.
        """
        if self.name == "sgd":
            return SGD(parameters, lr=self.lr)
        if self.name == "adagrad":
            return Adagrad(parameters, lr=self.lr, eps=self.eps)
        if self.name == "rowwise_adagrad":
            return RowWiseAdagrad(parameters, lr=self.lr, eps=self.eps)
        raise ConfigError(
            f"plan: data-parallel tables take {', '.join(CPU_OPTIMIZERS)}, not '{self.name}'; use TW, RW or CW"
        )


def shard(
    model: nn.Module, plan: ShardingPlan, ranks: Ranks, table_optimizer: TableOptimizer | None = None
) -> DistributedModelParallel:
    """Distributes a model over the ranks of the default process group.

    Args:
        model: a model that holds Embeddings, on the meta device or on CPU, and dense layers. The tables get new
            weights, to be filled by ``initial_weights.initialize_tables``; the dense layers are replicated under DDP.
        plan: where the tables lie, for this number of ranks, from ``plan.sharding.place_tables``; its prefix is the
            path of the embeddings in the model.
        ranks: this process among the ranks.
        table_optimizer: optimizer of the tables; row-wise Adagrad when absent.

    Raises:
        ConfigError: the plan is for more ranks than there are, or the optimizer has no kernel on this device.
    """
    optimizer = table_optimizer or TableOptimizer()
    optimizer.check(ranks.device.type)
    check_world(plan, ranks.world_size)
    torchrec_patches.apply()
    fused = optimizer.fused_params()
    group = dist.GroupMember.WORLD
    if group is None:
        raise RuntimeError("shard: there is no process group; call it inside process_group.process_group()")
    return DistributedModelParallel(
        module=model,
        env=ShardingEnv.from_process_group(group),
        device=ranks.device,
        plan=plan,
        sharders=[
            EmbeddingsSharder(fused_params=fused, lookup=optimizer.kernel),
            BagSharder(fused_params=fused),
            ListSharder(fused_params=fused),
        ],
        data_parallel_wrapper=FixedBucketsWrapper(),
    )


def combine_optimizers(
    model: DistributedModelParallel, dense: KeyedOptimizer | None, table_optimizer: TableOptimizer | None = None
) -> KeyedOptimizer:
    """Combines the optimizers of fused tables, of data-parallel tables and of dense layers to one.

    Args:
        model: what ``shard`` returned.
        dense: optimizer of ``dense_parameters(model)``; None if there are no such parameters.
        table_optimizer: optimizer of the tables, as it was passed to ``shard``.
    """
    tables = {n: p for n, p in _replicated_parameters(model).items() if _is_table(n)}
    parts: list[Any] = [("tables", model.fused_optimizer)]
    if tables:
        build_plain = (table_optimizer or TableOptimizer()).build_plain
        parts.append(("replicated_tables", KeyedOptimizerWrapper(tables, build_plain)))
    if dense is not None:
        parts.append(("dense", dense))
    return CombinedOptimizer(parts)


def dense_parameters(model: DistributedModelParallel) -> dict[str, nn.Parameter]:
    """The parameters of the dense layers by name: all with gradients that are not weights of tables.

    Args:
        model: what ``shard`` returned.
    """
    return {n: p for n, p in _replicated_parameters(model).items() if not _is_table(n)}


def num_replicated_parameters(model: DistributedModelParallel) -> int:
    """How many numbers DDP sums over the ranks: the gradients of dense layers and of data-parallel tables.

    Args:
        model: what ``shard`` returned.
    """
    return sum(p.numel() for p in _replicated_parameters(model).values())


def _replicated_parameters(model: DistributedModelParallel) -> dict[str, nn.Parameter]:
    """By name the parameters that no fused optimizer updates, without the empty ones of other ranks' tables."""
    fused = set(model.fused_optimizer.params)
    return {n: p for n, p in model.named_parameters() if n not in fused and p.requires_grad and p.numel()}


def _is_table(name: str) -> bool:
    """Whether a parameter is the weight of a table: only those have another name in checkpoints."""
    return portable_name(name) != name
