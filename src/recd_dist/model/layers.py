"""Layers of several models.

LayerNorm and ReLU treat rows one by one, so that they give the same with deduplication as without; a BatchNorm counts
each row as often as samples have it (batch_norm.py). What they take may be shared rows (tensors/shared.py).
"""

from collections.abc import Sequence

import torch
from torch import nn

from recd_dist.errors import ConfigError
from recd_dist.model.batch_norm import BatchNorm
from recd_dist.tensors.shared import Rows


def check_layers(dropout: float = 0.0, **widths: Sequence[int]) -> None:
    """Refuses options of a model's layers that are out of range.

    Args:
        dropout: the share of activations that is dropped in training.
        widths: for each option that is a list of widths its value.

    Raises:
        ConfigError: the share is not in [0, 1), or a list is empty or holds a width below 1.
    """
    for name, sizes in widths.items():
        if not sizes or min(sizes) < 1:
            raise ConfigError(f"model.{name} is {list(sizes)}; it needs at least one width, all of them positive")
    if not 0.0 <= dropout < 1.0:
        raise ConfigError(f"model.dropout is {dropout}; it must be at least 0 and less than 1")


class MLP(nn.Sequential):
    """Linear layers, each followed by ReLU.

    Args:
        width: the input width.
        sizes: the output width of each layer.
        dropout: the share of activations that is dropped after each ReLU, in [0, 1).
        batch_norm: normalise each layer's output over the samples of all ranks, before ReLU.
    """

    def __init__(self, width: int, sizes: Sequence[int], dropout: float = 0.0, batch_norm: bool = False) -> None:
        layers: list[nn.Module] = []
        for size in sizes:
            # A bias before BatchNorm changes nothing, so that its gradient would be noise, which Adam makes large.
            layers += [
                nn.Linear(width, size, bias=not batch_norm),
                *([BatchNorm(size)] if batch_norm else []),
                nn.ReLU(),
            ]
            if dropout:
                layers.append(nn.Dropout(dropout))
            width = size
        super().__init__(*layers)


class DenseArch(nn.Module):
    """The bottom MLP over the dense features of all groups.

    Args:
        num_dense: the number of dense features.
        sizes: the widths of the layers; the last one is the width of the output.
    """

    def __init__(self, num_dense: int, sizes: Sequence[int]) -> None:
        super().__init__()
        self.first = nn.Linear(num_dense, sizes[0])
        self.rest = MLP(sizes[0], sizes[1:])
        self.size = sizes[-1]

    def forward(self, dense: Rows) -> Rows:
        """The dense features' vector, [B, size].

        Args:
            dense: the dense features, [B, num_dense].
        """
        out: Rows = self.rest(torch.relu(self.first(dense)))
        return out


class Tower(nn.Module):
    """An MLP and a linear layer that ends in logits.

    Args:
        width: the input width.
        sizes: the widths of the hidden layers.
        dropout: the share of activations that is dropped after each hidden layer, in [0, 1).
        num_tasks: T, the number of logits.
    """

    def __init__(self, width: int, sizes: Sequence[int], dropout: float, num_tasks: int) -> None:
        super().__init__()
        self.hidden = MLP(width, sizes, dropout)
        self.logit = nn.Linear(sizes[-1], num_tasks)

    def forward(self, rows: Rows) -> Rows:
        """Logits [B, T].

        Args:
            rows: [B, width].
        """
        logits: Rows = self.logit(self.hidden(rows))
        return logits
