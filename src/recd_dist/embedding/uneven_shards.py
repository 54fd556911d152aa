"""TorchRec's sharded tables, which also take back their weights where column shards have different widths.

torchrec/distributed/embeddingbag.py:1098 (1.8; line 1113 of 1.9) views the weights of every rank with the width of the
table's first shard, so that ``load_state_dict`` of shards of 8, 8 and 4 columns fails on the rank with 4. Such shards
are handed on as they are. A rank holds one of them at most (``plan/wanted_sharding.py``).

Guard: tests/dist/test_upstream.py::test_column_shards_of_different_widths_cannot_be_loaded.
"""

from typing import Any

import torch
from torch.distributed._shard.sharded_tensor import ShardedTensor
from torchrec.distributed.embeddingbag import ShardedEmbeddingBagCollection


class ShardedTables(ShardedEmbeddingBagCollection):
    """A ShardedEmbeddingBagCollection whose column shards may have different widths."""

    @staticmethod
    def _pre_load_state_dict_hook(
        module: ShardedEmbeddingBagCollection, state_dict: dict[str, Any], prefix: str, *args: Any
    ) -> None:
        uneven = [key for key, value in state_dict.items() if key.startswith(prefix) and _has_uneven_columns(value)]
        shards = {key: state_dict.pop(key).local_shards() for key in uneven}
        ShardedEmbeddingBagCollection._pre_load_state_dict_hook(module, state_dict, prefix, *args)
        state_dict.update({key: own[0].tensor if own else torch.empty(0) for key, own in shards.items()})


def _has_uneven_columns(value: Any) -> bool:
    """Whether a weight is in column shards of different widths."""
    return isinstance(value, ShardedTensor) and len({s.shard_sizes[1] for s in value.metadata().shards_metadata}) > 1
