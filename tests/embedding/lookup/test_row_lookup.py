"""Our lookup against fbgemm's kernel: the same sums, weights and optimizer states after some steps."""

import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from fbgemm_gpu.split_embedding_configs import EmbOptimType, SparseType
from fbgemm_gpu.split_table_batched_embeddings_ops_common import EmbeddingLocation, PoolingMode
from fbgemm_gpu.split_table_batched_embeddings_ops_training import ComputeDevice, SplitTableBatchedEmbeddingBagsCodegen
from hypothesis import given, settings
from hypothesis import strategies as st
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from recd_dist.embedding.lookup import row_lookup
from recd_dist.embedding.lookup.row_lookup import OPTIMIZERS, RowLookup, is_supported

TABLES = ((50, 4), (3, 12), (700, 24), (5000, 64), (1, 8), (40, 256))
"""Rows and columns; every number of columns leaves another rest of 16."""

FEATURES = (0, 1, 1, 2, 3, 4, 5, 5, 5)
"""The table of each key: two of them are looked up by several."""


def build(optimizer: EmbOptimType, tables: Any = TABLES, features: Any = FEATURES, **options: Any) -> Any:
    place = EmbeddingLocation.HOST, ComputeDevice.CPU
    module = SplitTableBatchedEmbeddingBagsCodegen(
        [(*table, *place) for table in tables],
        feature_table_map=list(features),
        optimizer=optimizer,
        learning_rate=0.1,
        device=torch.device("cpu"),
        **{"eps": 1e-8, **options},
    )
    with torch.no_grad():
        for number, weight in enumerate(module.split_embedding_weights()):
            weight.uniform_(-1, 1, generator=torch.Generator().manual_seed(number))
    return module


def call_fbgemm(module: Any) -> Callable[[KeyedJaggedTensor], torch.Tensor]:
    """Fbgemm's lookup, as TorchRec's kernel calls it."""
    return lambda kjt: module(kjt.values().long(), kjt.offsets().long(), kjt.weights_or_none())


def batch(
    seed: int, stride: int, longest: int, *, weighted: bool = False, dtype: torch.dtype = torch.int32, few: int = 10**9
) -> KeyedJaggedTensor:
    random = np.random.default_rng(seed)
    lengths = random.integers(0, longest + 1, len(FEATURES) * stride)
    rows = np.repeat([min(TABLES[t][0], few) for t in FEATURES], lengths.reshape(len(FEATURES), -1).sum(1))
    return KeyedJaggedTensor(
        [f"f{n}" for n in range(len(FEATURES))],
        torch.tensor(random.integers(0, rows), dtype=dtype),
        torch.tensor(random.uniform(-1, 2, len(rows)), dtype=torch.float32) if weighted else None,
        lengths=torch.tensor(lengths, dtype=torch.int32),
        stride=stride,
    )


def states(module: Any) -> list[torch.Tensor]:
    if module.optimizer == EmbOptimType.EXACT_SGD:
        return []
    return [value for state in module.get_optimizer_state() for value in state.values()]


def compare(optimizer: EmbOptimType, batches: list[KeyedJaggedTensor]) -> None:
    theirs, ours = build(optimizer), build(optimizer)
    judge, lookup = call_fbgemm(theirs), RowLookup(ours)
    before = ours.weights_host.clone()
    for number, kjt in enumerate(batches):
        expected, found = judge(kjt), lookup(kjt)
        torch.testing.assert_close(found, expected, rtol=2e-5, atol=2e-5)
        gradient = torch.randn(expected.shape, generator=torch.Generator().manual_seed(number))
        expected.backward(gradient)
        found.backward(gradient)
    torch.testing.assert_close(ours.weights_host, theirs.weights_host, rtol=2e-5, atol=2e-5)
    torch.testing.assert_close(states(ours), states(theirs), rtol=2e-5, atol=1e-5)
    if any(len(kjt.values()) for kjt in batches):
        assert not torch.equal(before, ours.weights_host)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: o.name)
def test_ten_steps_are_those_of_fbgemm(optimizer: EmbOptimType, weighted: bool, dtype: torch.dtype) -> None:
    compare(optimizer, [batch(n, 20 + n, 7, weighted=weighted, dtype=dtype) for n in range(10)])


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(list(OPTIMIZERS)),
    st.integers(0, 10**6),
    st.integers(1, 40),
    st.sampled_from([0, 1, 30]),
    st.booleans(),
    st.sampled_from([1, 3, 10**9]),
)
def test_any_batch(optimizer: EmbOptimType, seed: int, stride: int, longest: int, weighted: bool, few: int) -> None:
    compare(optimizer, [batch(seed + n, stride, longest, weighted=weighted, few=few) for n in range(2)])


def test_many_ids_are_sorted_in_several_passes_and_on_several_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_lookup, "IDS_OF_THREAD", 500)
    large = [batch(n, 500, 80, weighted=bool(n), few=4000 - 3999 * (n // 2)) for n in range(3)]
    threads = torch.get_num_threads()
    alone, together = build(EmbOptimType.EXACT_ROWWISE_ADAGRAD), build(EmbOptimType.EXACT_ROWWISE_ADAGRAD)
    for module, number in ((alone, 1), (together, 3)):
        torch.set_num_threads(number)
        try:
            lookup = RowLookup(module)
            for kjt in large:
                lookup(kjt).square().sum().backward()
        finally:
            torch.set_num_threads(threads)
    assert torch.equal(alone.weights_host, together.weights_host)  # the order of every sum is the same
    assert torch.equal(alone.momentum1_host, together.momentum1_host)
    compare(EmbOptimType.EXACT_ROWWISE_ADAGRAD, large[:1])


def test_a_changed_learning_rate_holds_from_the_next_update_on() -> None:
    module = build(EmbOptimType.EXACT_SGD)
    lookup, kjt = RowLookup(module), batch(0, 5, 4)
    before = module.weights_host.clone()
    module.set_learning_rate(0.0)
    lookup(kjt).sum().backward()
    assert torch.equal(module.weights_host, before)
    module.set_learning_rate(1.0)
    lookup(kjt).sum().backward()
    counts = torch.bincount(kjt.values()[: int(kjt.lengths()[:5].sum())].long(), minlength=50)
    moved = (before - module.weights_host)[:200].view(50, 4)
    torch.testing.assert_close(moved, counts[:, None].expand(50, 4).float())


def test_nothing_is_updated_without_gradients_and_twice_looked_up_is_twice_updated() -> None:
    module = build(EmbOptimType.EXACT_SGD)
    lookup, kjt = RowLookup(module), batch(0, 5, 4)
    before = module.weights_host.clone()
    with torch.no_grad():
        assert not lookup(kjt).requires_grad
    (lookup(kjt) + lookup(kjt)).sum().backward()
    twice = build(EmbOptimType.EXACT_SGD)
    twice.set_learning_rate(0.2)
    RowLookup(twice)(kjt).sum().backward()
    assert not torch.equal(module.weights_host, before)
    torch.testing.assert_close(module.weights_host, twice.weights_host)


def test_ids_outside_their_table_look_up_row_0_as_in_fbgemm(caplog: pytest.LogCaptureFixture) -> None:
    module = build(EmbOptimType.EXACT_SGD, [(5, 4)], [0])
    lookup = RowLookup(module)
    kjt = KeyedJaggedTensor(["f"], torch.tensor([5, -2, 1, 1 << 40]), lengths=torch.ones(4, dtype=torch.int32))
    with caplog.at_level(logging.WARNING):
        found, _ = lookup(kjt), lookup(kjt)
    assert [r.getMessage() for r in caplog.records] == [
        "3 ids of a batch lie outside their tables, and look up row 0; more are not told"
    ]
    torch.testing.assert_close(found, call_fbgemm(build(EmbOptimType.EXACT_SGD, [(5, 4)], [0]))(kjt))


@pytest.mark.parametrize("lengths", [[2, 2], [2, 0], [4, -1]])
def test_lengths_that_do_not_fit_the_ids_are_refused(lengths: list[int]) -> None:
    lookup = RowLookup(build(EmbOptimType.EXACT_SGD, [(5, 4)], [0]))
    with pytest.raises(ValueError, match="3 ids, 0 weights, lengths that sum to"):
        lookup.find_rows(torch.tensor([1, 2, 3]), torch.tensor(lengths, dtype=torch.int32), None, is_trained=True)


def test_gradients_of_weights_are_left_to_fbgemm() -> None:
    module, kjt = build(EmbOptimType.EXACT_SGD), batch(0, 5, 4, weighted=True)
    weights = kjt.weights().requires_grad_()
    RowLookup(module, call_fbgemm(module))(kjt).sum().backward()
    assert weights.grad is not None
    with pytest.raises(ValueError, match="get no gradients without TorchRec's kernel"):
        RowLookup(module)(kjt)


def test_what_the_loops_do_not_do_stays_with_fbgemm() -> None:
    assert is_supported(build(EmbOptimType.EXACT_SGD))
    assert not is_supported(build(EmbOptimType.EXACT_SGD, weights_precision=SparseType.FP16))
    assert not is_supported(build(EmbOptimType.EXACT_SGD, pooling_mode=PoolingMode.MEAN))
    assert not is_supported(build(EmbOptimType.EXACT_ROWWISE_ADAGRAD, weight_decay=0.1))
    assert not is_supported(build(EmbOptimType.EXACT_ROWWISE_ADAGRAD, gradient_clipping=True))
    assert not is_supported(SimpleNamespace())
