"""A plan that was made for more ranks than there are is refused."""

import pytest
import torch
from torch import nn
from torchrec.distributed.sharding_plan import construct_module_sharding_plan, row_wise
from torchrec.distributed.types import ShardingPlan
from torchrec.modules.embedding_configs import EmbeddingBagConfig
from torchrec.modules.embedding_modules import EmbeddingBagCollection

from recd_dist.embedding.sharders import BagSharder, check_world
from recd_dist.errors import ConfigError


def row_wise_plan(world_size: int) -> ShardingPlan:
    config = EmbeddingBagConfig(name="item", embedding_dim=4, num_embeddings=8, feature_names=["item"])
    module: nn.Module = EmbeddingBagCollection(tables=[config], device=torch.device("meta"))
    tables = construct_module_sharding_plan(
        module, {"item": row_wise()}, BagSharder(), local_size=world_size, world_size=world_size, device_type="cpu"
    )
    return ShardingPlan({"embeddings": tables})


def test_a_plan_for_more_ranks_is_refused() -> None:
    check_world(row_wise_plan(2), 2)
    with pytest.raises(ConfigError, match=r"table 'item' lies on rank 3, this job has 2 ranks .* wrong world size"):
        check_world(row_wise_plan(4), 2)
