"""Memory that the tables of this rank take, to compare with what the plan estimated."""

from typing import Any

from torch import Tensor, nn
from torch.distributed._shard.sharded_tensor import ShardedTensor

from recd_dist.embedding.tables import portable_name, table_weights


def table_bytes(module: nn.Module, optimizer: Any) -> int:
    """Bytes of the tables' weights and optimizer states on this rank.

    Args:
        module: a sharded model that holds Embeddings.
        optimizer: the model's optimizer, from ``distribute.build_optimizer``. States that it has not made yet are not
            counted.
    """
    tensors = list(table_weights(module).values())
    for name, states in optimizer.state_dict()["state"].items():
        if portable_name(name) != name:
            tensors += [state for state in states.values() if isinstance(state, Tensor)]
    return sum(part.numel() * part.element_size() for tensor in tensors for part in _local_parts(tensor))


def _local_parts(tensor: Tensor) -> list[Tensor]:
    """The parts of a tensor that lie on this rank; a row-wise state has only one dimension."""
    return [shard.tensor for shard in tensor.local_shards()] if isinstance(tensor, ShardedTensor) else [tensor]
