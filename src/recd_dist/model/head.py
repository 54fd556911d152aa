"""The part that all dot models share: bottom MLP, dot products and over-arch."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from recd_dist.model.batch_norm import BatchNorm
from recd_dist.model.interaction import DotInteraction
from recd_dist.model.layers import MLP, DenseArch, check_layers
from recd_dist.model.model_inputs import Inputs, Vectors
from recd_dist.table.schema import SAMPLE, Schema
from recd_dist.tensors.levels import Level
from recd_dist.tensors.shared import Rows, Shared, expand, level_of

DENSE = "<dense>"
"""The name of the dense features' vector among the vectors that interact; no feature can have this name."""


class DotHead(nn.Module):
    """Computes one logit per task for each sample, from pooled vectors and dense features.

    The dense features go two ways: through a linear layer into the dot products, as one more vector, and straight into
    the over-arch, so that a model of counters and rates does not depend on products. Without dense features that vector
    is a learned constant, and its product with a feature's vector is the feature's own score.

    Args:
        schema: the groups and their dense features.
        shared: the names of the vectors that deduplicated groups have.
        sample: the names of the vectors that samples have.
        dim: the width of the vectors.
        bottom: the widths of the bottom MLP's layers, over dense features.
        over: the widths of the over-arch's hidden layers.
        dropout: the share of the over-arch's activations that is dropped in training, in [0, 1).
        num_tasks: T, the number of tasks; they share every layer but the last.
        batch_norm: normalise the over-arch's layers over the samples of all ranks, before each ReLU.

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
        num_tasks: int = 1,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        check_layers(dropout, dim=[dim], bottom=bottom, over=over)
        self.dim = dim
        # The columns of deduplicated groups come first.
        self.dense_groups = (*schema.dedup_groups, SAMPLE)
        num_sample = len(schema.dense_of(SAMPLE))
        num_shared = sum(len(schema.dense_of(g)) for g in schema.dedup_groups)
        self.bottom = DenseArch(num_sample + num_shared, bottom) if num_sample + num_shared else None
        dense_is_shared = num_sample == 0 and (num_shared > 0 or bool(shared))
        # With dense features alone there is nothing to multiply, and the over-arch takes them as they are.
        vector = (DENSE,) if shared or sample else ()
        if self.bottom is None:
            self.constant = nn.Parameter(torch.empty(1, dim).normal_(std=dim**-0.5))
        elif vector:
            self.project = nn.Linear(self.bottom.size, dim)
        self.has_vector = bool(vector)
        shared = (*shared, *vector) if dense_is_shared else tuple(shared)
        sample = tuple(sample) if dense_is_shared else (*sample, *vector)
        extra = self.bottom.size if self.bottom is not None else 0
        self.interaction = DotInteraction(shared, sample, dim, extra, dense_is_shared, over[0], not batch_norm)
        first = [BatchNorm(over[0])] if batch_norm else []
        rest = MLP(over[0], over[1:], dropout, batch_norm)
        self.over = nn.Sequential(*first, nn.ReLU(), nn.Dropout(dropout), rest)
        self.logit = nn.Linear(over[-1], num_tasks)

    def forward(self, inputs: Inputs, seen: Sequence[Vectors] = ()) -> Tensor:
        """Logits [B, T].

        Args:
            inputs: the batch; all its pooled vectors take part.
            seen: the vectors beside them, of histories.
        """
        vectors = [*inputs.vectors.values(), *seen]
        dense = inputs.dense_columns(self.dense_groups)
        wide = None if self.bottom is None or dense is None else self.bottom(dense)
        if self.has_vector:
            vectors.append(Vectors((DENSE,), self._dense_vector(wide, vectors, inputs.batch_size)))
        logits: Rows = self.logit(self.over(self.interaction(vectors, wide)))
        return expand(logits)

    def _dense_vector(self, wide: Rows | None, vectors: Sequence[Vectors], batch_size: int) -> Rows:
        """The dense features' vector for the dot products, [B, dim]."""
        if wide is not None:
            vector: Rows = self.project(wide)
            return vector
        levels = [level for v in vectors if isinstance(level := level_of(v.values), Level)]
        level = min(levels, key=lambda found: found.num_rows, default=None)
        return Shared.of(self.constant.expand(batch_size if level is None else level.num_rows, -1), level)
