"""The scores of DIN's activation unit on the host: small blocks of matrix products, without a copy per pair.

::

    slot   a list h [longest, dim], and up to 8 candidates c that look at it
    x      (W * c) [width * hidden, dim]  times  h [dim, longest]

Lists are sorted by length, so that those of a block are nearly as long, and a block is small enough that x stays in the
cache. The backward pass computes x once more, which costs less than to keep it: it has a number for each pair and
hidden unit.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from recd_dist.tensors import unit_loops
from recd_dist.tensors.list_loops import Integers
from recd_dist.tensors.list_queries import ListQueries
from recd_dist.tensors.slots import slot_width
from recd_dist.tensors.unit_loops import Layers

MAX_CELLS = 1 << 18
"""The most numbers of x in a block of several slots; 1 MB in float32."""

MAX_PADDED = 1.15
"""How many times more numbers than its own pairs have a block may hold."""


def score_pairs(
    queries: ListQueries,
    vector: Tensor,
    of_vector: Tensor,
    candidate: Tensor,
    of_candidate: Tensor,
    product: Tensor,
    out: Tensor,
    slope: Tensor,
) -> Tensor:
    """The scores of all pairs, [1, pairs].

    Args:
        queries: which candidate looks at which list.
        vector: [N, dim], the lists' vectors.
        of_vector: [N, hidden], their part of the hidden layer.
        candidate: [M, dim].
        of_candidate: [M, hidden], their part.
        product: [hidden, dim], the weight of the products.
        out: [hidden], the weight of the hidden layer.
        slope: [1], of PReLU.
    """
    given = (vector, of_vector, candidate, of_candidate, product, out, slope)
    scores: Tensor = _Unit.apply(queries, *(g.contiguous() for g in given))  # type: ignore[no-untyped-call,unused-ignore]
    return scores[None]


@dataclass(frozen=True, eq=False)
class _Block:
    """Slots whose lists are nearly as long.

    Attributes:
        starts: [slots], where each slot's list begins.
        lengths: [slots], how long it is.
        queries: [slots, width], the candidates; -1 for none.
    """

    starts: Integers
    lengths: Integers
    queries: Integers

    def gather(self, vector: Tensor, candidate: Tensor) -> tuple[Tensor, Tensor]:
        """The lists [slots, longest, dim] and the candidates [slots, width, dim]; what is in no pair is arbitrary."""
        longest = int(self.lengths.max())
        places = self.starts[:, None] + np.minimum(np.arange(longest), self.lengths[:, None] - 1)
        lists = vector.index_select(0, torch.from_numpy(places.ravel())).view(*places.shape, -1)
        own = candidate.index_select(0, torch.from_numpy(np.maximum(self.queries, 0).ravel()))
        return lists, own.view(*self.queries.shape, -1)


def _cut_blocks(queries: ListQueries, hidden: int) -> Iterator[_Block]:
    """Cuts the slots, in falling order of their lists' lengths, into blocks."""
    num_queries = np.diff(queries.bounds)
    width = slot_width(len(queries.order), max(int(np.count_nonzero(num_queries)), 1))
    by_length = np.argsort(-queries.lengths, kind="stable")
    num_slots = np.where(queries.lengths > 0, -(-num_queries // width), 0)[by_length]
    lists = np.repeat(by_length, num_slots)
    number = np.arange(len(lists)) - np.repeat(np.cumsum(num_slots) - num_slots, num_slots)
    places = (queries.bounds[lists] + number * width)[:, None] + np.arange(width)
    is_there = places < queries.bounds[lists + 1][:, None]
    chosen = np.where(is_there, queries.order[np.minimum(places, len(queries.order) - 1)], -1)
    lengths, first = queries.lengths[lists], 0
    while first < len(lists):
        longest = lengths[first]
        end = first + max(1, MAX_CELLS // int(width * hidden * longest))
        end = min(end, first + int(np.searchsorted(-lengths[first:], -longest / MAX_PADDED, side="right")))
        block = slice(first, end)
        yield _Block(queries.starts[lists[block]], lengths[block], chosen[block])
        first = end


def _layers(given: Sequence[Tensor]) -> Layers:
    """The parts of the unit that the loops take."""
    _, of_vector, _, of_candidate, _, out, slope = (t.detach().numpy() for t in given)
    return of_vector, of_candidate, out, slope


class _Unit(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, queries: ListQueries, *given: Tensor) -> Tensor:
        ctx.save_for_backward(*given)
        ctx.queries = queries
        vector, _, candidate, _, product, out, _ = given
        scores = vector.new_zeros(queries.num_pairs)
        small = _layers(given)
        for block in _cut_blocks(queries, len(out)):
            lists, own = block.gather(vector, candidate)
            x = torch.bmm((own[:, :, None, :] * product).flatten(1, 2), lists.mT)
            places = (block.starts, block.lengths, block.queries, queries.offsets)
            unit_loops.score_slots(x.numpy(), small, places, scores.numpy())
        return scores

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        queries, given = ctx.queries, ctx.saved_tensors
        vector, _, candidate, _, product, out, _ = given
        grads = [torch.zeros_like(g) for g in given]
        small, own_sums = _layers(given), _layers(grads)
        upstream = grad.contiguous().numpy()
        for block in _cut_blocks(queries, len(out)):
            lists, own = block.gather(vector, candidate)
            factors = (own[:, :, None, :] * product).flatten(1, 2)
            x = torch.bmm(factors, lists.mT)
            places = (block.starts, block.lengths, block.queries, queries.offsets)
            unit_loops.score_slots_backward(x.numpy(), small, places, upstream, own_sums)
            unit_loops.add_slots(torch.bmm(x.mT, factors).numpy(), block.starts, block.lengths, grads[0].numpy())
            of_factors = torch.bmm(x, lists).view(-1, *product.shape)  # [slots * width, hidden, dim]
            sides = candidate.numpy(), product.numpy()
            unit_loops.add_factors(
                of_factors.numpy(), block.queries.ravel(), *sides, grads[2].numpy(), grads[4].numpy()
            )
        return (None, *grads)
