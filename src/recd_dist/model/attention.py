"""Attention over histories, with keys and values computed once per unique row.

A history is a list of vectors per unique row. The candidates of the row's samples attend to it::

    dedup=off   each sample has its own copy of the history   keys, values, history layers: B rows
    dedup=on    each row has one history, its samples         keys, values, history layers: U rows
                lie in slots beside it                        scores: B, computed as matrices

Keys and scores have no bias. Softmax does not change with it, so that its gradient would be rounding noise, which Adam
makes large. Linear layers run on the flat vectors without padding; only scores are padded, to the longest history of
the batch. An empty history gives zeros.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recd_dist.tensors.grouped import GroupedJagged
from recd_dist.tensors.levels import join_levels
from recd_dist.tensors.shared import Rows, Shared, level_of, rows_at
from recd_dist.tensors.slots import Slots, take_distinct


def score_bias(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """The number to add to each score: 0, or where the mask is False a number so low that softmax gives 0.

    That number is finite, so that the weights of an empty history fall on zero vectors instead of becoming nan.

    Args:
        mask: bool, True where there is a vector.
        dtype: the floating-point dtype of the scores.
    """
    return torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, torch.finfo(dtype).min / 2)


class TargetAttention(nn.Module):
    """Candidates attend to a history by scaled dot products; the result is the history as a candidate sees it.

    Each head is a row of the query that is zero outside the head's columns. So keys and values are read where they lie;
    rearranging [B, L, dim] by heads would take a third of the time without deduplication.

    Args:
        dim: the width of the vectors.
        heads: the number of attention heads; it divides ``dim``.

    Attributes:
        head_columns: float [heads, dim], 1 in the columns of each head and 0 elsewhere.
    """

    head_columns: Tensor

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.query = nn.Linear(dim, dim)
        self.key, self.value = nn.Linear(dim, dim, bias=False), nn.Linear(dim, dim, bias=False)
        columns = torch.repeat_interleave(torch.eye(heads), dim // heads, dim=1)
        self.register_buffer("head_columns", columns, persistent=False)
        self.scale = (dim // heads) ** -0.5

    def forward(self, history: GroupedJagged, candidates: Rows) -> Rows:
        """What each sample's candidate sees of its history, [B, dim]; zeros for an empty history.

        Args:
            history: the vectors [N, dim] of unique rows.
            candidates: the samples' vectors, [B, dim].
        """
        key, mask = history.with_values(self.key(history.values)).pad()
        value, _ = history.with_values(self.value(history.values)).pad(key.shape[1])
        bias = score_bias(mask, key.dtype)
        level = join_levels([history.level, level_of(candidates)])
        query = rows_at(level, self.query(candidates) * self.scale)
        if history.level is level:
            return Shared.of(self._attend(query[:, None, :], key, value, bias).squeeze(1), level)
        if history.level is None or (index := history.level.index_in(level)) is None:
            raise ValueError("attention: the candidates' rows are cut by those of the history")
        slots = Slots.of_index(index)
        query = slots.fill(query).view(-1, slots.width, query.shape[1])
        seen = self._attend(query, slots.gather_rows(key), slots.gather_rows(value), bias.index_select(0, slots.row))
        return Shared.of(slots.take(seen.reshape(-1, seen.shape[2])), level)

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
        """Queries [R, Q, dim] attend to keys and values [R, L, dim] with a bias [R, L]; the result is [R, Q, dim]."""
        by_head = (query[:, :, None, :] * self.head_columns).flatten(1, 2)
        weights = torch.baddbmm(bias[:, None, :], by_head, key.mT).softmax(-1)
        seen = torch.bmm(weights, value).unflatten(1, (-1, len(self.head_columns)))
        return (seen * self.head_columns).sum(2)


class HistoryLayer(nn.Module):
    """A transformer layer over a history, whose vectors attend to each other (pre-norm; LayerNorm is per vector).

    Args:
        dim: the width of the vectors.
        heads: the number of attention heads; it divides ``dim``.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention, self.norm_hidden = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.query_key_value, self.out = nn.Linear(dim, 3 * dim, bias=False), nn.Linear(dim, dim)
        self.hidden = nn.Sequential(nn.Linear(dim, 2 * dim), nn.ReLU(), nn.Linear(2 * dim, dim))

    def forward(self, history: GroupedJagged) -> GroupedJagged:
        """The history after the layer: vectors [N, dim] in the same lists."""
        vectors = history.values
        projected = history.with_values(self.query_key_value(self.norm_attention(vectors)))
        vectors = vectors + self.out(self._attend(projected))
        vectors = vectors + self.hidden(self.norm_hidden(vectors))
        return history.with_values(vectors)

    def _attend(self, projected: GroupedJagged) -> Tensor:
        padded, mask = projected.pad()
        rows, length, width = padded.shape
        query, key, value = padded.view(rows, length, 3, self.heads, width // 3 // self.heads).permute(2, 0, 3, 1, 4)
        bias = score_bias(mask, padded.dtype)[:, None, None, :]
        seen = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        flat = seen.transpose(1, 2).reshape(rows * length, width // 3)
        return take_distinct(flat, projected.padded_index(length))


class LearnedPooling(nn.Module):
    """Learned queries attend to a history that no candidate attends to; the result is one vector per unique row.

    Args:
        dim: the width of the vectors.
        heads: the number of learned queries; it divides ``dim``.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.score = nn.Linear(dim, heads, bias=False)
        self.value = nn.Linear(dim, dim)

    def forward(self, history: GroupedJagged) -> Rows:
        """The pooled history, [B, dim]; zeros for an empty history."""
        columns = torch.cat([self.score(history.values), self.value(history.values)], dim=1)
        padded, mask = history.with_values(columns).pad()
        scores = padded[:, :, : self.heads] + score_bias(mask, padded.dtype)[:, :, None]
        value = padded[:, :, self.heads :].unflatten(2, (self.heads, -1)).transpose(1, 2)
        weights = scores.softmax(1).mT[:, :, None, :]
        return Shared.of((weights @ value).flatten(1), history.level)
