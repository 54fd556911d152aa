"""Memory that the tables of this rank really take, to stand beside what a plan foretold."""

from typing import Any

from torch import Tensor, nn
from torch.distributed._shard.sharded_tensor import ShardedTensor

from recd_dist.embedding.tables import portable_name, table_weights


def table_bytes(module: nn.Module, optimizer: Any) -> int:
    """Bytes of weights and optimizer states on this rank.

    Args:
        module: a sharded model that holds Embeddings.
        optimizer: what updates it, from ``shard.optimizers``; states that it has not made yet are not counted.
    """
    tensors = list(table_weights(module).values())
    for name, states in optimizer.state_dict()["state"].items():
        if portable_name(name) != name:
            tensors += [state for state in states.values() if isinstance(state, Tensor)]
    return sum(part.numel() * part.element_size() for tensor in tensors for part in _local(tensor))


def _local(tensor: Tensor) -> list[Tensor]:
    """The parts of a tensor that lie here; a row-wise state has one dimension only."""
    return [shard.tensor for shard in tensor.local_shards()] if isinstance(tensor, ShardedTensor) else [tensor]
