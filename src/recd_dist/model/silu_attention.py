"""HSTU's attention inside a history: pointwise SiLU in place of softmax, with biases by distance and by time.

For event i of a history, and each event j up to it::

    seen_i = sum over j <= i of  silu(q_i . k_j + position[i - j] + time[bucket(t_i - t_j)]) v_j

Rows are computed in bands of similar length (tensors/bands.py) and in blocks of queries, each with the keys up to its
end, so that half of the square that no event may see is hardly computed, and scores stay in the cache. The backward
pass computes the scores once more: what is kept of the forward pass grows with the length, not with its square. A
causal history needs no mask for what is padded behind the end of a row: no event sees it.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from recd_dist.tensors.bands import Band, Bands
from recd_dist.tensors.host_side import is_on_host
from recd_dist.tensors.tracing import is_traced

BLOCK = 128
"""Queries of a block."""

NUM_BUCKETS = 64
"""Buckets of time: bucket b has differences from 2^b to 2^(b + 1), the first also those below."""


def bucket_of(difference: Tensor) -> Tensor:
    """The bucket of differences of time: the number of the highest bit, int64 in [0, NUM_BUCKETS).

    Args:
        difference: int64, in whatever unit the data have; what is below 1 counts as 1.
    """
    return torch.frexp(difference.clamp(min=1).double())[1].long() - 1


def find_buckets(bands: Bands, times: Tensor) -> list[Tensor]:
    """For each band the buckets of all pairs of events, int64 [rows, longest, longest].

    Args:
        bands: the bands.
        times: int64 [N], the times of the events in the order of the bands.
    """
    found = []
    for band, own in zip(bands.bands, times[:, None].split([b.num_values for b in bands.bands]), strict=True):
        padded = band.pad(own)[:, :, 0]
        found.append(bucket_of(padded[:, :, None] - padded[:, None, :]))
    return found


def attend_causally(
    key_value_query: Tensor, bands: Bands, position: Tensor, time: Tensor | None, buckets: Sequence[Tensor]
) -> Tensor:
    """What each event sees of its history up to itself, [N, dim].

    Args:
        key_value_query: [N, 3 * dim], in the order of the bands; queries are scaled.
        bands: the bands.
        position: [heads, longest], the bias by distance.
        time: [heads, NUM_BUCKETS], the bias by difference of time; None for none.
        buckets: for each band the buckets of its pairs of events; empty where ``time`` is None.
    """
    seen: Tensor = _Attend.apply(key_value_query, bands, position, time, buckets)  # type: ignore[no-untyped-call,unused-ignore]
    return seen


def look_up(table: Tensor, index: Tensor) -> Tensor:
    """``table[:, index]``, whose gradient is counted instead of added element by element.

    Args:
        table: [heads, K].
        index: int64 [P] in [0, K).
    """
    found: Tensor = _LookUp.apply(table, index)  # type: ignore[no-untyped-call,unused-ignore]
    return found


def _sum_by_index(values: Tensor, index: Tensor, size: int) -> Tensor:
    """Sums of values [heads, P] by index [P], [heads, size]."""
    if not is_on_host(values):  # there, the host would wait for bincount
        return values.new_zeros(len(values), size).index_add_(1, index, values)
    return torch.stack([torch.bincount(index, weights=v, minlength=size) for v in values]).to(values.dtype)


class _LookUp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.size = table.shape[1]
        return table.index_select(1, index)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (index,) = ctx.saved_tensors
        return _sum_by_index(grad, index, ctx.size), None


def _by_head(band: Band, values: Tensor, heads: int) -> Tensor:
    """Vectors [n, dim] of a band by head, [heads * rows, longest, dim / heads]."""
    padded = band.pad(values).unflatten(2, (heads, -1))
    return padded.permute(2, 0, 1, 3).flatten(0, 1)


def _from_heads(band: Band, values: Tensor, heads: int) -> Tensor:
    """Undoes ``_by_head``."""
    rows = values.view(heads, band.lengths.shape[0], band.longest, values.shape[2]).permute(1, 2, 0, 3)
    return band.take(rows.flatten(2))


class _Blocks:
    """The blocks of queries of one band and their scores.

    Args:
        band: the band.
        parts: keys, values and queries of the band, [n, dim] each.
        position: [heads, longest].
        time: [heads, NUM_BUCKETS], or None.
        buckets: [rows, longest, longest], where ``time`` is there.
    """

    def __init__(
        self, band: Band, parts: Sequence[Tensor], position: Tensor, time: Tensor | None, buckets: Tensor | None
    ) -> None:
        self.heads, self.band = len(position), band
        self.key, self.value, self.query = (_by_head(band, p, self.heads) for p in parts)
        self.position, self.time, self.buckets = position, time, buckets

    def __iter__(self) -> Iterator[tuple[slice, slice, Tensor]]:
        """The queries, the keys and the scores [heads * rows, queries, keys] of each block."""
        longest, block = self.band.longest, BLOCK
        if is_traced():  # one block, since its number of blocks would be part of the program
            block = longest
        for start in (0,) if is_traced() else range(0, longest, block):
            queries, keys = (
                slice(start, longest if is_traced() else min(start + block, longest)),
                slice(0, start + block),
            )
            scores = torch.bmm(self.query[:, queries], self.key[:, keys].mT)
            by_row = scores.view(self.heads, self.band.lengths.shape[0], *scores.shape[1:])
            by_row += self.position.index_select(1, self.distance(queries, keys)).view(self.heads, 1, *scores.shape[1:])
            if self.time is not None:
                by_row += self.time.index_select(1, self.bucket(queries, keys)).view_as(by_row)
            yield queries, keys, scores

    def distance(self, queries: slice, keys: slice) -> Tensor:
        """The distances of a block's queries to its keys, int64 [queries * keys]; 0 for keys that come later."""
        place = torch.arange(self.band.longest, device=self.key.device)
        return (place[queries, None] - place[None, keys]).clamp(min=0).flatten()

    def bucket(self, queries: slice, keys: slice) -> Tensor:
        """The buckets of a block, int64 [rows * queries * keys]."""
        if self.buckets is None:
            raise ValueError("attention: a bias by time needs buckets")
        return self.buckets[:, queries, keys].flatten()


def _hide_later(scores: Tensor, first: int) -> None:
    """Writes zeros where a key comes after its query; ``first`` is the number of the first query."""
    scores[:, :, first:].tril_()


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, given: Tensor, bands: Bands, position: Tensor, time: Tensor | None, buckets: Sequence[Tensor]
    ) -> Tensor:
        ctx.save_for_backward(given, position, time)
        ctx.bands, ctx.buckets = bands, buckets

        def attend(band: Band, own: Tensor) -> Tensor:
            blocks = _blocks_of(ctx, band, own, position, time)
            seen = torch.empty_like(blocks.query)
            for queries, keys, scores in blocks:
                weights = F.silu(scores, inplace=True)
                _hide_later(weights, queries.start)
                seen[:, queries] = torch.bmm(weights, blocks.value[:, keys])
            return _from_heads(band, seen, blocks.heads)

        return bands.map(attend, given, given.shape[1] // 3)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        given, position, time = ctx.saved_tensors
        grads = torch.zeros_like(position), None if time is None else torch.zeros_like(time)
        both = torch.cat([given, grad], 1)

        def attend(band: Band, own: Tensor) -> Tensor:
            own, grad_seen = own.split([given.shape[1], grad.shape[1]], 1)
            blocks = _blocks_of(ctx, band, own, position, time)
            grad_seen = _by_head(band, grad_seen, blocks.heads)
            return _add_gradients(blocks, grad_seen, *grads)

        return ctx.bands.map(attend, both, given.shape[1]), None, *grads, None


def _blocks_of(ctx: Any, band: Band, own: Tensor, position: Tensor, time: Tensor | None) -> _Blocks:
    buckets = ctx.buckets[ctx.bands.bands.index(band)] if time is not None else None
    return _Blocks(band, own.chunk(3, 1), position, time, buckets)


def _add_gradients(blocks: _Blocks, grad_seen: Tensor, grad_position: Tensor, grad_time: Tensor | None) -> Tensor:
    """The gradients of a band's keys, values and queries, [n, 3 * dim]; those of the biases are added up."""
    key, value, query = torch.zeros_like(blocks.key), torch.zeros_like(blocks.value), torch.empty_like(blocks.query)
    for queries, keys, scores in blocks:
        gate = torch.sigmoid(scores)
        weights = scores.mul_(gate)
        slope = torch.addcmul(gate + weights, weights, gate, value=-1)
        _hide_later(weights, queries.start)
        upstream = grad_seen[:, queries]
        value[:, keys].baddbmm_(weights.mT, upstream)
        grad = torch.bmm(upstream, blocks.value[:, keys].mT).mul_(slope)
        _hide_later(grad, queries.start)
        query[:, queries] = torch.bmm(grad, blocks.key[:, keys])
        key[:, keys].baddbmm_(grad.mT, blocks.query[:, queries])
        by_row = grad.view(blocks.heads, -1, *grad.shape[1:])
        size = grad_position.shape[1]
        grad_position += _sum_by_index(by_row.sum(1).flatten(1), blocks.distance(queries, keys), size)
        if grad_time is not None:
            grad_time += _sum_by_index(by_row.flatten(1), blocks.bucket(queries, keys), NUM_BUCKETS)
    parts = [_from_heads(blocks.band, g, blocks.heads) for g in (key, value, query)]
    return torch.cat(parts, 1)
