"""The PLE model: layers of experts, some of each task and some of all, then a tower for each task.

After Tang et al., 2020. The first layer's experts and gates read the columns where they are unique.
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


class PLE(PooledModel):
    """Layers of experts, then a tower for each task.

    Args:
        schema: the features; every table must be ``dim`` wide.
        dim: the width of the embeddings.
        bottom: the widths of the bottom MLP's layers, over dense features.
        expert_layers: the number of layers of experts.
        shared_experts: the number of experts of all tasks, in each layer.
        task_experts: the number of experts of each task, in each layer.
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
        expert_layers: int = 2,
        shared_experts: int = 2,
        task_experts: int = 2,
        expert: Sequence[int] = (128, 64),
        tower: Sequence[int] = (64,),
        dropout: float = 0.0,
        num_tasks: int = 1,
    ) -> None:
        super().__init__(dim)
        check_layers(dropout, expert=expert, tower=tower)
        check_counts(expert_layers=expert_layers, shared_experts=shared_experts, task_experts=task_experts)
        self.columns = FeatureColumns(schema, dim, bottom)
        self.num_tasks = num_tasks
        self.layers = nn.ModuleList(
            _ExpertLayer(
                expert[-1] if number else self.columns.width,
                num_tasks,
                shared_experts,
                task_experts,
                expert,
                dropout,
                is_last=number == expert_layers - 1,
            )
            for number in range(expert_layers)
        )
        self.towers = nn.ModuleList(Tower(expert[-1], tower, dropout, 1) for _ in range(num_tasks))

    def compute(self, inputs: Inputs) -> Rows:
        """Logits [B, T].

        Args:
            inputs: the batch.
        """
        of_all = self.columns(inputs)
        of_tasks = [of_all] * self.num_tasks
        for layer in self.layers:
            of_tasks, of_all = layer(of_tasks, of_all)
        logits: Rows = torch.cat([tower(own) for tower, own in zip(self.towers, of_tasks, strict=True)], 1)
        return logits


class _ExpertLayer(nn.Module):
    """One layer: a task mixes its own experts and the shared ones, the shared part mixes all of them."""

    def __init__(
        self,
        width: int,
        num_tasks: int,
        shared_experts: int,
        task_experts: int,
        sizes: Sequence[int],
        dropout: float,
        is_last: bool,
    ) -> None:
        super().__init__()
        self.of_all = Experts(width, shared_experts, sizes, dropout)
        self.of_tasks = nn.ModuleList(Experts(width, task_experts, sizes, dropout) for _ in range(num_tasks))
        self.mix_task = nn.ModuleList(Mixture(width, task_experts + shared_experts) for _ in range(num_tasks))
        # Nothing reads the shared part behind the last layer.
        self.mix_all = None if is_last else Mixture(width, num_tasks * task_experts + shared_experts)

    def forward(self, of_tasks: Sequence[Rows], of_all: Rows) -> tuple[list[Rows], Rows]:
        """The mixed vectors [B, H] of each task, and of all."""
        shared = self.of_all(of_all)
        own = [experts(rows) for experts, rows in zip(self.of_tasks, of_tasks, strict=True)]
        tasks = [mix(rows, [*mine, *shared]) for mix, rows, mine in zip(self.mix_task, of_tasks, own, strict=True)]
        if self.mix_all is None:
            return tasks, of_all
        return tasks, self.mix_all(of_all, [*(output for mine in own for output in mine), *shared])
