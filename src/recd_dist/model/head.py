"""The part that all dot models share: bottom MLP, dot products and over-arch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from recd_dist.errors import ConfigError
from recd_dist.model.interaction import DotInteraction
from recd_dist.model.layers import MLP, DenseArch
from recd_dist.model.shared_rows import SharedRows
from recd_dist.table.schema import SAMPLE, Schema
from recd_dist.tensors.grouped import Embedded, Grouped

DENSE = "<dense>"
"""The name of the dense features' vector among the vectors that interact; no feature can have this name."""


@dataclass(frozen=True, eq=False)
class Vectors:
    """Vectors side by side.

    Attributes:
        names: the vectors' names.
        values: float [rows, number of names * dim], the vectors in the order of ``names``.
    """

    names: tuple[str, ...]
    values: Tensor


class DotHead(nn.Module):
    """Computes one logit per sample from pooled vectors and dense features.

    The dense features go two ways: through a linear layer into the dot products, as one more vector, and straight into
    the over-arch, so that a model of counters and rates does not depend on products. Without dense features that vector
    is a learned constant, and its product with a feature's vector is the feature's own score.

    Args:
        schema: the groups and their dense features.
        shared: the names of the vectors that come once per shared row.
        sample: the names of the vectors that come once per sample.
        dim: the width of the vectors.
        bottom: the widths of the bottom MLP's layers, over dense features.
        over: the widths of the over-arch's hidden layers.
        dropout: the share of the over-arch's activations that is dropped in training, in [0, 1).

    Raises:
        ConfigError: a width or the share is out of range.
    """

    def __init__(
        self,
        schema: Schema,
        shared: Sequence[str],
        sample: Sequence[str],
        dim: int,
        bottom: Sequence[int],
        over: Sequence[int],
        dropout: float,
    ) -> None:
        super().__init__()
        _require_positive("model.dim", [dim])
        _require_positive("model.bottom", bottom)
        _require_positive("model.over", over)
        if not 0.0 <= dropout < 1.0:
            raise ConfigError(f"model.dropout is {dropout}; it must be at least 0 and less than 1")
        self.dim, self.groups = dim, schema.groups
        self.shared_dense = tuple(g for g in schema.dedup_groups if schema.dense_of(g))
        num_sample = len(schema.dense_of(SAMPLE))
        num_shared = sum(len(schema.dense_of(g)) for g in self.shared_dense)
        self.bottom = DenseArch(num_sample, num_shared, bottom) if num_sample + num_shared else None
        dense_is_shared = num_sample == 0 and (num_shared > 0 or bool(shared))
        # With dense features alone there is nothing to multiply, and the over-arch takes them as they are.
        vector = (DENSE,) if shared or sample else ()
        if self.bottom is None:
            self.constant = nn.Parameter(torch.empty(1, dim).normal_(std=dim**-0.5))
        elif vector:
            self.project = nn.Linear(self.bottom.size, dim)
        self.shared = (*shared, *vector) if dense_is_shared else tuple(shared)
        self.sample = tuple(sample) if dense_is_shared else (*sample, *vector)
        extra = self.bottom.size if self.bottom is not None else 0
        self.interaction = DotInteraction(self.shared, self.sample, dim, extra, dense_is_shared, over[0])
        self.over = nn.Sequential(nn.ReLU(), nn.Dropout(dropout), MLP(over[0], over[1:], dropout))
        self.logit = nn.Linear(over[-1], 1)

    def forward(
        self,
        vectors: Sequence[Vectors],
        dense: Mapping[str, Grouped],
        rows: SharedRows | None,
        batch_size: int,
    ) -> Tensor:
        """Logits [B].

        Args:
            vectors: all vectors; when ``rows`` is given those named in ``shared`` come once per shared row, all others
                once per sample.
            dense: for each group its dense features.
            rows: the shared rows; None computes everything per sample.
            batch_size: B, the number of samples.
        """
        wide = self._run_bottom(dense, rows)
        if rows is None:
            hidden = self._interact_per_sample(vectors, wide, batch_size)
        else:
            hidden = self._interact_on_shared_rows(vectors, wide, rows, batch_size)
        logits: Tensor = self.logit(self.over(hidden))
        return logits.squeeze(1)

    def _run_bottom(self, dense: Mapping[str, Grouped], rows: SharedRows | None) -> Tensor | None:
        """The bottom MLP's output, [U, width] or [B, width]; None without dense features."""
        if self.bottom is None:
            return None
        if rows is None:
            per_sample = [dense[g].expand() for g in self.groups if g in dense]
            return self.bottom(per_sample[0] if len(per_sample) == 1 else torch.cat(per_sample, dim=1), None, None)
        per_row = [rows.gather_group(g, dense[g].values) for g in self.shared_dense]
        shared = torch.cat(per_row, dim=1) if per_row else None
        return self.bottom(dense[SAMPLE].values if SAMPLE in dense else None, shared, rows)

    def _dense_vectors(self, wide: Tensor | None, num_rows: int) -> list[Vectors]:
        """The dense features' vector for the dot products, [num_rows, dim]; empty where nothing else interacts."""
        if wide is None:
            return [Vectors((DENSE,), self.constant.expand(num_rows, -1))]
        return [Vectors((DENSE,), self.project(wide))] if DENSE in (*self.shared, *self.sample) else []

    def _interact_per_sample(self, vectors: Sequence[Vectors], wide: Tensor | None, batch_size: int) -> Tensor:
        parts = [*vectors, *self._dense_vectors(wide, batch_size)]
        names = tuple(name for part in parts for name in part.names)
        if sorted(names) != sorted((*self.shared, *self.sample)):
            raise ValueError(f"model: vectors {names} are given, wanted {(*self.shared, *self.sample)}")
        return self.interaction.forward_per_sample(self._stack(parts, batch_size) if parts else None, names, wide)

    def _interact_on_shared_rows(
        self, vectors: Sequence[Vectors], wide: Tensor | None, rows: SharedRows, batch_size: int
    ) -> Tensor:
        num_rows = rows.num_rows if DENSE in self.shared else batch_size
        parts = [*vectors, *self._dense_vectors(wide, num_rows)]
        shared = self._select(parts, self.shared, rows.num_rows)
        return self.interaction(shared, self._select(parts, self.sample, batch_size), wide, rows)

    def _select(self, parts: Sequence[Vectors], wanted: tuple[str, ...], num_rows: int) -> Tensor | None:
        """The vectors of some names, in that order, [num_rows, n, dim]; None for no names."""
        order = {name: n for n, name in enumerate(wanted)}
        chosen = sorted((p for p in parts if p.names[0] in order), key=lambda p: order[p.names[0]])
        names = tuple(name for part in chosen for name in part.names)
        if names != wanted:
            raise ValueError(f"model: vectors {names} are given, wanted {wanted} in this order")
        return self._stack(chosen, num_rows) if chosen else None

    def _stack(self, parts: Sequence[Vectors], num_rows: int) -> Tensor:
        return torch.cat([p.values for p in parts], dim=1).view(num_rows, -1, self.dim)


def _require_positive(name: str, sizes: Sequence[int]) -> None:
    if not sizes or min(sizes) < 1:
        raise ConfigError(f"{name} is {list(sizes)}; it needs at least one width, all of them positive")


def pooled_vectors(embedded: Embedded, rows: SharedRows | None, dim: int) -> list[Vectors]:
    """The pooled features as ``DotHead`` takes them.

    Args:
        embedded: for each group its pooled features.
        rows: the shared rows; None expands every group to samples.
        dim: the width that every feature must have.

    Raises:
        ConfigError: a table has another width.
    """
    vectors = []
    for group, pooled in embedded.pooled.items():
        if other := {d for d in pooled.dims if d != dim}:
            name = pooled.keys[pooled.dims.index(min(other))]
            raise ConfigError(
                f"feature '{name}' has vectors of width {min(other)}, this model's are {dim} wide; "
                f"set model.dim, or the dim of its table, so that they agree"
            )
        if pooled.keys:
            shared = rows is not None and group != SAMPLE
            values = rows.gather_group(group, pooled.values) if rows is not None and shared else pooled.expand()
            vectors.append(Vectors(pooled.keys, values))
    return vectors


def batch_size_of(embedded: Embedded, dense: Mapping[str, Grouped]) -> int:
    """B, the number of samples, read off any tensor that a batch holds.

    Args:
        embedded: for each group its pooled features, and the sequences.
        dense: for each group its dense features.

    Raises:
        ValueError: the batch holds no features.
    """
    for tensors in (embedded.pooled, dense, embedded.sequences):
        for tensor in tensors.values():
            return tensor.batch_size
    raise ValueError("model: the batch holds no features")
