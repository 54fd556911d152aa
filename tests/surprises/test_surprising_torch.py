"""What torch, TorchRec and fbgemm do that one would not guess; docs/surprises.md says what we do about it.

A test fails when the library changes: then read the row of the document, and the place of ours that it names.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from fbgemm_gpu.split_embedding_configs import EmbOptimType
from fbgemm_gpu.split_table_batched_embeddings_ops_common import EmbeddingLocation
from fbgemm_gpu.split_table_batched_embeddings_ops_training import ComputeDevice, SplitTableBatchedEmbeddingBagsCodegen
from torch import Tensor, nn
from torch.distributed.optim import _apply_optimizer_in_backward
from torchmetrics.classification import BinaryAUROC
from torchrec.distributed import TrainPipelineSparseDist
from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.distributed.sharding_plan import construct_module_sharding_plan, table_wise
from torchrec.distributed.types import ShardingEnv, ShardingPlan
from torchrec.metrics.auc import compute_auc
from torchrec.modules.embedding_configs import EmbeddingBagConfig
from torchrec.modules.embedding_modules import EmbeddingBagCollection
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor
from torchrec.streamable import Pipelineable

CPU = torch.device("cpu")
TWO_IDS = KeyedJaggedTensor(["f"], torch.tensor([1, 2]), lengths=torch.tensor([1, 1]))


@pytest.fixture
def one_rank(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


# --- tables and their optimizers -------------------------------------------------------------------------------------


def sharded_table(fill: float | None = None, **sgd: float) -> DistributedModelParallel:
    """A table of 5 rows and 4 columns, table-wise on one rank, updated by SGD inside its backward pass."""
    config = EmbeddingBagConfig(name="t", embedding_dim=4, num_embeddings=5, feature_names=["f"])
    bags, sharder = EmbeddingBagCollection(tables=[config]), EmbeddingBagCollectionSharder()
    if fill is not None:
        nn.init.constant_(bags.embedding_bags["t"].weight, fill)
    _apply_optimizer_in_backward(torch.optim.SGD, bags.parameters(), {"lr": 1.0, **sgd})
    place = {"t": table_wise(rank=0, compute_kernel="fused", device="cpu")}
    plan = construct_module_sharding_plan(bags, place, sharder, 1, 1, "cpu")
    return DistributedModelParallel(
        nn.Sequential(bags),
        env=ShardingEnv.from_process_group(dist.GroupMember.WORLD),
        device=CPU,
        plan=ShardingPlan({"0": plan}),
        sharders=[sharder],
    )


def weights(model: nn.Module) -> Tensor:
    (table,) = model.state_dict().values()
    return table.local_shards()[0].tensor.clone()


def step(model: nn.Module) -> float:
    """One step whose gradient is 1 in rows 1 and 2; returns what it changed in row 1."""
    before = weights(model)
    model(TWO_IDS).wait().values().sum().backward()
    return round((weights(model) - before)[1, 0].item(), 4)


def set_rate(model: DistributedModelParallel, rate: float) -> None:
    for group in model.fused_optimizer.param_groups:
        group["lr"] = rate


@pytest.mark.usefixtures("one_rank")
def test_a_table_filled_before_it_is_sharded_is_drawn_anew() -> None:
    """So initial weights are written after sharding (embedding/initial_weights.py)."""
    assert not (weights(sharded_table(fill=7.0)) == 7.0).any()


@pytest.mark.usefixtures("one_rank")
def test_a_learning_rate_holds_from_the_next_zero_grad_on() -> None:
    """batched_embedding_kernel.py:1064, 1068: the kernel is told in zero_grad() and step() only."""
    model = sharded_table()
    model.fused_optimizer.zero_grad()
    set_rate(model, 0.1)
    assert step(model) == -1.0
    model.fused_optimizer.zero_grad()
    assert step(model) == -0.1


@pytest.mark.parametrize("option", ["momentum", "weight_decay"])
@pytest.mark.usefixtures("one_rank")
def test_momentum_and_weight_decay_of_sgd_are_passed_over(option: str) -> None:
    """One step later both would change what SGD does."""
    model = sharded_table(**{option: 0.5})
    assert [step(model), step(model)] == [-1.0, -1.0]


def test_gradients_of_tables_are_limited_before_they_are_added_up() -> None:
    """Row 1 has two outputs with gradients of 3. So tables are not clipped here (docs/training.md)."""
    place = [(5, 4, EmbeddingLocation.HOST, ComputeDevice.CPU)]
    limited = {"gradient_clipping": True, "max_gradient": 1.0, "learning_rate": 1.0}
    kernel = SplitTableBatchedEmbeddingBagsCodegen(place, optimizer=EmbOptimType.EXACT_SGD, **limited)
    before = kernel.split_embedding_weights()[0].clone()
    kernel(torch.tensor([1, 1]), torch.tensor([0, 1, 2])).sum().mul(3.0).backward()
    moved = kernel.split_embedding_weights()[0] - before
    assert [round(x, 4) for x in moved[:, 0].tolist()] == [0.0, -2.0, 0.0, 0.0, 0.0]


@pytest.mark.usefixtures("one_rank")
def test_tables_are_trained_in_eval_mode_as_well() -> None:
    """The update is part of the backward pass; evaluation must not run one (train/evaluation.py)."""
    assert step(sharded_table().eval()) == -1.0


@pytest.mark.usefixtures("one_rank")
def test_an_id_of_minus_one_passes_the_bounds_check_and_fails_in_the_kernel() -> None:
    """Ids are checked against their tables where they are read (reader.on_bad_id)."""
    kernel = SplitTableBatchedEmbeddingBagsCodegen(
        [(5, 4, EmbeddingLocation.HOST, ComputeDevice.CPU)], optimizer=EmbOptimType.EXACT_SGD
    )
    with pytest.raises(RuntimeError, match=r"out of bounds: -1, range 0 to 5"):
        kernel(torch.tensor([1, -1]), torch.tensor([0, 1, 2]))


# --- batches, metrics, checkpoints -----------------------------------------------------------------------------------


@dataclass
class Numbered(Pipelineable):
    """A batch that is known by its number."""

    number: int

    def to(self, device: torch.device, non_blocking: bool = False) -> "Numbered":
        return self

    def record_stream(self, stream: object) -> None: ...


class Echo(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, batch: Numbered) -> tuple[Tensor, int]:
        return self.weight.sum(), batch.number


def test_a_pipeline_first_hands_out_what_it_took_from_the_iterator_before() -> None:
    """The pipeline is empty before a validation begins; train_pipelines.py:465, 853, also in eval mode."""
    model = Echo()
    pipeline = TrainPipelineSparseDist(model, torch.optim.SGD(model.parameters(), lr=0.1), CPU)
    training, validation = (iter([Numbered(first + i) for i in range(5)]) for first in (0, 100))
    assert [pipeline.progress(training) for _ in range(2)] == [0, 1]
    model.eval()
    assert [pipeline.progress(validation) for _ in range(3)] == [2, 3, 100]


def test_auc_of_one_class_is_one_half() -> None:
    """metrics/auc.py:76: no figure would be truer (metrics/quality.py)."""
    auc = compute_auc(1, [torch.tensor([[0.1, 0.2]])], [torch.ones(1, 2)], [torch.ones(1, 2)])
    assert auc.tolist() == [0.5]


def test_whether_scores_are_logits_is_decided_batch_by_batch() -> None:
    """precision_recall_curve.py:180: a batch of logits inside [0, 1] is left as it is. We hand over probabilities."""
    logits, labels = torch.tensor([2.0, 0.6, 0.7, 0.9]), torch.tensor([0, 1, 0, 1])
    whole, in_batches = BinaryAUROC(), BinaryAUROC()
    whole.update(logits, labels)
    in_batches.update(logits[:1], labels[:1])
    in_batches.update(logits[1:], labels[1:])
    assert (whole.compute().item(), in_batches.compute().item()) == (0.25, 0.5)


def test_a_checkpoint_is_loaded_into_narrower_types_without_a_word(tmp_path: Path) -> None:
    """Shapes are compared, types are not."""
    dcp.save({"ids": torch.tensor([2**40 + 5]), "vector": torch.tensor([70_000.0])}, checkpoint_id=tmp_path)
    into = {"ids": torch.zeros(1, dtype=torch.int32), "vector": torch.zeros(1, dtype=torch.float16)}
    dcp.load(into, checkpoint_id=tmp_path)
    assert into["ids"].item() == 5
    assert into["vector"].isinf().all()


@pytest.mark.parametrize("need_weights", [True, False])
def test_attention_to_nothing_but_padding(need_weights: bool) -> None:
    """NaN with need_weights, 0 without. Our attention gives an empty history 0 (model/attention.py)."""
    attention, history = nn.MultiheadAttention(4, 1, batch_first=True), torch.randn(1, 3, 4)
    padding = torch.ones(1, 3, dtype=torch.bool)
    with torch.no_grad():
        seen, _ = attention(history, history, history, key_padding_mask=padding, need_weights=need_weights)
    assert seen.isnan().all() if need_weights else not seen.isnan().any()


def test_running_sums_of_int32_lengths_wrap() -> None:
    """fbgemm's sums have the type of the lengths; ours are int64 (tensors/jagged.py)."""
    sums = torch.ops.fbgemm.asynchronous_complete_cumsum(torch.tensor([2**31 - 1, 2], dtype=torch.int32))
    assert sums.tolist() == [0, 2**31 - 1, -(2**31) + 1]


def test_selecting_no_rows_of_jagged_values_fails() -> None:
    """Ours selects rows with torch.cumsum and gathers, which take an empty selection (tensors/jagged.py)."""
    with pytest.raises(IndexError):
        torch.ops.fbgemm.jagged_index_select(
            torch.zeros(3, 2), torch.tensor([1, 2]), torch.tensor([], dtype=torch.long)
        )
