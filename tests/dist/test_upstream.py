"""What TorchRec still breaks over ranks; see docs/upstream.md. A test fails when upstream mends it.

The tests run stock TorchRec on gloo, without our code. All numbers of row i of every table are i + 1, the loss is the
sum of all outputs, and the learning rate is 1, so that the right numbers can be counted by hand. A test that fails here
is good news: look at the upstream line that it names, then at what "we" do instead. The lines are those of torchrec
1.8.0, fbgemm-gpu-cpu 1.8.0 and torch 2.13.0. What a later release line mends is expected to be right from there on.
"""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
import torchrec
from fbgemm_gpu.split_embedding_configs import EmbOptimType
from packaging.version import Version
from torch import Tensor, nn
from torch.distributed._shard.metadata import ShardMetadata
from torch.distributed._shard.sharded_tensor import ShardedTensor
from torch.distributed._shard.sharding_spec import EnumerableShardingSpec
from torchrec.distributed import sharding_plan
from torchrec.distributed.embedding import EmbeddingCollectionSharder
from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
from torchrec.distributed.fbgemm_qcomm_codec import CommType, QCommsConfig, get_qcomm_codecs_registry
from torchrec.distributed.types import EmbeddingModuleShardingPlan, ParameterSharding, ShardingEnv
from torchrec.modules.embedding_configs import EmbeddingBagConfig, EmbeddingConfig, PoolingType
from torchrec.modules.embedding_modules import EmbeddingBagCollection, EmbeddingCollection
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from recd_dist.ranks.process_group import Ranks

CPU = torch.device("cpu")
PLANS = {
    "TW": lambda: sharding_plan.table_wise(rank=1),
    "RW": sharding_plan.row_wise,
    "CW": lambda: sharding_plan.column_wise(ranks=[0, 1]),  # both ranks hold a shard, so that both fail alike
    "DP": sharding_plan.data_parallel,
    "TWRW": lambda: sharding_plan.table_row_wise(host_index=1),
    "GRID": lambda: sharding_plan.grid_shard(host_indexes=[0, 1]),
}
NUM_ROWS = 6
UNEQUAL = "ProcessGroupGloo::allgather: invalid tensor size"


@pytest.fixture(autouse=True, scope="module")
def fresh_ranks(two_ranks, four_ranks) -> Iterator[None]:
    """Starts ranks in which TorchRec is not patched; other tests do not use them, since tests here break them."""
    two_ranks.stop()
    four_ranks.stop()
    yield
    two_ranks.stop()
    four_ranks.stop()


# --- on every rank ---------------------------------------------------------------------------------------------------


def kjt(batch: dict[str, Any]) -> KeyedJaggedTensor:
    """A batch from lists of ids by feature; (lists, inverse) instead makes TorchRec's variable batch (VBE)."""
    keys, variable = list(batch), isinstance(next(iter(batch.values())), tuple)
    lists = [batch[k][0] if variable else batch[k] for k in keys]
    lengths = torch.tensor([len(row) for rows in lists for row in rows], dtype=torch.int64)
    values = torch.tensor([i for rows in lists for row in rows for i in row], dtype=torch.int64)
    if not variable:
        return KeyedJaggedTensor(keys, values, lengths=lengths)
    inverse = torch.tensor([batch[k][1] for k in keys], dtype=torch.int64)
    strides = [[len(rows)] for rows in lists]
    return KeyedJaggedTensor(
        keys, values, lengths=lengths, stride_per_key_per_rank=strides, inverse_indices=(keys, inverse)
    )


def shard_tables(ranks: Ranks, tables: dict[str, tuple[str, str]], options: dict[str, Any]) -> nn.Module:
    """Shards one table for each feature, given as (sharding, pooling); pooling "" makes an EmbeddingCollection."""
    kwargs: dict[str, Any] = {"fused_params": {"optimizer": EmbOptimType[options.get("optimizer", "EXACT_SGD")]}}
    kwargs["fused_params"]["learning_rate"] = 1.0
    if "wire" in options:
        precision = QCommsConfig(CommType[options["wire"]], CommType[options["wire"]])
        kwargs["qcomm_codecs_registry"] = get_qcomm_codecs_registry(precision, device=CPU)
    if "use_index_dedup" in options:
        kwargs["use_index_dedup"] = True
    configs = []
    for name, (sharding, pooling) in tables.items():
        same = {"name": f"table_{name}", "num_embeddings": NUM_ROWS, "feature_names": [name]}
        same["embedding_dim"] = 256 if sharding == "GRID" else 64
        configs.append(EmbeddingBagConfig(pooling=PoolingType[pooling], **same) if pooling else EmbeddingConfig(**same))
    if isinstance(configs[0], EmbeddingBagConfig):
        module: nn.Module = EmbeddingBagCollection(tables=configs, device=torch.device("meta"))
        sharder: Any = EmbeddingBagCollectionSharder(**kwargs)
    else:
        module = EmbeddingCollection(tables=configs, device=torch.device("meta"))
        sharder = EmbeddingCollectionSharder(**kwargs)
    chosen = {f"table_{name}": PLANS[sharding]() for name, (sharding, _) in tables.items()}
    local, world = ranks.local_world_size, ranks.world_size
    plan = sharding_plan.construct_module_sharding_plan(module, chosen, sharder, local, world, "cpu")
    for parameter in plan.values():
        if parameter.sharding_type != "data_parallel":
            parameter.compute_kernel = "fused"
    return sharder.shard(module, plan, ShardingEnv.from_process_group(torch.distributed.GroupMember.WORLD), CPU)


def shards(module: nn.Module) -> Iterator[tuple[str, int, Tensor]]:
    """Feature, first row and weights of each shard of this rank."""
    for name, weight in module.state_dict().items():
        feature = name.split(".")[-2].removeprefix("table_")
        if isinstance(weight, ShardedTensor):
            yield from ((feature, s.metadata.shard_offsets[0], s.tensor) for s in weight.local_shards())
        else:
            yield feature, 0, weight


def numbers(start: int, rows: int) -> Tensor:
    """The numbers of some rows before the step."""
    return torch.arange(start + 1.0, start + rows + 1.0)[:, None]


def step(ranks: Ranks, tables: dict[str, Any], batches: list[Any], options: dict[str, Any]) -> dict[str, Any] | str:
    """Runs one step on this rank's batch; returns the first columns of outputs and of moved rows, or the error."""
    try:
        module = shard_tables(ranks, tables, options)
        with torch.no_grad():
            for _, row, weight in shards(module):
                weight.copy_(numbers(row, len(weight)).expand_as(weight))
        sent = kjt(batches[ranks.rank % len(batches)])
        if "weight" in options:
            weights = torch.full((len(sent.values()),), options["weight"])
            sent = KeyedJaggedTensor(sent.keys(), sent.values(), weights, lengths=sent.lengths())
        out = module(sent)
        pooled = all(pooling for _, pooling in tables.values())
        outputs = out.to_dict() if pooled else {k: v.values() for k, v in out.items()}
        if options.get("backward", True):
            torch.stack([v.sum() for v in outputs.values()]).sum().backward()
        moved = {f: (w.detach() - numbers(r, len(w)))[:, 0].tolist() for f, r, w in shards(module) if w.numel()}
        return {"out": {f: v.detach()[:, 0].tolist() for f, v in outputs.items()}, "moved": moved}
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def save_async(ranks: Ranks, path: str) -> str:
    """The error of async_save of a sharded table."""
    try:
        dcp.async_save(shard_tables(ranks, {"f": ("CW", "SUM")}, {}).state_dict(), checkpoint_id=path).result()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "saved"


def load_own_weights(ranks: Ranks, holders: list[int]) -> str:
    """The error where a table of shards of 8, 4 and 4 columns on these ranks takes back its own weights."""
    module = EmbeddingBagCollection(
        tables=[EmbeddingBagConfig(name="t", embedding_dim=16, num_embeddings=7, feature_names=["f"])],
        device=torch.device("meta"),
    )
    spans = [(0, 8), (8, 4), (12, 4)]
    cut = [ShardMetadata([0, first], [7, n], f"rank:{r}/cpu") for r, (first, n) in zip(holders, spans, strict=False)]
    plan = ParameterSharding("column_wise", "fused", holders, EnumerableShardingSpec(cut))
    try:
        env = ShardingEnv.from_process_group(torch.distributed.GroupMember.WORLD)
        sharded = EmbeddingBagCollectionSharder().shard(module, EmbeddingModuleShardingPlan({"t": plan}), env, CPU)
        sharded.load_state_dict(sharded.state_dict())
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "loaded"


# --- in the process of the tests -------------------------------------------------------------------------------------


def assert_all_fail(pool: Any, wanted: str, tables: dict[str, Any], batches: list[Any], **options: Any) -> None:
    """Asserts that every rank fails with an error; ranks that do not are not used again."""
    said = pool(step, tables, batches, options)
    if not all(isinstance(each, str) and wanted in each for each in said):
        pool.stop()
        pytest.fail(f"upstream no longer says '{wanted}': {said}")


def assert_gives(
    pool: Any, wanted: list[dict[str, Any]], tables: dict[str, Any], batches: list[Any], **options: Any
) -> None:
    """Asserts that every rank returns the numbers that are given."""
    results = pool(step, tables, batches, options)
    for each, want in zip(results, wanted, strict=True):
        if isinstance(each, str):
            pool.stop()
            pytest.fail(each)
        for what, features in want.items():
            for feature, numbers in features.items():
                assert each[what][feature] == pytest.approx(numbers, rel=1e-5), (what, feature, each)


PLAIN = [{"f": [[0], [1, 2], []]}, {"f": [[3, 4, 4], [5], [2]]}]
VARIABLE = [{"f": ([[0], [1, 2], []], [0, 1, 1, 2])}, {"f": ([[3, 4, 4], [5], [2]], [1, 1, 0, 2])}]
SHORTER = [{"f": [[0], [1, 2], []]}, {"f": [[3, 4, 4], [5]]}]
VARIABLE_SHORTER = [VARIABLE[0], {"f": ([[3, 4, 4], [5]], [1, 1, 0, 1])}]
TWO = [{"f": [[1, 2]], "g": [[1, 2]]}]


@pytest.mark.parametrize("sharding", ["TW", "RW", "CW"])
def test_modules_made_without_weights_use_those_they_are_fed(two_ranks, sharding: str) -> None:
    """batched_embedding_kernel.py:3044; unsharded, they pass over them. Here: fed only where tables have some."""
    out = [{"out": {"f": [10.0, 50.0, 0.0]}}, {"out": {"f": [140.0, 60.0, 30.0]}}]
    assert_gives(two_ranks, out, {"f": (sharding, "SUM")}, PLAIN, weight=10.0)


@pytest.mark.parametrize("sharding", ["TW", "RW", "CW"])
def test_what_upstream_does_right(two_ranks, sharding: str) -> None:
    """Outputs are sums, and each use of a row moves it by 1 / ranks, because TorchRec divides by their number."""
    out = [{"out": {"f": [1.0, 5.0, 0.0]}}, {"out": {"f": [14.0, 6.0, 3.0]}}]
    assert_gives(two_ranks, out, {"f": (sharding, "SUM")}, PLAIN)
    out = [{"out": {"f": [1.0, 5.0, 5.0, 0.0]}}, {"out": {"f": [6.0, 6.0, 14.0, 3.0]}}]
    moved = {"TW": [-0.5, -1.0, -1.5, -0.5, -1.0, -1.0], "RW": [-0.5, -1.0, -1.5]}
    if sharding != "CW":
        out[1 if sharding == "TW" else 0]["moved"] = {"f": moved[sharding]}
    assert_gives(two_ranks, out, {"f": (sharding, "SUM")}, VARIABLE)


# --- row-wise --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batches", [SHORTER, VARIABLE_SHORTER], ids=["plain", "VBE"])
def test_row_wise_backward_with_other_numbers_of_rows(two_ranks, batches: list[Any]) -> None:
    """comm_ops.py:2667: gradients go through a list all_gather of unequal parts, which gloo refuses.

    We send gradients in embedding/exchange/outputs.py; for dedup=off, patch 1 of embedding/torchrec_patches.py does.
    """
    assert_all_fail(two_ranks, UNEQUAL, {"f": ("RW", "SUM")}, batches)


@pytest.mark.parametrize("sharding", ["TWRW", "GRID"])
def test_hosts_backward_with_other_numbers_of_rows(four_ranks, sharding: str) -> None:
    """comm_ops.py:2667 under table-row-wise and grid sharding. We use embedding/exchange/host_sum.py."""
    assert_all_fail(four_ranks, UNEQUAL, {"f": (sharding, "SUM")}, SHORTER)


# --- MEAN pooling ----------------------------------------------------------------------------------------------------


def test_mean_beside_a_row_wise_mean_is_divided_twice(two_ranks) -> None:
    """embeddingbag.py:660, 2630: the divisor of row-wise means also hits features of other shardings.

    The rows of ids 1 and 2 are 2 and 3, with a mean of 2.5; a table-wise one becomes 1.25. We let TorchRec sum, and
    divide in embedding/exchange/assemble.py.
    """
    wrong = [{"out": {"f": [1.25], "g": [2.5]}}] * 2
    assert_gives(two_ranks, wrong, {"f": ("TW", "MEAN"), "g": ("RW", "MEAN")}, TWO, backward=False)


def test_sum_beside_a_row_wise_mean_is_divided(two_ranks) -> None:
    """embeddingbag.py:660, 2630: a sum of another sharding becomes a mean, 5.0 becomes 2.5. We divide ourselves."""
    wrong = [{"out": {"f": [2.5], "g": [2.5]}}] * 2
    assert_gives(two_ranks, wrong, {"f": ("RW", "MEAN"), "g": ("CW", "SUM")}, TWO, backward=False)


def test_mean_under_grid_is_a_sum(four_ranks) -> None:
    """embeddingbag.py:660 does not list grid_shard, so that nothing divides; 2.5 is right. We divide ourselves."""
    assert_gives(four_ranks, [{"out": {"f": [5.0]}}] * 4, {"f": ("GRID", "MEAN")}, [{"f": [[1, 2]]}], backward=False)


def test_row_wise_mean_of_variable_batches_in_another_order_is_garbage(two_ranks) -> None:
    """embeddingbag.py:2615: keys are put in the tables' order, but inverse indices are not.

    f should be 2.5, 1.0 and g 0.0, 5.0. But f is divided by g's lengths, and g by the 1e-6 of an empty list. We divide
    ourselves.
    """
    batch = {"g": ([[], [4]], [0, 1]), "f": ([[0], [1, 2]], [1, 0])}
    wrong = [{"out": {"f": [5.0, 0.5], "g": [0.0, 5e6]}}] * 2
    assert_gives(two_ranks, wrong, {"f": ("RW", "MEAN"), "g": ("RW", "MEAN")}, [batch], backward=False)


# --- TorchRec's variable batches -------------------------------------------------------------------------------------


def test_variable_batch_under_grid(four_ranks) -> None:
    """grid_sharding.py:415 has no branch for variable batches. Our exchange sends plain batches of unique rows.

    Mended in 1.9.2: outputs as of table-wise sharding; of each host's two ranks, the second holds the last three rows.
    """
    if Version(torchrec.__version__) >= Version("1.9.2"):
        right = [
            {"out": {"f": [1.0, 5.0, 5.0, 0.0]}, "moved": {"f": [-0.5, -1.0, -1.5]}},
            {"out": {"f": [6.0, 6.0, 14.0, 3.0]}, "moved": {"f": [-0.5, -1.0, -1.0]}},
        ]
        assert_gives(four_ranks, right * 2, {"f": ("GRID", "SUM")}, VARIABLE)
        return
    wanted = "IndexError: Dimension out of range (expected to be in range of [-1, 0], but got 1)"
    assert_all_fail(four_ranks, wanted, {"f": ("GRID", "SUM")}, VARIABLE)


def test_variable_batch_under_data_parallel(two_ranks) -> None:
    """embeddingbag.py:405: fbgemm's dense CPU kernel ignores it: 3 rows of 64 come back instead of 192 numbers."""
    wanted = "RuntimeError: split_with_sizes expects split_sizes to sum exactly to 3"
    assert_all_fail(two_ranks, wanted, {"f": ("DP", "SUM")}, VARIABLE)


def test_variable_batch_with_two_kernels(two_ranks) -> None:
    """embedding_lookup.py:1060: tables of two poolings share an output that is allocated in advance."""
    batch = {"f": ([[1, 2]], [0]), "g": ([[1, 2]], [0])}
    wanted = "AssertionError: [TBE API v2] Using pre-allocated vbe_output is not supported on CPU"
    assert_all_fail(two_ranks, wanted, {"f": ("CW", "SUM"), "g": ("CW", "MEAN")}, [batch])


def test_variable_batch_without_samples(two_ranks) -> None:
    """embeddingbag.py:412: view(0, -1). In our exchange a rank without samples takes part, with no rows."""
    wanted = "RuntimeError: cannot reshape tensor of 0 elements into shape [0, -1]"
    assert_all_fail(two_ranks, wanted, {"f": ("CW", "SUM")}, [{"f": ([], [])}])


def test_variable_batch_without_rows_of_a_feature(two_ranks) -> None:
    """embeddingbag.py:405: f has no list at all, though there are samples. Our exchange allows U = 0."""
    batch = {"f": ([], [0, 0]), "g": ([[1], [2]], [0, 1])}
    wanted = "RuntimeError: [batch_index_select_dim0] All input_rows must be the same."
    assert_all_fail(two_ranks, wanted, {"f": ("CW", "SUM"), "g": ("CW", "SUM")}, [batch])


def test_variable_batch_with_adagrad(two_ranks) -> None:
    """fbgemm's training ops, line 2196: only some optimizers allow VBE; EXACT_ADAGRAD is not among them."""
    wanted = "AssertionError: Variable batch size TBE support is enabled for"
    assert_all_fail(two_ranks, wanted, {"f": ("CW", "SUM")}, VARIABLE, optimizer="EXACT_ADAGRAD")


def test_variable_batch_of_sequences_trains_nothing(two_ranks) -> None:
    """modules/utils.py:244: permute_1D_sparse_data has no autograd on CPU: outputs are right, weights do not move.

    Each row should move by half the number of its uses. Our exchange treats un-pooled tables as pooled tables of single
    ids (embedding/exchange/classes.py).
    """
    still = [{"out": {"f": [1.0, 2.0, 3.0, 2.0, 3.0]}, "moved": {"f": [0.0] * 3}}]
    still += [{"out": {"f": [6.0, 6.0, 4.0, 5.0, 5.0, 3.0]}, "moved": {"f": [0.0] * 3}}]
    assert_gives(two_ranks, still, {"f": ("RW", "")}, VARIABLE)


# --- sequences, wire, checkpoints ------------------------------------------------------------------------------------


def test_data_parallel_sequences(two_ranks) -> None:
    """modules/utils.py:319: fbgemm's dense CPU kernel sums up vectors that should come back as they are."""
    wanted = "RuntimeError: split_with_sizes expects split_sizes to sum exactly to 2"
    assert_all_fail(two_ranks, wanted, {"f": ("DP", "")}, [{"f": [[0, 1, 2], [3]]}], backward=False)


def test_distinct_ids_of_sequences(two_ranks) -> None:
    """embedding.py:1421: use_index_dedup calls an operator without a CPU kernel. We use exchange/distinct.py."""
    wanted = "NotImplementedError: Could not run 'fbgemm::jagged_unique_indices' with arguments from the 'CPU' backend"
    assert_all_fail(two_ranks, wanted, {"f": ("CW", "")}, PLAIN, use_index_dedup=True)


def test_int8_row_wise(two_ranks) -> None:
    """comm_ops.py:2379 encodes without the context that INT8 needs. We use embedding/exchange/codec.py."""
    assert_all_fail(two_ranks, "AssertionError: Unexpected `None`", {"f": ("RW", "SUM")}, PLAIN, wire="INT8")


def test_async_save_of_sharded_tables(two_ranks, tmp_path) -> None:
    """torch's stager copies through data_ptr, which TorchRec's ShardedTensor lacks. We save while training waits."""
    errors = two_ranks(save_async, str(tmp_path))
    assert all("data_ptr" in error and "not supported for ShardedTensor" in error for error in errors), errors


def test_column_shards_of_different_widths_cannot_be_loaded(four_ranks) -> None:
    """embeddingbag.py:1098 takes the width of the table's first shard. We use embedding/uneven_shards.py."""
    said = four_ranks(load_own_weights, [0, 1, 2])
    assert [error == "loaded" for error in said] == [True, False, False, True], said
    assert all("shape '[-1, 8]' is invalid for input of size 28" in error for error in said[1:3]), said


def test_column_shards_of_different_widths_on_one_rank(two_ranks) -> None:
    """table_batched_embedding_slice.py:65. We refuse such places (plan/wanted_sharding.py)."""
    said = two_ranks(load_own_weights, [0, 1, 0])
    assert "shape '[-1, 8]' is invalid" in said[0], said
