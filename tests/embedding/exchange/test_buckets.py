"""Ids sorted by the rank that holds them: every row keeps its ids, and every id is found again."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from recd_dist.embedding.exchange.buckets import bucketize, bucketize_ids

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
    ours = bucketize(values, lengths, weights, (BLOCK, 2 * BLOCK), 3)
    args = (False, False, ints([BLOCK, 2 * BLOCK]), 3, weights)
    theirs = torch.ops.fbgemm.block_bucketize_sparse_features(lengths, values, *args)
    assert (ours[0].tolist(), ours[1].tolist()) == (theirs[1].tolist(), theirs[0].tolist())
    assert (ours[2] is None) == (weights is None)
    if weights is not None:
        assert ours[2].tolist() == theirs[2].tolist()


@given(ids, st.sampled_from([torch.int32, torch.int64]))
def test_single_ids(values: list[int], dtype: torch.dtype) -> None:
    local, index, counts = bucketize_ids(torch.tensor(values, dtype=dtype), BLOCK, 3)
    owner = torch.repeat_interleave(torch.arange(3), counts)
    assert (local + owner * BLOCK)[index].tolist() == values
    assert counts.tolist() == [sum(v // BLOCK == n for v in values) for n in range(3)]
