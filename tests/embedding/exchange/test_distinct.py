"""Distinct ids: each once, sorted by the rank that holds it, and an index that leads back to the list."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recd_dist.embedding.exchange.distinct import distinct_ids, sort_distinct_ids

BLOCK = 5


@pytest.mark.parametrize("find", [distinct_ids, sort_distinct_ids])
@given(
    values=st.lists(st.integers(0, 3 * BLOCK - 1), max_size=40),
    dtype=st.sampled_from([torch.int32, torch.int64]),
    split=st.booleans(),
)
def test_distinct_ids(find, values: list[int], dtype: torch.dtype, split: bool) -> None:
    """By hash table, as on CPU, and by sorting, as on CUDA."""
    block, num_buckets = (BLOCK, 3) if split else (torch.iinfo(dtype).max, 1)
    local, index, counts = find(torch.tensor(values, dtype=dtype), block, num_buckets)
    owner = torch.repeat_interleave(torch.arange(num_buckets), counts[:-1])
    once = local[: len(owner)] + owner * (block if split else 0)
    assert once[index].tolist() == values
    assert sorted(once.tolist()) == sorted(set(values))
    assert int(counts.sum()) == len(local)
    assert counts.tolist()[:-1] == [sum(v // block == n for v in set(values)) for n in range(num_buckets)]
