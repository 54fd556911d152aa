"""Experts and gates: networks side by side over the same columns, and their mixtures."""

from collections.abc import Sequence

import torch
from torch import nn

from recd_dist.errors import ConfigError
from recd_dist.model.layers import MLP
from recd_dist.tensors.shared import Rows


class Experts(nn.Module):
    """MLPs of one shape over the same columns.

    Their first layers are one matrix, so that columns of several levels are multiplied once, where they are unique.

    Args:
        width: the number of columns.
        count: E, the number of experts.
        sizes: the widths of an expert's layers; the last one is H, the width of its output.
        dropout: the share of activations that is dropped in training, in [0, 1).
    """

    def __init__(self, width: int, count: int, sizes: Sequence[int], dropout: float) -> None:
        super().__init__()
        self.first = nn.Linear(width, count * sizes[0])
        self.rest = nn.ModuleList(
            nn.Sequential(nn.ReLU(), nn.Dropout(dropout), MLP(sizes[0], sizes[1:], dropout)) for _ in range(count)
        )

    def forward(self, columns: Rows) -> list[Rows]:
        """The output of each expert, E of [B, H].

        Args:
            columns: [B, width].
        """
        first = self.first(columns)
        return [rest(own) for rest, own in zip(self.rest, first.chunk(len(self.rest), 1), strict=True)]


class Mixture(nn.Module):
    """A gate over the same columns: the experts' outputs, weighted by a softmax.

    Args:
        width: the number of columns.
        count: E, the number of experts.
    """

    def __init__(self, width: int, count: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width, count)

    def forward(self, columns: Rows, outputs: Sequence[Rows]) -> Rows:
        """The mixed output, [B, H].

        Args:
            columns: [B, width].
            outputs: E of [B, H].
        """
        shares = torch.softmax(self.gate(columns), 1)
        mixed: Rows = torch.einsum("be,beh->bh", shares, torch.stack(list(outputs), 1))  # type: ignore[arg-type]
        return mixed


def check_counts(**counts: int) -> None:
    """Refuses numbers of a model's parts below 1.

    Args:
        counts: for each option its value.

    Raises:
        ConfigError: the first one that is out of range.
    """
    for name, count in counts.items():
        if count < 1:
            raise ConfigError(f"model.{name} is {count}; it must be at least 1")
