"""Ids sorted by the rank that holds them: every row keeps its ids, every id finds its place."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from recd_dist.embedding.exchange.buckets import bucketize, bucketize_ids
from recd_dist.embedding.exchange.distinct import distinct_ids, sorted_distinct

BLOCK = 5
ids = st.lists(st.integers(0, 3 * BLOCK - 1), max_size=40)


def ints(values: list[int]) -> Tensor:
    return torch.tensor(values, dtype=torch.int32)


def test_bucketize_is_the_picture() -> None:
    values, lengths, weights = bucketize(ints([1, 7, 3, 9]), ints([3, 1]), torch.tensor([1.0, 2, 3, 4]), (5,), 2)
    assert (values.tolist(), lengths.tolist()) == ([1, 3, 2, 4], [2, 0, 1, 1])
    assert weights.tolist() == [1, 3, 2, 4]


@given(st.lists(ids, min_size=4, max_size=4), st.booleans())
def test_bucketize_equals_fbgemm(rows: list[list[int]], weighted: bool) -> None:
    """Two keys of two rows, in blocks of different sizes; fbgemm's kernel is what runs on CUDA."""
    values = ints([i for row in rows for i in row])
    lengths = ints([len(row) for row in rows])
    weights = torch.arange(len(values), dtype=torch.float32) if weighted else None
    found = bucketize(values, lengths, weights, (BLOCK, 2 * BLOCK), 3)
    args = (False, False, ints([BLOCK, 2 * BLOCK]), 3, weights)
    want = torch.ops.fbgemm.block_bucketize_sparse_features(lengths, values, *args)
    assert (found[0].tolist(), found[1].tolist()) == (want[1].tolist(), want[0].tolist())
    assert (found[2] is None) == (weights is None)
    if weights is not None:
        assert found[2].tolist() == want[2].tolist()


@given(ids, st.sampled_from([torch.int32, torch.int64]))
def test_single_ids(values: list[int], dtype: torch.dtype) -> None:
    given_ = torch.tensor(values, dtype=dtype)
    local, place, counts = bucketize_ids(given_, BLOCK, 3)
    owner = torch.repeat_interleave(torch.arange(3), counts)
    assert (local + owner * BLOCK)[place].tolist() == values
    assert counts.tolist() == [sum(v // BLOCK == n for v in values) for n in range(3)]


@pytest.mark.parametrize("find", [distinct_ids, sorted_distinct])
@given(values=ids, dtype=st.sampled_from([torch.int32, torch.int64]), split=st.booleans())
def test_distinct_ids(find, values: list[int], dtype: torch.dtype, split: bool) -> None:
    """By hash table, as on CPU, and by sorting, as on CUDA."""
    given_ = torch.tensor(values, dtype=dtype)
    block, num_buckets = (BLOCK, 3) if split else (torch.iinfo(dtype).max, 1)
    local, index, counts = find(given_, block, num_buckets)
    owner = torch.repeat_interleave(torch.arange(num_buckets), counts[:-1])
    once = local[: len(owner)] + owner * (block if split else 0)
    assert once[index].tolist() == values
    assert sorted(once.tolist()) == sorted(set(values))
    assert int(counts.sum()) == len(local)
    assert counts.tolist()[:-1] == [sum(v // block == n for v in set(values)) for n in range(num_buckets)]
