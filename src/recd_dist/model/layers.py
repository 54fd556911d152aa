"""Layers of several models.

No layer here normalises over rows. LayerNorm and ReLU treat rows one by one, so that they give the same with
deduplication as without. What they take may be shared rows (tensors/shared.py).
"""

from collections.abc import Sequence

import torch
from torch import nn

from recd_dist.tensors.shared import Rows


class MLP(nn.Sequential):
    """Linear layers, each followed by ReLU.

    Args:
        width: the input width.
        sizes: the output width of each layer.
        dropout: the share of activations that is dropped after each ReLU, in [0, 1).
    """

    def __init__(self, width: int, sizes: Sequence[int], dropout: float = 0.0) -> None:
        layers: list[nn.Module] = []
        for size in sizes:
            layers += [nn.Linear(width, size), nn.ReLU()]
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
