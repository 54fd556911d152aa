"""Queries look at lists as they lie: scores, softmax and sums against plain torch, list by list."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recd_dist.tensors.bands import Bands
from recd_dist.tensors.grouped import GroupedJagged
from recd_dist.tensors.list_queries import ListQueries

HEADS, WIDTH = 2, 3


def plain(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """One query [dim] looks at one list [n, dim]."""
    n = len(key)
    q, k, v = (x.unflatten(-1, (HEADS, WIDTH)) for x in (query, key, value))
    scores = torch.einsum("hd,nhd->hn", q, k) + bias[:, :n].flip(1)
    return torch.einsum("hn,nhd->hd", scores.softmax(1), v).flatten()


@settings(max_examples=30, deadline=None)
@given(lengths=st.lists(st.integers(0, 7), min_size=1, max_size=6), data=st.data())
def test_against_plain_torch(lengths: list[int], data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.integers(0, len(lengths) - 1), min_size=1, max_size=9))
    generator = torch.Generator().manual_seed(0)
    query, key, value, bias = (
        torch.randn(n, w, generator=generator, dtype=torch.float64).requires_grad_()
        for n, w in ((len(rows), 6), (sum(lengths), 6), (sum(lengths), 6), (HEADS, 8))
    )
    lists = GroupedJagged(key, torch.tensor(lengths, dtype=torch.int32))
    queries = ListQueries.of(lists, torch.tensor(rows, dtype=torch.int32).numpy())
    seen = queries.sum(queries.softmax(queries.score(query, key, HEADS, bias)), value)
    keys, values = key.split(lengths), value.split(lengths)
    expected = torch.stack([plain(query[m], keys[r], values[r], bias) for m, r in enumerate(rows)])
    torch.testing.assert_close(seen, expected)
    weights = torch.randn(seen.shape, generator=generator, dtype=torch.float64)
    ours = torch.autograd.grad(seen, (query, key, value, bias), weights)
    for one, other in zip(ours, torch.autograd.grad(expected, (query, key, value, bias), weights), strict=True):
        torch.testing.assert_close(one, other)


def test_the_pairs_of_queries() -> None:
    lists = GroupedJagged(torch.zeros(4, 1), torch.tensor([3, 1], dtype=torch.int32))
    queries = ListQueries.of(lists, torch.tensor([1, 0, 1]).numpy())
    assert queries.vectors().tolist() == [3, 0, 1, 2, 3]
    assert queries.seen.tolist() == [1, 3, 1]


@settings(max_examples=30, deadline=None)
@given(lengths=st.lists(st.integers(0, 40), max_size=20), most=st.sampled_from([1, 500, 1 << 20]))
def test_bands_hold_every_vector_once_with_little_padding(lengths: list[int], most: int) -> None:
    values = torch.arange(sum(lengths), dtype=torch.float64)[:, None]
    lists = GroupedJagged(values, torch.tensor(lengths, dtype=torch.int32))
    bands = Bands.of(lists, most)
    split = bands.sort(values).split([b.num_values for b in bands.bands])
    assert [b.longest for b in bands.bands] == sorted((b.longest for b in bands.bands), reverse=True)
    for band, own in zip(bands.bands, split, strict=True):
        assert torch.equal(band.take(band.pad(own)), own)
        squares = int((band.lengths**2).sum())
        assert len(band.lengths) * band.longest**2 <= 1.25 * squares + 4096
        assert len(band.lengths) == 1 or len(band.lengths) * band.longest**2 <= most
    assert torch.equal(bands.unsort(bands.sort(values)), values)
    assert torch.equal(bands.map(lambda band, own: band.take(band.pad(own)), bands.sort(values), 1), bands.sort(values))
