"""HSTU: histories and candidates as one sequence, through layers of pointwise attention.

After Zhai et al., 2024 (ranking: the candidate is the end of its sequence). Lists beside a history (actions,
categories) are added to its events. A history without a candidate is seen by a learned vector. What comes out
interacts with the vectors of other features, as in the other models here (head.py).
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from recd_dist.errors import ConfigError
from recd_dist.model.attention import index_of_rows
from recd_dist.model.fused_history import FusedHistory
from recd_dist.model.head import DotHead
from recd_dist.model.histories import Times, module_per_history, read_candidate, read_history, read_times, split_vectors
from recd_dist.model.history_choice import History, find_histories, fuse_choice, id_features
from recd_dist.model.hstu_layer import HistoryRows, HSTULayer
from recd_dist.model.model_inputs import Inputs, Vectors
from recd_dist.model.transformer import check_attention
from recd_dist.table.module_names import module_key
from recd_dist.table.schema import Schema
from recd_dist.tensors.bands import Bands
from recd_dist.tensors.grouped import Embedded, Grouped, GroupedJagged
from recd_dist.tensors.levels import join_levels
from recd_dist.tensors.shared import Rows, Shared, level_of, rows_at


class HSTU(nn.Module):
    """HSTU layers over histories and candidates, then dot interaction and over-arch.

    Args:
        schema: the features; every table must be ``dim`` wide.
        dim: the width of the embeddings.
        bottom: the widths of the bottom MLP's layers, over dense features.
        over: the widths of the over-arch's hidden layers.
        dropout: the share of the over-arch's activations that is dropped in training, in [0, 1).
        heads: the number of attention heads; it divides ``dim``.
        max_length: how many of a history's ids are used at most; they are the last ones.
        layers: the number of layers.
        histories: the lists that are histories; None for all lists of deduplicated groups.
        beside: for each history the lists whose vectors are added to its own.
        times: for each history the list with the times of its events, and the single id with the samples' own.
        fuse: True to make one history of all, in the order of time where there are times.
        num_tasks: T, the number of tasks.
        batch_norm: normalise the over-arch's layers over the samples of all ranks.

    Raises:
        ConfigError: the schema has no history, or a value is out of range.
    """

    def __init__(  # noqa: PLR0913  (each is an option of the model)
        self,
        schema: Schema,
        dim: int,
        *,
        bottom: Sequence[int] = (128, 64),
        over: Sequence[int] = (256, 128),
        dropout: float = 0.0,
        heads: int = 2,
        max_length: int = 200,
        layers: int = 2,
        histories: Sequence[str] | None = None,
        beside: Mapping[str, Sequence[str]] | None = None,
        times: Mapping[str, Sequence[str]] | None = None,
        fuse: bool = False,
        num_tasks: int = 1,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        check_attention(dim, heads, max_length)
        if layers < 1:
            raise ConfigError(f"model.layers is {layers}; HSTU needs at least 1")
        self.dim, self.max_length = dim, max_length
        self.chosen = find_histories("hstu", schema, histories, beside, times)
        self.fused = FusedHistory(self.chosen, dim, max_length) if fuse and len(self.chosen) > 1 else None
        if self.fused is not None:
            self.chosen = (fuse_choice(self.chosen),)
        self.ids = self.id_features(schema, times)
        towers = [_Tower(dim, heads, max_length, layers, h) for h in self.chosen]
        self.towers = module_per_history(self.chosen, towers)
        vectors = split_vectors(schema, self.chosen)
        self.head = DotHead(schema, *vectors, dim, bottom, over, dropout, num_tasks, batch_norm)

    @staticmethod
    def sequence_features(
        schema: Schema,
        histories: Sequence[str] | None = None,
        beside: Mapping[str, Sequence[str]] | None = None,
        times: Mapping[str, Sequence[str]] | None = None,
    ) -> tuple[str, ...]:
        """The features that this model takes as lists of vectors: the lists of deduplicated groups, or those named."""
        return tuple(name for h in find_histories("hstu", schema, histories, beside, times) for name in h.lists)

    @staticmethod
    def id_features(schema: Schema, times: Mapping[str, Sequence[str]] | None = None) -> tuple[str, ...]:
        """The features whose ids are times, and are not looked up."""
        del schema
        return id_features(times)

    def forward(self, embedded: Embedded, dense: Mapping[str, Grouped]) -> Tensor:
        """Logits float [B, T].

        Args:
            embedded: for each group its pooled features, [U, n * dim], and the histories, [N, dim].
            dense: for each group its dense features, [U, n].
        """
        inputs, seen = Inputs.of(embedded, dense, self.dim), list[Vectors]()
        for history in self.chosen:
            tower = self.towers[module_key(history.name)]
            if self.fused is not None:
                vectors, times = self.fused(inputs)
            else:
                vectors = read_history(history, inputs, self.max_length)
                times = read_times(history, inputs, self.max_length)
            seen.append(Vectors((history.name,), tower(vectors, read_candidate(history, inputs), times)))
        logits: Tensor = self.head(inputs, seen)
        return logits


class _Tower(nn.Module):
    """The layers over one history; a learned vector looks at it where it has no candidate."""

    def __init__(self, dim: int, heads: int, max_length: int, num_layers: int, history: History) -> None:
        super().__init__()
        timed = bool(history.times)
        self.layers = nn.ModuleList(HSTULayer(dim, heads, max_length, timed) for _ in range(num_layers))
        self.query = None if history.candidates else nn.Parameter(torch.empty(1, dim).normal_(std=dim**-0.5))

    def forward(self, history: GroupedJagged, candidate: Rows | None, times: Times | None = None) -> Rows:
        """The candidate's vector at the end of its sequence, [B, dim].

        Args:
            history: the events' vectors, [N, dim].
            candidate: the candidates, [B, dim]; None where a learned vector looks.
            times: the times, where the tower has a bias by them.
        """
        level = history.level
        if candidate is not None:
            level = join_levels([history.level, level_of(candidate)])
            looking = rows_at(level, candidate)
        elif self.query is not None:
            looking = self.query.expand(history.num_rows, -1)
        else:
            raise ValueError("model: this history needs its candidate")
        index = index_of_rows(history, level)
        bands = Bands.of(history)
        if times is not None and times.own is not None and (candidate is None or level is not None):
            times = Times(times.events, None)  # rows of several samples, which have no time of their own
        rows = HistoryRows(history, bands, index, looking.shape[0], times)
        events = bands.sort(history.values)
        for number, layer in enumerate(self.layers, 1):
            events, looking = layer(events, looking, rows, is_last=number == len(self.layers))
        return Shared.of(looking, level)
