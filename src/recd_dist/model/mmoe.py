"""The MMoE model: experts that all tasks share, a gate and a tower for each task.

After Ma et al., 2018.
"""

from collections.abc import Sequence

import torch
from torch import nn

from recd_dist.model.experts import Experts, Mixture, check_counts
from recd_dist.model.layers import Tower, check_layers
from recd_dist.model.model_inputs import Inputs
from recd_dist.model.pooled_model import FeatureColumns, PooledModel
from recd_dist.table.schema import Schema
from recd_dist.tensors.shared import Rows


class MMoE(PooledModel):
    """Experts, mixed for each task.

    Args:
        schema: the features; every table must be ``dim`` wide.
        dim: the width of the embeddings.
        bottom: the widths of the bottom MLP's layers, over dense features.
        experts: the number of experts.
        expert: the widths of an expert's layers.
        tower: the widths of a task's hidden layers.
        dropout: the share of activations that is dropped in training, in [0, 1), in experts and towers.
        num_tasks: T, the number of tasks.

    Raises:
        ConfigError: a number or the share is out of range.
    """

    def __init__(
        self,
        schema: Schema,
        dim: int,
        bottom: Sequence[int] = (128, 64),
        experts: int = 4,
        expert: Sequence[int] = (128, 64),
        tower: Sequence[int] = (64,),
        dropout: float = 0.0,
        num_tasks: int = 1,
    ) -> None:
        super().__init__(dim)
        check_layers(dropout, expert=expert, tower=tower)
        check_counts(experts=experts)
        self.columns = FeatureColumns(schema, dim, bottom)
        self.experts = Experts(self.columns.width, experts, expert, dropout)
        self.mixtures = nn.ModuleList(Mixture(self.columns.width, experts) for _ in range(num_tasks))
        self.towers = nn.ModuleList(Tower(expert[-1], tower, dropout, 1) for _ in range(num_tasks))

    def compute(self, inputs: Inputs) -> Rows:
        """Logits [B, T].

        Args:
            inputs: the batch.
        """
        columns = self.columns(inputs)
        outputs = self.experts(columns)
        mixed = [mixture(columns, outputs) for mixture in self.mixtures]
        logits: Rows = torch.cat([tower(own) for tower, own in zip(self.towers, mixed, strict=True)], 1)
        return logits
