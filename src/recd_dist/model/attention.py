"""Attention over histories, with keys and values once per unique row.

A history is a list of vectors per unique row; the samples of a row bring candidates that attend to it::

    off   every sample its own copy of the history     keys, values, history layers: B rows
    on    one history per row, its samples in slots     keys, values, history layers: U rows; scores: B, as matrices

No bias on keys or scores: softmax does not see it, so its gradient would be rounding noise, which Adam makes large.
Linear layers run on the flat vectors, without padding; only scores are padded to the longest history of the batch. An
empty history gives zeros.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recd_dist.grouped import Grouped, GroupedJagged
from recd_dist.model.rows import Slots, slot_width, take_places

MASKED = -1e30
"""Score of padding: finite, so that an empty history's weights fall on zero vectors instead of becoming nan."""


class TargetAttention(nn.Module):
    """Candidates attend to a history (scaled dot product): the history as this candidate sees it.

    Args:
        dim: width of the vectors.
        heads: attention heads; they divide ``dim``.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(dim, dim)
        self.key_value = nn.Linear(dim, 2 * dim, bias=False)

    def forward(self, history: GroupedJagged, candidates: Tensor) -> Tensor:
        """What each sample's candidate sees, [B, dim]; zeros for an empty history.

        Args:
            history: vectors [N, dim] of unique rows.
            candidates: [B, dim].
        """
        vectors, mask = GroupedJagged(self.key_value(history.values), history.lengths).padded()
        query = self.query(candidates)
        if history.inverse is None:
            return self._attend(query[:, None, :], vectors, mask).squeeze(1)
        slots = Slots.of(history.inverse, history.num_rows, slot_width(len(query), history.num_rows))
        query = slots.fill(query).view(-1, slots.width, query.shape[1])
        seen = self._attend(query, slots.rows(vectors), mask.index_select(0, slots.row))
        return slots.take(seen.reshape(-1, seen.shape[2]))

    def _attend(self, query: Tensor, key_value: Tensor, mask: Tensor) -> Tensor:
        """Queries [R, Q, dim] over rows [R, L, 2 * dim] with mask [R, L]: [R, Q, dim]."""
        rows, length, width = key_value.shape
        split = key_value.view(rows, length, 2, self.heads, width // 2 // self.heads)
        key, value = split.permute(2, 0, 3, 1, 4)
        query = query.view(rows, query.shape[1], self.heads, -1).transpose(1, 2)
        scores = (query @ key.mT) * query.shape[-1] ** -0.5
        weights = scores.masked_fill(~mask[:, None, None, :], MASKED).softmax(-1)
        return (weights @ value).transpose(1, 2).flatten(2)


class HistoryLayer(nn.Module):
    """One transformer layer over a history: its vectors attend to each other (pre-norm; LayerNorm is per vector).

    Args:
        dim: width of the vectors.
        heads: attention heads; they divide ``dim``.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention, self.norm_hidden = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.query_key_value, self.out = nn.Linear(dim, 3 * dim, bias=False), nn.Linear(dim, dim)
        self.hidden = nn.Sequential(nn.Linear(dim, 2 * dim), nn.ReLU(), nn.Linear(2 * dim, dim))

    def forward(self, history: GroupedJagged) -> GroupedJagged:
        """The history after the layer: vectors [N, dim] of the same rows."""
        vectors = history.values
        projected = GroupedJagged(self.query_key_value(self.norm_attention(vectors)), history.lengths)
        vectors = vectors + self.out(self._attend(projected))
        vectors = vectors + self.hidden(self.norm_hidden(vectors))
        return GroupedJagged(vectors, history.lengths, history.inverse)

    def _attend(self, projected: GroupedJagged) -> Tensor:
        padded, mask = projected.padded()
        rows, length, width = padded.shape
        query, key, value = padded.view(rows, length, 3, self.heads, width // 3 // self.heads).permute(2, 0, 3, 1, 4)
        bias = torch.zeros_like(mask, dtype=padded.dtype).masked_fill(~mask, MASKED)
        seen = F.scaled_dot_product_attention(query, key, value, attn_mask=bias[:, None, None, :])
        flat = seen.transpose(1, 2).reshape(rows * length, width // 3)
        return take_places(flat, projected.padded_index(length))


class LearnedPooling(nn.Module):
    """Attention of learned queries over a history, for one that no candidate attends to: a row of the group each.

    Args:
        dim: width of the vectors.
        heads: learned queries; they divide ``dim``.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.score = nn.Linear(dim, heads, bias=False)
        self.value = nn.Linear(dim, dim)

    def forward(self, history: GroupedJagged) -> Grouped:
        """The pooled history [U, dim]; zeros for an empty one."""
        columns = torch.cat([self.score(history.values), self.value(history.values)], dim=1)
        padded, mask = GroupedJagged(columns, history.lengths).padded()
        scores = padded[:, :, : self.heads].masked_fill(~mask[:, :, None], MASKED)
        value = padded[:, :, self.heads :].unflatten(2, (self.heads, -1)).transpose(1, 2)
        weights = scores.softmax(1).mT[:, :, None, :]
        return Grouped((weights @ value).flatten(1), history.inverse)
