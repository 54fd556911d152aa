"""Attention over histories, with keys and values computed once per unique row.

A history is a list of vectors per unique row. The candidates of the row's samples attend to it::

    dedup=off   each sample has its own copy of the history   keys, values, history layers: B rows
    dedup=on    each row has one history, its samples         keys, values, history layers: U rows
                look at it                                    scores: B

Keys and scores have no bias. Softmax does not change with it, so that its gradient would be rounding noise, which Adam
makes large. An empty history gives zeros. On the host nothing is padded to the longest history of the batch: candidates
look at lists as they lie (tensors/list_queries.py), and rows attend to themselves in bands of similar length
(tensors/bands.py). On a device, scores are padded and candidates lie in slots.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recd_dist.tensors.bands import Band, Bands
from recd_dist.tensors.grouped import GroupedJagged
from recd_dist.tensors.levels import Level, RowIndex, join_levels
from recd_dist.tensors.list_queries import ListQueries, fits_loops
from recd_dist.tensors.shared import Rows, Shared, level_of, rows_at
from recd_dist.tensors.slots import Slots


def score_bias(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """The number to add to each score: 0, or where the mask is False a number so low that softmax gives 0.

    That number is finite, so that the weights of an empty history fall on zero vectors instead of becoming nan.

    Args:
        mask: bool, True where there is a vector.
        dtype: the floating-point dtype of the scores.
    """
    return torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, torch.finfo(dtype).min / 2)


def index_of_rows(history: GroupedJagged, level: Level | None) -> RowIndex | None:
    """For each row of a level the row of a history in which it lies; None where they are the same rows.

    Args:
        history: the history.
        level: the join of its level and that of the candidates.
    """
    return None if history.level is level or history.level is None else history.level.index_in(level)


@dataclass(frozen=True, eq=False)
class SlottedQueries:
    """Queries beside the list at which they look, in slots: for devices, where products are batched.

    Attributes:
        slots: the slots; None where each list has one query, in the same order.
    """

    slots: Slots | None

    @staticmethod
    def of(index: RowIndex | None) -> "SlottedQueries":
        """The layout of a batch's queries; ``index`` says at which list each looks, None: query i at list i."""
        return SlottedQueries(None if index is None else Slots.of_index(index))

    def gather_lists(self, lists: GroupedJagged) -> tuple[Tensor, Tensor]:
        """Each slot's list, [slots, longest, D], and its mask, bool [slots, longest]."""
        padded, mask = lists.pad()
        if self.slots is None:
            return padded, mask
        return self.slots.gather_rows(padded), mask.index_select(0, self.slots.row)

    def fill(self, values: Tensor) -> Tensor:
        """The queries' values [M, D] in slots, [slots, width, D]."""
        if self.slots is None:
            return values[:, None, :]
        return self.slots.fill(values)

    def take(self, values: Tensor) -> Tensor:
        """Takes values out of the slots; it undoes ``fill``."""
        return values[:, 0] if self.slots is None else self.slots.take(values)


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
        key, value = self.key(history.values), self.value(history.values)
        level = join_levels([history.level, level_of(candidates)])
        query = rows_at(level, self.query(candidates) * self.scale)
        index = index_of_rows(history, level)
        if fits_loops(key) and index is not None:
            queries, heads = ListQueries.of(history, index.known), len(self.head_columns)
            weights = queries.softmax(queries.score(query, key, heads))
            return Shared.of(queries.sum(weights, value), level)
        slots = SlottedQueries.of(index)
        padded, mask = slots.gather_lists(history.with_values(torch.cat([key, value], 1)))
        key, value = padded.chunk(2, 2)
        seen = self._attend(slots.fill(query), key, value, score_bias(mask, key.dtype))
        return Shared.of(slots.take(seen), level)

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
        causal: True to let each vector attend only to itself and to those before it.
    """

    def __init__(self, dim: int, heads: int, causal: bool = False) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.norm_attention, self.norm_hidden = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.query_key_value, self.out = nn.Linear(dim, 3 * dim, bias=False), nn.Linear(dim, dim)
        self.hidden = nn.Sequential(nn.Linear(dim, 2 * dim), nn.ReLU(), nn.Linear(2 * dim, dim))

    def forward(self, history: GroupedJagged) -> GroupedJagged:
        """The history after the layer: vectors [N, dim] in the same lists."""
        bands = Bands.of(history)
        return history.with_values(bands.unsort(self.run_sorted(bands.sort(history.values), bands)))

    def run_sorted(self, vectors: Tensor, bands: Bands) -> Tensor:
        """The layer on vectors [N, dim] in the order of the bands."""
        projected = self.query_key_value(self.norm_attention(vectors))
        vectors = vectors + self.out(bands.map(self._attend, projected, vectors.shape[1]))
        moved: Tensor = vectors + self.hidden(self.norm_hidden(vectors))
        return moved

    def _attend(self, band: Band, projected: Tensor) -> Tensor:
        padded = band.pad(projected)
        rows, length, width = padded.shape
        query, key, value = padded.view(rows, length, 3, self.heads, width // 3 // self.heads).permute(2, 0, 3, 1, 4)
        # A vector that attends only to those before it never sees what is padded behind the end.
        bias = None if self.causal or band.is_even else score_bias(band.mask, padded.dtype)[:, None, None, :]
        seen = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, is_causal=self.causal)
        return band.take(seen.transpose(1, 2).reshape(rows, length, width // 3))


class HistoryLayers(nn.ModuleList):
    """Transformer layers over a history, one after the other."""

    def forward(self, history: GroupedJagged) -> GroupedJagged:
        """The history after the layers: vectors [N, dim] in the same lists."""
        if not len(self):
            return history
        bands = Bands.of(history)
        vectors = bands.sort(history.values)
        for layer in self:
            vectors = layer.run_sorted(vectors, bands)  # type: ignore[operator]
        return history.with_values(bands.unsort(vectors))


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
        score, value = self.score(history.values), self.value(history.values)
        if fits_loops(value):
            queries = ListQueries.of(history, None)
            return Shared.of(queries.sum(queries.softmax(score.T), value), history.level)
        padded, mask = history.with_values(torch.cat([score, value], dim=1)).pad()
        scores = padded[:, :, : self.heads] + score_bias(mask, padded.dtype)[:, :, None]
        value = padded[:, :, self.heads :].unflatten(2, (self.heads, -1)).transpose(1, 2)
        weights = scores.softmax(1).mT[:, :, None, :]
        return Shared.of((weights @ value).flatten(1), history.level)
