"""TorchRec's sharders with what this project offers: the types, and one kernel a type."""

from torchrec.distributed.embedding import EmbeddingCollectionSharder
from torchrec.distributed.embedding_types import EmbeddingComputeKernel
from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
from torchrec.distributed.types import ShardingPlan

from recd_dist.embedding.names import TYPES, UNPOOLED
from recd_dist.embedding.placement import parameters
from recd_dist.errors import ConfigError


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
