"""A layer of HSTU over a history and the candidates that look at it (Zhai et al., 2024, section 3).

A sample's sequence is its history followed by its candidate. Each event sees those before it, a candidate sees its
history and itself, and no event sees a candidate. So the history's part is the same for all samples of a row::

    history     x_0 ... x_n      keys, values, queries, gates    once per unique row
    candidates  c of each sample queries, gates, its own key     per row of the candidate, which looks at the keys

The last layer computes of the history only the keys and values at which candidates look.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recd_dist.model.attention import SlottedQueries
from recd_dist.model.histories import Times
from recd_dist.model.silu_attention import NUM_BUCKETS, attend_causally, bucket_of, find_buckets, look_up
from recd_dist.tensors.bands import Bands
from recd_dist.tensors.grouped import GroupedJagged
from recd_dist.tensors.levels import RowIndex
from recd_dist.tensors.list_queries import ListQueries, fits_loops


@dataclass(frozen=True, eq=False)
class HistoryRows:
    """A history and its candidates as the layers of one batch share them.

    Attributes:
        lists: the history; its values are not used.
        bands: its rows by length.
        index: for each row of the candidates the row of the history; None where they are the same rows.
        num_candidates: M, the number of rows of the candidates.
        times: the times of events, and of the candidates' rows; None for none.
    """

    lists: GroupedJagged
    bands: Bands
    index: RowIndex | None
    num_candidates: int
    times: Times | None

    @cached_property
    def queries(self) -> ListQueries:
        """The candidates beside the lists, for the loops on the host."""
        return ListQueries.of(self.lists, None if self.index is None else self.index.known)

    @cached_property
    def buckets(self) -> list[Tensor]:
        """For each band the buckets of time of its pairs of events; empty without times."""
        return [] if self.times is None else find_buckets(self.bands, self.bands.sort(self.times.events.values))

    @cached_property
    def own_times(self) -> Tensor:
        """The time of each candidate, int64 [M]; that of its list's last event where it has none of its own."""
        if self.times is None:
            raise ValueError("attention: a bias by time needs times")
        if self.times.own is not None:
            return self.times.own
        ends = torch.cumsum(self.lists.lengths, 0, dtype=torch.int64)
        events = torch.cat([self.times.events.values, ends.new_zeros(1)])
        last = events[torch.where(self.lists.lengths > 0, ends - 1, events.shape[0] - 1)]
        return last if self.index is None else last[self.index.rows.long()]

    @cached_property
    def seen_buckets(self) -> Tensor:
        """The bucket of time of each pair of a candidate and an event, int64 [pairs]."""
        if self.times is None:
            raise ValueError("attention: a bias by time needs times")
        own = self.own_times[torch.from_numpy(np.repeat(np.arange(self.num_candidates), self.queries.seen))]
        return bucket_of(own - self.times.events.values[torch.from_numpy(self.queries.vectors())])


class HSTULayer(nn.Module):
    """One layer: a gated, pointwise normalised attention with biases by distance and by time.

    Args:
        dim: the width of the vectors.
        heads: the number of attention heads; it divides ``dim``.
        max_length: the longest history; what is seen is divided by it, so that no number depends on the batch.
        timed: True for a bias by differences of time.
    """

    def __init__(self, dim: int, heads: int, max_length: int, timed: bool) -> None:
        super().__init__()
        self.dim, self.heads, self.max_length = dim, heads, max_length
        self.norm, self.norm_seen = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.project = nn.Linear(dim, 4 * dim)  # keys, values, queries, gates
        self.out = nn.Linear(dim, dim)
        # By distance from an event to one before it; a candidate is one step behind the last event.
        self.position = nn.Parameter(torch.empty(heads, max_length + 1).normal_(std=0.02))
        self.time = nn.Parameter(torch.empty(heads, NUM_BUCKETS).normal_(std=0.02)) if timed else None
        self.scale = (dim // heads) ** -0.5

    def forward(self, events: Tensor, candidates: Tensor, rows: HistoryRows, is_last: bool) -> tuple[Tensor, Tensor]:
        """The events [N, dim], in the order of the bands, and the candidates [M, dim] after the layer.

        Args:
            events: the vectors of the histories, in the order of the bands.
            candidates: the vectors of the candidates.
            rows: which rows there are.
            is_last: True to compute only what candidates see; the events are returned as they are.
        """
        normed, wanted = self.norm(events), 2 * self.dim if is_last else 4 * self.dim
        of_events = F.silu(F.linear(normed, self.project.weight[:wanted], self.project.bias[:wanted]))
        key, value, query, gate = F.silu(self.project(self.norm(candidates))).chunk(4, 1)
        query = query * self.scale
        seen = self._look(query, of_events[:, : 2 * self.dim], rows) + self._see_itself(query, key, value)
        candidates = candidates + self._close(seen, gate)
        if is_last:
            return events, candidates
        keys_values, queries, gates = of_events.split([2 * self.dim, self.dim, self.dim], 1)
        given = torch.cat([keys_values, queries * self.scale], 1)
        around = attend_causally(given, rows.bands, self.position, self.time, rows.buckets)
        return events + self._close(around, gates), candidates

    def _close(self, seen: Tensor, gate: Tensor) -> Tensor:
        """What is added to the vectors, from what they saw."""
        added: Tensor = self.out(self.norm_seen(seen / self.max_length) * gate)
        return added

    def _see_itself(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """A candidate's own part of what it sees, at distance 0."""
        scores = (query * key).unflatten(1, (self.heads, -1)).sum(2) + self.position[:, 0]
        if self.time is not None:
            scores = scores + self.time[:, 0]
        return (F.silu(scores)[:, :, None] * value.unflatten(1, (self.heads, -1))).flatten(1)

    def _look(self, query: Tensor, keys_values: Tensor, rows: HistoryRows) -> Tensor:
        """What candidates see of their histories, [M, dim]."""
        unsorted = rows.bands.unsort(keys_values)
        if fits_loops(query):
            key, value = unsorted.chunk(2, 1)
            scores = rows.queries.score(query, key, self.heads, self.position[:, 1:])
            if self.time is not None:
                scores = scores + look_up(self.time, rows.seen_buckets)
            return rows.queries.sum(F.silu(scores), value)
        slots = SlottedQueries.of(rows.index)
        padded, mask = slots.gather_lists(rows.lists.with_values(unsorted))
        key, value = (x.unflatten(2, (self.heads, -1)) for x in padded.chunk(2, 2))
        own = slots.fill(query).unflatten(2, (self.heads, -1))
        age = mask.sum(1, keepdim=True) - torch.arange(mask.shape[1], device=mask.device)  # 1 for the last
        bias = self.position[:, age.clamp(min=0)].transpose(0, 1)[:, :, None, :]
        if self.time is not None and rows.times is not None:
            events, _ = slots.gather_lists(rows.times.events.with_values(rows.times.events.values[:, None]))
            buckets = bucket_of(slots.fill(rows.own_times[:, None]) - events.mT)  # [slots, width, longest]
            bias = bias + self.time[:, buckets].transpose(0, 1)
        scores = torch.stack([torch.bmm(o, k.mT) for o, k in zip(own.unbind(2), key.unbind(2), strict=True)], 1)
        weights = F.silu(scores + bias) * mask[:, None, None, :]
        seen = [torch.bmm(w, v) for w, v in zip(weights.unbind(1), value.unbind(2), strict=True)]
        return slots.take(torch.cat(seen, 2))
