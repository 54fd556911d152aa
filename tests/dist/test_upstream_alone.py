"""What upstream still breaks on one process; see docs/upstream.md. A test fails when upstream mends it."""

import pytest
import torch
from fbgemm_gpu.split_embedding_configs import EmbOptimType
from fbgemm_gpu.split_table_batched_embeddings_ops_common import EmbeddingLocation, PoolingMode
from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
    ComputeDevice,
    DenseTableBatchedEmbeddingBagsCodegen,
    SplitTableBatchedEmbeddingBagsCodegen,
)
from torch import Tensor, nn
from torch.optim import Adam
from torchrec.distributed.embedding import EmbeddingCollectionSharder
from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
from torchrec.distributed.fbgemm_qcomm_codec import CommType, QCommsConfig, get_qcomm_codecs_registry
from torchrec.distributed.planner import EmbeddingShardingPlanner, ParameterConstraints, Topology
from torchrec.distributed.sharding_plan import construct_module_sharding_plan, table_wise
from torchrec.modules.embedding_configs import EmbeddingBagConfig, EmbeddingConfig, PoolingType
from torchrec.modules.embedding_modules import EmbeddingBagCollection, EmbeddingCollection
from torchrec.optim.keyed import KeyedOptimizerWrapper
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

CPU = torch.device("cpu")


def bags(dim: int = 64) -> EmbeddingBagCollection:
    return EmbeddingBagCollection(
        tables=[EmbeddingBagConfig(name="t", embedding_dim=dim, num_embeddings=6, feature_names=["f"])]
    )


def lists(dim: int = 64) -> EmbeddingCollection:
    return EmbeddingCollection(
        tables=[EmbeddingConfig(name="t", embedding_dim=dim, num_embeddings=6, feature_names=["f"])]
    )


def split_kernel(num_rows: int, optimizer: str) -> nn.Module:
    """The kernel with a fused optimizer that TorchRec builds for a table on CPU."""
    return SplitTableBatchedEmbeddingBagsCodegen(
        [(num_rows, 4, EmbeddingLocation.HOST, ComputeDevice.CPU)], optimizer=EmbOptimType[optimizer]
    )


# --- the planner -----------------------------------------------------------------------------------------------------


def column_shards(**constraints: int) -> int:
    """The number of column shards that the planner makes of a table of 64 columns for two ranks."""
    wanted = {"t": ParameterConstraints(sharding_types=["column_wise"], **constraints)}
    topology = Topology(world_size=2, compute_device="cpu")
    plan = EmbeddingShardingPlanner(topology=topology, constraints=wanted).plan(
        bags(), [EmbeddingBagCollectionSharder()]
    )
    (module,) = plan.plan.values()
    return len(module["t"].sharding_spec.shards)


def test_column_wise_of_narrow_tables_is_one_shard() -> None:
    """sharding_plan.py:295: a shard has at least 128 columns. We set min_partition (plan/torchrec_planner.py)."""
    assert column_shards() == 1
    assert column_shards(min_partition=32) == 2


def test_row_wise_is_refused_on_cpu() -> None:
    """embedding_types.py:559. Our BagSharder (embedding/sharders.py) allows it."""
    offered = EmbeddingBagCollectionSharder().sharding_types("cpu")
    assert not {"row_wise", "table_row_wise", "grid_shard"} & set(offered)


def test_explicit_plans_of_sequences_take_the_dense_kernel() -> None:
    """sharding_plan.py:379: the kernel is dense, though the sharder offers fused only.

    On CPU the dense kernel corrupts the heap, which is not tried here. Our plans name the kernel of every table
    (kernel_of in embedding/sharders.py).
    """
    module, sharder = lists(), EmbeddingCollectionSharder()
    plan = construct_module_sharding_plan(module, {"t": table_wise(rank=0)}, sharder, 1, 1, "cpu")
    assert sharder.compute_kernels("table_wise", "cpu") == ["fused"]
    assert plan["t"].compute_kernel == "dense"


# --- kernels ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["ADAM", "PARTIAL_ROWWISE_ADAM", "LAMB", "PARTIAL_ROWWISE_LAMB", "LARS_SGD"])
def test_optimizers_without_a_cpu_kernel(optimizer: str) -> None:
    """fbgemm's training ops, line 1049. We refuse them before the job starts (embedding/distribute.py)."""
    with pytest.raises(AssertionError, match="is not supported in CPU mode"):
        split_kernel(6, optimizer)


def test_a_table_without_rows_is_taken_for_a_cuda_one() -> None:
    """fbgemm's lookup_sgd.py:37 takes a table for a CPU one only if its weights have elements.

    So a row-wise table with fewer rows than ranks fails. We refuse such a plan (can_divide_rows in plan/world.py).
    """
    kernel = split_kernel(0, "EXACT_SGD")
    with pytest.raises(RuntimeError, match="must be a GPU or MTIA tensor; it is currently on device CPU"):
        kernel(torch.zeros(0, dtype=torch.int64), torch.zeros(3, dtype=torch.int64))


def test_the_dense_kernel_sums_where_vectors_are_asked_for() -> None:
    """fbgemm's training ops, line 4813: on CPU PoolingMode.NONE is ignored: 2 sums come back instead of 3 vectors.

    This makes data-parallel EmbeddingCollections fail. Our exchange treats un-pooled tables as pooled tables of single
    ids.
    """
    kernel = DenseTableBatchedEmbeddingBagsCodegen([(6, 4)], pooling_mode=PoolingMode.NONE, use_cpu=True)
    sums = kernel(torch.tensor([0, 1, 2]), torch.tensor([0, 2, 3]))
    assert sums.shape == (2, 4)
    torch.testing.assert_close(sums[0], kernel.weights.detach().view(6, 4)[:2].sum(0))


@pytest.mark.parametrize("make", [bags, lists])
def test_unsharded_outputs_are_float32_whatever_the_tables_are(make) -> None:
    """embedding_modules.py:254, 490: ``.float()``. Our tests are judged in float64 by torch's own modules."""
    out = make().double()(KeyedJaggedTensor(["f"], torch.tensor([0, 1]), lengths=torch.tensor([2])))
    values: Tensor = out["f"] if isinstance(out["f"], Tensor) else out["f"].values()
    assert values.dtype == torch.float32


def test_a_mean_of_weighted_vectors() -> None:
    """fbgemm divides by the number of ids; unsharded, torch's EmbeddingBag refuses. Here: sums, divided alike."""
    kernel = SplitTableBatchedEmbeddingBagsCodegen(
        [(2, 4, EmbeddingLocation.HOST, ComputeDevice.CPU)], pooling_mode=PoolingMode.MEAN
    )
    kernel.split_embedding_weights()[0].copy_(torch.tensor([[1.0], [10.0]]).expand(2, 4))
    ids, weights = torch.tensor([0, 1]), torch.tensor([4.0, 2.0])
    assert kernel(ids, torch.tensor([0, 2]), weights)[0, 0].item() == (4 * 1 + 2 * 10) / 2
    table = EmbeddingBagConfig(
        name="t", embedding_dim=4, num_embeddings=2, feature_names=["f"], pooling=PoolingType.MEAN
    )
    with pytest.raises(NotImplementedError, match="only supported for mode='sum'"):
        EmbeddingBagCollection(tables=[table], is_weighted=True)(
            KeyedJaggedTensor(["f"], ids, weights, lengths=torch.tensor([2]))
        )


# --- batches, wire, optimizers ---------------------------------------------------------------------------------------


def test_pieces_of_a_variable_batch_forget_the_inverse() -> None:
    """jagged_tensor.py:2662, 2817. Our IKJT carries the inverse; TorchRec never sees it."""
    inverse = (["f", "g"], torch.zeros(2, 2, dtype=torch.int64))
    kjt = KeyedJaggedTensor(
        ["f", "g"],
        torch.tensor([0, 1]),
        lengths=torch.tensor([1, 1]),
        stride_per_key_per_rank=[[1], [1]],
        inverse_indices=inverse,
    )
    assert kjt.inverse_indices_or_none() is inverse
    assert [piece.inverse_indices_or_none() for piece in (*kjt.split([1, 1]), kjt.permute([1, 0]))] == [None] * 3


def test_bf16_on_the_wire_is_fp16_on_cpu() -> None:
    """fbgemm_qcomm_codec.py:240 replaces it, with a warning in the log. Our embedding/exchange/codec.py sends bf16."""
    registry = get_qcomm_codecs_registry(QCommsConfig(CommType.BF16, CommType.BF16), device=CPU)
    for codecs in registry.values():
        assert codecs.forward.quantized_dtype == codecs.backward.quantized_dtype == torch.float16


def test_a_new_optimizer_has_no_state_to_load_into() -> None:
    """optim/keyed.py:290: Adam makes its states in the first step; a checkpoint that is loaded before finds none.

    We call init_state() before every load (checkpoint/state.py).
    """
    weight = nn.Parameter(torch.ones(2))
    optimizer = KeyedOptimizerWrapper({"w": weight}, lambda params: Adam(params, lr=0.1))
    assert optimizer.state_dict()["state"] == {}
    weight.grad = torch.zeros(2)
    optimizer.init_state()
    assert "exp_avg" in optimizer.state_dict()["state"]["w"]
