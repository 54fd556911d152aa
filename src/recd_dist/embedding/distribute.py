"""A model with Embeddings -> DistributedModelParallel: sharded tables with a fused optimizer, the rest under DDP."""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch.distributed as dist
from fbgemm_gpu.split_embedding_configs import EmbOptimType
from torch import nn
from torch.optim import SGD, Adagrad, Optimizer
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.distributed.types import ShardingEnv, ShardingPlan
from torchrec.optim.keyed import CombinedOptimizer, KeyedOptimizer, KeyedOptimizerWrapper
from torchrec.optim.rowwise_adagrad import RowWiseAdagrad

from recd_dist.embedding import torchrec_patches
from recd_dist.embedding.names import ON_CPU
from recd_dist.embedding.sharded_embeddings import EmbeddingsSharder
from recd_dist.embedding.sharders import BagSharder, ListSharder, check_world
from recd_dist.embedding.tables import portable_name
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


@dataclass(frozen=True)
class TableOptimizer:
    """The optimizer of the tables, run inside the backward pass (fused): one exact update per row and step.

    Attributes:
        name: a key of OPTIMIZERS.
        lr: learning rate.
        eps: added to the root of the squared gradients; not used by sgd.
    """

    name: Literal["sgd", "adagrad", "rowwise_adagrad", "adam", "partial_rowwise_adam", "lamb"] = "rowwise_adagrad"
    lr: float = 0.01
    eps: float = 1e-8

    def check(self, device_type: str) -> None:
        """Refuses an optimizer that does not exist or has no kernel on the device.

        Raises:
            ConfigError: with the reason and the names that would do.
        """
        if self.name not in OPTIMIZERS:
            raise ConfigError(f"table optimizer '{self.name}' is unknown{nearest(self.name, OPTIMIZERS)}")
        if device_type == "cpu" and self.name not in ON_CPU:
            raise ConfigError(
                f"table optimizer '{self.name}' has no CPU kernel in fbgemm; use {', '.join(ON_CPU)}, or device=cuda"
            )

    def fused_params(self) -> dict[str, Any]:
        """What TorchRec's sharders want."""
        params: dict[str, Any] = {"optimizer": OPTIMIZERS[self.name], "learning_rate": self.lr}
        return params if self.name == "sgd" else {**params, "eps": self.eps}

    def plain(self, parameters: list[nn.Parameter]) -> Optimizer:
        """The same update for data-parallel tables, whose gradients are dense."""
        if self.name == "sgd":
            return SGD(parameters, lr=self.lr)
        if self.name == "adagrad":
            return Adagrad(parameters, lr=self.lr, eps=self.eps)
        if self.name == "rowwise_adagrad":
            return RowWiseAdagrad(parameters, lr=self.lr, eps=self.eps)
        raise ConfigError(f"plan: data-parallel tables take {', '.join(ON_CPU)}, not '{self.name}'; use TW, RW or CW")


def shard(
    model: nn.Module, plan: ShardingPlan, ranks: Ranks, table_optimizer: TableOptimizer | None = None
) -> DistributedModelParallel:
    """Distributes a model over the ranks of the default process group.

    Args:
        model: holds Embeddings (on meta or CPU; their weights are made anew: fill them with ``init.initialize``) and
            dense layers, which are replicated under DDP.
        plan: from ``plan.plan`` for this world size, with the path of the embeddings in the model as prefix.
        ranks: this process's place.
        table_optimizer: of the tables; rowwise Adagrad when absent.

    Raises:
        ConfigError: a plan for another world size, or an optimizer without a kernel on this device.
    """
    optimizer = table_optimizer or TableOptimizer()
    optimizer.check(ranks.device.type)
    check_world(plan, ranks.world_size)
    torchrec_patches.apply()
    fused = optimizer.fused_params()
    group = dist.GroupMember.WORLD
    if group is None:
        raise RuntimeError("shard: no process group; call it inside distributed.process_group()")
    return DistributedModelParallel(
        module=model,
        env=ShardingEnv.from_process_group(group),
        device=ranks.device,
        plan=plan,
        sharders=[
            EmbeddingsSharder(fused_params=fused),
            BagSharder(fused_params=fused),
            ListSharder(fused_params=fused),
        ],
    )


def optimizers(
    model: DistributedModelParallel,
    dense: Callable[[Iterable[nn.Parameter]], Optimizer],
    table_optimizer: TableOptimizer | None = None,
) -> KeyedOptimizer:
    """One optimizer for everything: fused tables, data-parallel tables, dense layers.

    Args:
        model: from ``shard``.
        dense: makes the optimizer of the dense layers' parameters.
        table_optimizer: as given to ``shard``.
    """
    tables = data_parallel_tables(model)
    rest = {n: p for n, p in _dense_parameters(model).items() if n not in tables}
    parts: list[Any] = [("tables", model.fused_optimizer)]
    if tables:
        plain = (table_optimizer or TableOptimizer()).plain
        parts.append(("replicated_tables", KeyedOptimizerWrapper(tables, plain)))
    if rest:
        parts.append(("dense", KeyedOptimizerWrapper(rest, dense)))
    return CombinedOptimizer(parts)


def data_parallel_tables(model: DistributedModelParallel) -> dict[str, nn.Parameter]:
    """Tables that every rank holds whole, by parameter name."""
    return {n: p for n, p in _dense_parameters(model).items() if portable_name(n) != n}


def num_replicated(model: DistributedModelParallel) -> int:
    """Parameters whose gradients DDP sums over the ranks."""
    return sum(p.numel() for p in _dense_parameters(model).values())


def _dense_parameters(model: DistributedModelParallel) -> dict[str, nn.Parameter]:
    """Parameters that no fused optimizer updates; not the empty ones that stand for tables of other ranks."""
    fused = set(model.fused_optimizer.params)
    return {n: p for n, p in model.named_parameters() if n not in fused and p.requires_grad and p.numel()}
