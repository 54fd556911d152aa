"""Grouped tensors expand their unique rows; gradients sum over the samples of a row."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recd_dist.tensors.expansion import expand_rows, sum_rows, sum_sorted_rows
from recd_dist.tensors.grouped import Embedded, Grouped, GroupedJagged


def ints(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int32)


def test_expand() -> None:
    rows = Grouped(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), ints(0, 0, 1, 0), ("a", "b"), (1, 1))
    assert rows.expand().tolist() == [[1, 2], [1, 2], [3, 4], [1, 2]]
    assert (rows.num_rows, rows.batch_size) == (2, 4)
    assert rows["b"].tolist() == [[2], [4]]


def test_expand_without_inverse_is_free() -> None:
    values = torch.ones(3, 2)
    assert Grouped(values).expand() is values
    assert Grouped(values).batch_size == 3


def test_sum_rows() -> None:
    values = torch.tensor([[1.0, 2.0], [10.0, 20.0], [100.0, 200.0]])
    assert sum_rows(values, ints(2, 0, 2), 4).tolist() == [[10, 20], [0, 0], [101, 202], [0, 0]]


def test_rows_of_16_bits_are_summed_up_in_32() -> None:
    """In bfloat16, 256 + 1 is 256."""
    values = torch.ones(1000, 1, dtype=torch.bfloat16)
    assert sum_rows(values, ints(*[0] * 1000), 1).tolist() == [[1000.0]]


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 2, 2)])
def test_sum_rows_of_nothing(shape: tuple[int, ...]) -> None:
    inverse = torch.zeros(shape[0], dtype=torch.int32)
    assert torch.equal(sum_rows(torch.ones(shape), inverse, 2), torch.zeros(2, *shape[1:]))


@given(st.lists(st.integers(0, 4), max_size=12), st.sampled_from([(), (3,), (2, 3)]), st.booleans())
def test_gradient_of_expand(inverse: list[int], shape: tuple[int, ...], wide: bool) -> None:
    """Value and gradient are those of index_select, for any order of samples and with rows that no sample has."""
    index = torch.tensor(inverse, dtype=torch.int64 if wide else torch.int32)
    values = torch.randn(5, *shape, dtype=torch.float64, requires_grad=True)
    out = expand_rows(values, index)
    upstream = torch.randn_like(out)
    plain = values.index_select(0, index)
    assert torch.equal(out, plain)
    (gradient,) = torch.autograd.grad(out, values, upstream)
    (plain_gradient,) = torch.autograd.grad(plain, values, upstream)
    torch.testing.assert_close(gradient, plain_gradient, rtol=1e-12, atol=1e-12)


@pytest.fixture
def lists() -> GroupedJagged:
    """Rows [1, 2], [] and [3] of one dimension; samples 0 to 3 have the rows 2, 0, 0 and 1."""
    return GroupedJagged(torch.tensor([[1.0], [2.0], [3.0]]), ints(2, 0, 1), ints(2, 0, 0, 1))


def test_lists(lists: GroupedJagged) -> None:
    assert (lists.num_rows, lists.batch_size) == (3, 4)
    assert lists.pool().values.tolist() == [[3], [0], [3]]
    assert lists.pool().expand().tolist() == [[3], [3], [3], [0]]
    full = lists.expand()
    assert (full.values.squeeze(1).tolist(), full.lengths.tolist(), full.inverse) == (
        [3, 1, 2, 1, 2],
        [1, 2, 2, 0],
        None,
    )
    assert full.expand() is full


def test_pad(lists: GroupedJagged) -> None:
    padded, mask = lists.pad()
    assert padded.squeeze(2).tolist() == [[1, 2], [0, 0], [3, 0]]
    assert mask.tolist() == [[True, True], [False, False], [True, False]]
    assert lists.pad(3)[0].shape == (3, 3, 1)
    nothing, mask = GroupedJagged(torch.zeros(0, 2), ints(0, 0)).pad()
    assert (nothing.shape, mask.shape) == ((2, 0, 2), (2, 0))


def test_keep_last(lists: GroupedJagged) -> None:
    newest = lists.keep_last(1)
    assert (newest.values.squeeze(1).tolist(), newest.lengths.tolist()) == ([2, 3], [1, 0, 1])
    assert newest.inverse is lists.inverse


def test_padding_carries_gradients(lists: GroupedJagged) -> None:
    values = lists.values.clone().requires_grad_()
    padded, _ = lists.with_values(values).pad()
    (padded * torch.arange(6.0).view(3, 2, 1)).sum().backward()
    assert values.grad is not None
    assert values.grad.squeeze(1).tolist() == [0, 1, 4]


def test_embedded_expands_pooled_and_sequences(lists: GroupedJagged) -> None:
    pooled = {"g": Grouped(torch.tensor([[1.0], [2.0]]), ints(1, 0, 0, 1), ("a",), (1,))}
    full = Embedded(pooled, {"h": lists}).expand()
    assert full.pooled["g"].values.tolist() == [[2], [1], [1], [2]]
    assert (full.pooled["g"].inverse, full.pooled["g"].keys) == (None, ("a",))
    assert full.sequences["h"].inverse is None


@given(st.lists(st.integers(0, 5), min_size=1, max_size=30), st.integers(1, 3))
def test_rows_are_summed_by_sorting_as_by_the_loop(inverse: list[int], width: int) -> None:
    """The sort runs on CUDA, the loop on CPU; whole numbers are summed without rounding."""
    values = torch.arange(1.0, len(inverse) * width + 1).view(-1, width)
    index = ints(*inverse)
    assert torch.equal(sum_sorted_rows(values, index, 6), sum_rows(values, index, 6))


def test_what_the_host_knows_goes_with_the_lists() -> None:
    lengths = ints(3, 1)
    known = GroupedJagged(torch.arange(4.0)[:, None], lengths, ints(0, 1, 0), lengths.numpy(), ints(0, 1, 0).numpy())
    assert known.longest() == 3
    assert known.keep_last(2).known_lengths.tolist() == known.keep_last(2).lengths.tolist() == [2, 1]
    assert known.expand().known_lengths.tolist() == known.expand().lengths.tolist() == [3, 1, 3]
    assert known.expand().values.squeeze(1).tolist() == [0, 1, 2, 3, 0, 1, 2]
