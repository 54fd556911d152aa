"""The transformer: candidates attend to histories, after layers in which a history attends to itself.

The layers are those of SASRec (Kang and McAuley, 2018) with ``causal``; with none, this is the attention of the Deep
Interest Network with dot products instead of its small network. Position, layers, keys and values are computed once
per unique row. A history without a candidate is pooled by learned queries, also once per unique row. Lists of the group
``sample`` are sum-pooled.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from recd_dist.errors import ConfigError
from recd_dist.model.attention import HistoryLayer, HistoryLayers, LearnedPooling, TargetAttention
from recd_dist.model.fused_history import FusedHistory
from recd_dist.model.head import DotHead
from recd_dist.model.histories import module_per_history, read_candidate, read_history, split_vectors
from recd_dist.model.history_choice import find_histories, fuse_choice
from recd_dist.model.model_inputs import Inputs, Vectors
from recd_dist.table.module_names import module_key
from recd_dist.table.schema import Schema
from recd_dist.tensors.grouped import Embedded, Grouped, GroupedJagged


class Transformer(nn.Module):
    """History layers and target attention, then dot interaction and over-arch.

    Args:
        schema: the features; every table must be ``dim`` wide.
        dim: the width of the embeddings.
        bottom: the widths of the bottom MLP's layers, over dense features.
        over: the widths of the over-arch's hidden layers.
        dropout: the share of the over-arch's activations that is dropped in training, in [0, 1).
        heads: the number of attention heads; it divides ``dim``.
        max_length: how many of a history's ids are used at most; they are the last ones.
        history_layers: the number of transformer layers over each history, before candidates attend to it.
        causal: True to let an event of a history attend only to those before it.
        histories: the lists that are histories; None for all lists of deduplicated groups.
        beside: for each history the lists whose vectors are added to its own.
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
        history_layers: int = 0,
        causal: bool = False,
        histories: Sequence[str] | None = None,
        beside: Mapping[str, Sequence[str]] | None = None,
        fuse: bool = False,
        num_tasks: int = 1,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        check_attention(dim, heads, max_length)
        if history_layers < 0:
            raise ConfigError(f"model.history_layers is {history_layers}; it must be at least 0")
        self.dim, self.max_length = dim, max_length
        self.chosen = find_histories("transformer", schema, histories, beside)
        self.fused = FusedHistory(self.chosen, dim, max_length) if fuse and len(self.chosen) > 1 else None
        if self.fused is not None:
            self.chosen = (fuse_choice(self.chosen),)
        layers = [_History(dim, heads, max_length, history_layers, causal) for _ in self.chosen]
        self.histories = module_per_history(self.chosen, layers)
        pools = [TargetAttention(dim, heads) if h.candidates else LearnedPooling(dim, heads) for h in self.chosen]
        self.pools = module_per_history(self.chosen, pools)
        vectors = split_vectors(schema, self.chosen)
        self.head = DotHead(schema, *vectors, dim, bottom, over, dropout, num_tasks, batch_norm)

    @staticmethod
    def sequence_features(
        schema: Schema, histories: Sequence[str] | None = None, beside: Mapping[str, Sequence[str]] | None = None
    ) -> tuple[str, ...]:
        """The features that this model takes as lists of vectors: the lists of deduplicated groups, or those named."""
        return tuple(name for h in find_histories("transformer", schema, histories, beside) for name in h.lists)

    def forward(self, embedded: Embedded, dense: Mapping[str, Grouped]) -> Tensor:
        """Logits float [B, T].

        Args:
            embedded: for each group its pooled features, [U, n * dim], and the histories, [N, dim].
            dense: for each group its dense features, [U, n].
        """
        inputs, seen = Inputs.of(embedded, dense, self.dim), list[Vectors]()
        for chosen in self.chosen:
            key = module_key(chosen.name)
            layers, pool, candidate = self.histories[key], self.pools[key], read_candidate(chosen, inputs)
            given = read_history(chosen, inputs, self.max_length) if self.fused is None else self.fused(inputs)[0]
            history = layers(given)
            vector = pool(history) if candidate is None else pool(history, candidate)
            seen.append(Vectors((chosen.name,), vector))
        logits: Tensor = self.head(inputs, seen)
        return logits


class _History(nn.Module):
    """A learned vector per position, counted from the end, is added to a history; then its layers."""

    def __init__(self, dim: int, heads: int, max_length: int, num_layers: int, causal: bool) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.empty(max_length, dim).normal_(std=0.02))
        self.layers = HistoryLayers(HistoryLayer(dim, heads, causal) for _ in range(num_layers))

    def forward(self, history: GroupedJagged) -> GroupedJagged:
        """The vectors [N, dim] of the same rows, which are at most ``max_length`` long."""
        ends = torch.cumsum(history.lengths, 0, dtype=torch.int64)
        size = history.values.shape[0]
        last = torch.repeat_interleave(ends, history.lengths.long(), output_size=size) - 1
        age = last - torch.arange(size, device=last.device)
        vectors = history.values + nn.functional.embedding(age, self.position)
        after: GroupedJagged = self.layers(history.with_values(vectors))
        return after


def check_attention(dim: int, heads: int, max_length: int) -> None:
    """Refuses options of attention that are out of range.

    Args:
        dim: the width of the embeddings.
        heads: the number of attention heads.
        max_length: how many of a history's ids are used at most.

    Raises:
        ConfigError: the option, what it is, and what it must be.
    """
    if heads < 1 or dim % heads:
        raise ConfigError(f"model.heads is {heads}; it must divide model.dim, which is {dim}")
    if max_length < 1:
        raise ConfigError(f"model.max_length is {max_length}; a history needs at least 1")
