"""Cross layers: products of columns with linear functions of all columns, in full or in low rank.

The first layer multiplies the columns as they come: each level's columns where they are unique, then added up. From its
output on every number depends on all levels, and the other layers are computed at their join (mostly: per sample).
"""

import torch
from torch import nn

from recd_dist.errors import ConfigError
from recd_dist.tensors.shared import Columns, Rows


class CrossLayers(nn.Module):
    """The cross network of DCN v2 (Wang et al., 2021): ``x[n + 1] = x[0] * (W x[n] + b) + x[n]``.

    Args:
        width: the number of columns.
        num_layers: the number of layers, at least 1.
        rank: R, where W is the product of [width, R] and [R, width]; 0 for a full matrix.

    Raises:
        ConfigError: a number is out of range.
    """

    def __init__(self, width: int, num_layers: int, rank: int) -> None:
        super().__init__()
        if num_layers < 1:
            raise ConfigError(f"model.cross_layers is {num_layers}; it must be at least 1")
        if rank < 0:
            raise ConfigError(f"model.rank is {rank}; it must be at least 1, or 0 for full matrices")
        self.layers = nn.ModuleList(_linear_function(width, rank) for _ in range(num_layers))

    def forward(self, columns: Rows) -> Rows:
        """The crossed columns, [B, width].

        Args:
            columns: [B, width]; parts of several levels are multiplied where they are unique.
        """
        first: Rows = columns.join() if isinstance(columns, Columns) else columns
        crossed = first
        for number, layer in enumerate(self.layers):
            crossed = torch.addcmul(crossed, first, layer(crossed if number else columns))  # type: ignore[arg-type]
        return crossed


def _linear_function(width: int, rank: int) -> nn.Module:
    if rank == 0:
        return nn.Linear(width, width)
    return nn.Sequential(nn.Linear(width, rank, bias=False), nn.Linear(rank, width))
