"""Queries that look at lists of vectors: scores, softmax and weighted sums without padding.

::

    lists     row 0: h0 h1 h2    row 1: h3        queries   q0 -> row 0, q1 -> row 0, q2 -> row 1
    pairs     q0.h0 q0.h1 q0.h2 | q1.h0 q1.h1 q1.h2 | q2.h3

On the host (float32, float64) nothing is padded and nothing is copied per query: a list is read once for all queries
that look at it (list_loops.py). An empty list has no pairs, and its weighted sum is zero.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from recd_dist.tensors import list_loops
from recd_dist.tensors.grouped import GroupedJagged
from recd_dist.tensors.host_side import HostArray, host_array, is_on_host
from recd_dist.tensors.list_loops import Integers, Places


def fits_loops(values: Tensor) -> bool:
    """Whether the loops take a tensor: it lies on the host, in float32 or float64."""
    return is_on_host(values) and values.dtype in (torch.float32, torch.float64)


@dataclass(frozen=True, eq=False)
class ListQueries:
    """Which query looks at which list.

    Attributes:
        starts: int64 [U], where each list begins.
        lengths: int64 [U], the lists' lengths.
        order: int64 [M], the queries, list after list.
        bounds: int64 [U + 1], where the queries of each list begin in ``order``.
        offsets: int64 [M + 1], where the pairs of each query begin, and their number.
        seen: int64 [M], the length of each query's list.
        rows: int [M], the list of each query.
    """

    starts: Integers
    lengths: Integers
    order: Integers
    bounds: Integers
    offsets: Integers
    seen: Integers
    rows: HostArray

    @staticmethod
    def of(lists: GroupedJagged, rows: HostArray | None) -> "ListQueries":
        """The queries of a batch.

        Args:
            lists: the lists.
            rows: int [M], for each query its list; None where query i looks at list i.
        """
        lengths = host_array(lists.lengths, lists.known_lengths).astype(np.int64)
        starts = np.cumsum(lengths) - lengths
        if rows is None:
            rows = np.arange(len(lengths), dtype=np.int32)
        order = np.argsort(rows, kind="stable")
        bounds = np.searchsorted(rows[order], np.arange(len(lengths) + 1))
        seen = lengths[rows]
        return ListQueries(starts, lengths, order, bounds, np.concatenate([[0], np.cumsum(seen)]), seen, rows)

    @property
    def num_pairs(self) -> int:
        """The number of pairs of a query and a vector."""
        return int(self.offsets[-1])

    def score(self, query: Tensor, key: Tensor, heads: int, bias: Tensor | None = None) -> Tensor:
        """The dot products of all pairs, [heads, pairs], query after query.

        Args:
            query: [M, dim].
            key: [N, dim], the lists' vectors.
            heads: the number of heads; each has its columns of ``dim``.
            bias: [heads, at least the longest length], added by the age of the vector, 0 for the last; or None.
        """
        bias = query.new_zeros(heads, 0) if bias is None else bias
        scores: Tensor = _Score.apply(query.contiguous(), key.contiguous(), bias, self)  # type: ignore[no-untyped-call,unused-ignore]
        return scores

    def softmax(self, scores: Tensor) -> Tensor:
        """The softmax of scores [heads, pairs] over each query's list."""
        weights: Tensor = _Softmax.apply(scores.contiguous(), self.seen)  # type: ignore[no-untyped-call,unused-ignore]
        return weights

    def sum(self, weights: Tensor, value: Tensor) -> Tensor:
        """The weighted sums of each query's list, [M, dim].

        Args:
            weights: [heads, pairs].
            value: [N, dim].
        """
        sums: Tensor = _Sum.apply(weights.contiguous(), value.contiguous(), self)  # type: ignore[no-untyped-call,unused-ignore]
        return sums

    def vectors(self) -> Integers:
        """For each pair the number of its vector, int64 [pairs]."""
        shift = np.repeat(self.starts[self.rows] - self.offsets[:-1], self.seen)
        return shift + np.arange(self.num_pairs)

    @property
    def places(self) -> Places:
        """The arrays as the loops take them."""
        return self.starts, self.lengths, self.order, self.bounds, self.offsets

    @property
    def is_empty(self) -> bool:
        """Whether there is no pair."""
        return self.num_pairs == 0


def _numpy(tensor: Tensor) -> Any:
    return tensor.detach().contiguous().numpy()


class _Score(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, bias: Tensor, queries: ListQueries) -> Tensor:
        ctx.save_for_backward(query, key)
        ctx.queries, ctx.bias_shape = queries, bias.shape
        scores = query.new_empty(len(bias), queries.num_pairs)
        if not queries.is_empty:
            list_loops.score_pairs(_numpy(query), _numpy(key), _numpy(bias), queries.places, len(bias), scores.numpy())
        return scores

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key = ctx.saved_tensors
        grads = torch.zeros_like(query), torch.zeros_like(key), query.new_zeros(ctx.bias_shape)
        if not ctx.queries.is_empty:
            outs = [g.numpy() for g in grads]
            list_loops.score_pairs_backward(_numpy(query), _numpy(key), ctx.queries.places, _numpy(grad), *outs)
        return (*grads, None)


class _Softmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, scores: Tensor, lengths: Integers) -> Tensor:
        weights = scores.detach().clone()
        list_loops.subtract_largest(weights.numpy(), lengths)
        weights.exp_()
        list_loops.divide_by_sums(weights.numpy(), lengths)
        ctx.save_for_backward(weights)
        ctx.lengths = lengths  # type: ignore[attr-defined]
        return weights

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (weights,) = ctx.saved_tensors
        out = torch.empty_like(weights)
        list_loops.softmax_backward(_numpy(weights), _numpy(grad), ctx.lengths, out.numpy())
        return out, None


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weights: Tensor, value: Tensor, queries: ListQueries) -> Tensor:
        ctx.save_for_backward(weights, value)
        ctx.queries = queries
        sums = value.new_zeros(len(queries.order), value.shape[1])
        if not queries.is_empty:
            list_loops.sum_pairs(_numpy(weights), _numpy(value), queries.places, len(weights), sums.numpy())
        return sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weights, value = ctx.saved_tensors
        grads = torch.zeros_like(weights), torch.zeros_like(value)
        if not ctx.queries.is_empty:
            outs = [g.numpy() for g in grads]
            given = (_numpy(weights), _numpy(value), ctx.queries.places, len(weights), _numpy(grad))
            list_loops.sum_pairs_backward(*given, *outs)
        return (*grads, None)
