"""TorchRec's sharders, limited to the types and kernels that this project uses."""

from torchrec.distributed.embedding import EmbeddingCollectionSharder
from torchrec.distributed.embedding_types import EmbeddingComputeKernel
from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
from torchrec.distributed.types import ShardingPlan

from recd_dist.embedding.vocabulary.names import SHARDING_TYPES, UNPOOLED_TYPES
from recd_dist.embedding.vocabulary.placement import iterate_parameters
from recd_dist.errors import ConfigError


class BagSharder(EmbeddingBagCollectionSharder):
    """Allows row-wise sharding on CPU, which upstream refuses (embedding_types.py:559) and torchrec_patches repairs."""

    def sharding_types(self, compute_device_type: str) -> list[str]:
        """The types that this project offers."""
        del compute_device_type
        return list(SHARDING_TYPES.values())

    def compute_kernels(self, sharding_type: str, compute_device_type: str) -> list[str]:
        """The one kernel that this project uses for a type; the planner would offer others too."""
        del compute_device_type
        return [kernel_of(sharding_type)]


class ListSharder(EmbeddingCollectionSharder):
    """Offers un-pooled tables no data-parallel sharding, which fails upstream even with a plain KeyedJaggedTensor."""

    def sharding_types(self, compute_device_type: str) -> list[str]:
        """The types that this project offers for un-pooled tables."""
        del compute_device_type
        return [SHARDING_TYPES[t] for t in UNPOOLED_TYPES]

    def compute_kernels(self, sharding_type: str, compute_device_type: str) -> list[str]:
        """The one kernel that this project uses for a type, as for pooled tables."""
        del compute_device_type
        return [kernel_of(sharding_type)]


def kernel_of(sharding_type: str) -> str:
    """The kernel for a sharding type: fbgemm's fused one, or the dense one, whose gradient DDP sums, for copies.

    Every table names its kernel, because TorchRec would choose the dense one, which on CPU corrupts the heap for
    un-pooled tables.

    Args:
        sharding_type: name of the type, as TorchRec spells it.
    """
    is_replicated = sharding_type == SHARDING_TYPES["DP"]
    return (EmbeddingComputeKernel.DENSE if is_replicated else EmbeddingComputeKernel.FUSED).value


def check_world(plan: ShardingPlan, world_size: int) -> None:
    """Refuses a plan that was made for more ranks than there are.

    Args:
        plan: the plan.
        world_size: number of ranks of the job.

    Raises:
        ConfigError: a table lies on a rank that does not exist; the message names both, and the remedy.
    """
    for table, parameter in iterate_parameters(plan):
        ranks = parameter.ranks or []
        if any(not 0 <= r < world_size for r in ranks):
            raise ConfigError(
                f"plan: table '{table}' lies on rank {max(ranks)}, this job has {world_size} ranks (0 to "
                f"{world_size - 1}); wrong world size for this plan: start more ranks or plan again"
            )
