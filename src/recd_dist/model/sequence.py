"""The sequence model: candidates attend to histories before the layers of DLRM.

A *history* is a list feature of a deduplicated group. Its *candidate* is the first single-id feature of the group
``sample`` that looks up the same table. Position, history layers, keys and values are computed once per unique row. A
history without a candidate is pooled by learned queries, also once per unique row. Lists of the group ``sample`` are
sum-pooled. After the Deep Interest Network (Zhou et al., 2018), with dot products instead of its small network.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from recd_dist.errors import ConfigError
from recd_dist.model.attention import HistoryLayer, LearnedPooling, TargetAttention
from recd_dist.model.head import DotHead
from recd_dist.model.model_inputs import Inputs, Vectors
from recd_dist.table.module_names import module_key
from recd_dist.table.schema import SAMPLE, Kind, Schema
from recd_dist.tensors.grouped import Embedded, Grouped, GroupedJagged


def candidate_of(schema: Schema, history: str) -> str | None:
    """The feature whose vectors attend to a history; None when there is none.

    It is the first single-id feature of the samples themselves that looks up the history's table.

    Args:
        schema: the features.
        history: the name of a list feature.
    """
    table = schema[history].table
    ids = (f for f in schema.of_group(SAMPLE) if f.kind is Kind.id and f.home == SAMPLE)
    return next((f.name for f in ids if f.table == table), None)


class SequenceModel(nn.Module):
    """Target attention over histories, then dot interaction and over-arch.

    Args:
        schema: the features; every table must be ``dim`` wide.
        dim: the width of the embeddings.
        bottom: the widths of the bottom MLP's layers, over dense features.
        over: the widths of the over-arch's hidden layers.
        dropout: the share of the over-arch's activations that is dropped in training, in [0, 1).
        heads: the number of attention heads; it divides ``dim``.
        max_length: how many of a history's ids are used at most; they are the last ones.
        history_layers: the number of transformer layers over each history, before candidates attend to it: 0 or 1.
        num_tasks: T, the number of tasks.

    Raises:
        ConfigError: the schema has no history, or a value is out of range.
    """

    def __init__(
        self,
        schema: Schema,
        dim: int,
        bottom: Sequence[int] = (128, 64),
        over: Sequence[int] = (256, 128),
        dropout: float = 0.0,
        heads: int = 2,
        max_length: int = 200,
        history_layers: int = 0,
        num_tasks: int = 1,
    ) -> None:
        super().__init__()
        _check_options(dim, heads, max_length, history_layers)
        self.dim = dim
        names = self.sequence_features(schema)
        self.candidates = {name: candidate_of(schema, name) for name in names}
        self.histories = nn.ModuleDict({module_key(n): _History(dim, heads, max_length, history_layers) for n in names})
        self.pools = nn.ModuleDict(
            {
                module_key(n): TargetAttention(dim, heads) if self.candidates[n] else LearnedPooling(dim, heads)
                for n in names
            }
        )
        shared = [name for group in schema.dedup_groups for name in schema.sparse_of(group) if name not in names]
        shared += [name for name in names if not self.candidates[name] and schema[name].group != SAMPLE]
        sample = [name for name in schema.sparse_of(SAMPLE) if name not in names]
        sample += [name for name in names if name not in shared]
        self.head = DotHead(schema, shared, sample, dim, bottom, over, dropout, num_tasks)

    @staticmethod
    def sequence_features(schema: Schema) -> tuple[str, ...]:
        """The features that this model takes as lists of vectors: the lists of deduplicated groups.

        A group that the job expands still counts as deduplicated here.

        Raises:
            ConfigError: there is no such list.
        """
        names = tuple(f.name for f in schema.sparse if f.kind is Kind.ids and f.home != SAMPLE)
        if not names:
            raise ConfigError(
                "model 'sequence' needs a list feature in a deduplicated group (a history), and best a single-id "
                "feature of the samples in the same table (the candidate); this data has none: use model=dlrm"
            )
        return names

    def forward(self, embedded: Embedded, dense: Mapping[str, Grouped]) -> Tensor:
        """Logits float [B, T].

        Args:
            embedded: for each group its pooled features, [U, n * dim], and the histories, [N, dim].
            dense: for each group its dense features, [U, n].
        """
        inputs, seen = Inputs.of(embedded, dense, self.dim), list[Vectors]()
        for name, candidate in self.candidates.items():
            history, pool = self.histories[module_key(name)](inputs.histories[name]), self.pools[module_key(name)]
            vector = pool(history, inputs.pooled[candidate]) if candidate else pool(history)
            seen.append(Vectors((name,), vector))
        logits: Tensor = self.head(inputs, seen)
        return logits


class _History(nn.Module):
    """A history's last vectors, plus a learned vector per position counted from the end, through the history layers."""

    def __init__(self, dim: int, heads: int, max_length: int, num_layers: int) -> None:
        super().__init__()
        self.max_length = max_length
        self.position = nn.Parameter(torch.empty(max_length, dim).normal_(std=0.02))
        self.layers = nn.ModuleList(HistoryLayer(dim, heads) for _ in range(num_layers))

    def forward(self, history: GroupedJagged) -> GroupedJagged:
        """The vectors [N, dim] of the same rows, at most ``max_length`` a row."""
        history = history.keep_last(self.max_length)
        ends = torch.cumsum(history.lengths, 0, dtype=torch.int64)
        size = history.values.shape[0]
        last = torch.repeat_interleave(ends, history.lengths.long(), output_size=size) - 1
        age = last - torch.arange(size, device=last.device)
        vectors = history.values + nn.functional.embedding(age, self.position)
        history = history.with_values(vectors)
        for layer in self.layers:
            history = layer(history)
        return history


def _check_options(dim: int, heads: int, max_length: int, history_layers: int) -> None:
    if heads < 1 or dim % heads:
        raise ConfigError(f"model.heads is {heads}; it must divide model.dim, which is {dim}")
    if max_length < 1:
        raise ConfigError(f"model.max_length is {max_length}; a history needs at least 1")
    if history_layers not in (0, 1):
        raise ConfigError(f"model.history_layers is {history_layers}; it must be 0 or 1")
