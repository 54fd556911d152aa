"""Layers that take some columns once per shared row and the others once per sample.

A linear layer is a sum over its input columns, so its columns may be multiplied where they are still unique::

    W [x_shared | x_sample] + b   =   expand(W_shared x_shared) + (W_sample x_sample + b)
                                      U rows                      B rows

No layer here normalises over rows: batch statistics over unique rows are not those over samples, so BatchNorm would
train another model with deduplication than without. Whatever treats rows one by one (LayerNorm, ReLU) is exact.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recd_dist.model.shared_rows import SharedRows


class MLP(nn.Sequential):
    """Linear layers with ReLU after each.

    Args:
        width: input width.
        sizes: output width of each layer.
        dropout: share of activations dropped after each ReLU.
    """

    def __init__(self, width: int, sizes: Sequence[int], dropout: float = 0.0) -> None:
        layers: list[nn.Module] = []
        for size in sizes:
            layers += [nn.Linear(width, size), nn.ReLU()]
            if dropout:
                layers.append(nn.Dropout(dropout))
            width = size
        super().__init__(*layers)


class SplitLinear(nn.Module):
    """A linear layer whose input columns stand in two runs: one per sample, one per shared row.

    Args:
        num_sample, num_shared: width of each run.
        size: output width.
        shared_first: the shared run stands before the sample's in ``weight``.
    """

    def __init__(self, num_sample: int, num_shared: int, size: int, shared_first: bool = False) -> None:
        super().__init__()
        linear = nn.Linear(num_sample + num_shared, size)
        self.weight, self.bias = linear.weight, linear.bias
        self.num_sample, self.num_shared, self.shared_first = num_sample, num_shared, shared_first

    def forward(self, sample: Tensor | None, shared: Tensor | None, rows: SharedRows | None) -> Tensor:
        """The layer's output per sample, [B, size].

        Args:
            sample: [B, num_sample]; all columns, [B, num_sample + num_shared], where ``rows`` is None.
            shared: [U, num_shared], or None when there are no such columns.
            rows: how shared rows expand; None computes everything per sample.
        """
        if rows is None or not self.num_shared:
            return F.linear(_present(sample), self.weight, self.bias)
        if not self.num_sample:
            return rows.expand(F.linear(_present(shared), self.weight, self.bias))
        if self.shared_first:
            of_shared, of_sample = torch.split_with_sizes(self.weight, (self.num_shared, self.num_sample), 1)
        else:
            of_sample, of_shared = torch.split_with_sizes(self.weight, (self.num_sample, self.num_shared), 1)
        once = rows.expand(F.linear(_present(shared), of_shared))
        return once + F.linear(_present(sample), of_sample, self.bias)


def _present(columns: Tensor | None) -> Tensor:
    if columns is None:
        raise ValueError("layer: its input columns are missing")
    return columns


class DenseArch(nn.Module):
    """The bottom MLP over the dense features of all groups, with its first layer split by columns.

    Args:
        num_sample, num_shared: dense features of the group ``sample`` and of the deduplicated groups.
        sizes: widths of the layers; the last is the width of the output.
    """

    def __init__(self, num_sample: int, num_shared: int, sizes: Sequence[int]) -> None:
        super().__init__()
        self.first = SplitLinear(num_sample, num_shared, sizes[0], shared_first=True)
        self.rest = MLP(sizes[0], sizes[1:])
        self.size = sizes[-1]
        self.is_shared = num_sample == 0
        """Its output is the same for all samples of a shared row, so it is computed once per shared row."""

    def forward(self, sample: Tensor | None, shared: Tensor | None, rows: SharedRows | None) -> Tensor:
        """The dense vector, [B, size], or [U, size] when ``is_shared`` and rows are shared.

        Args:
            sample: [B, num_sample]; all columns, the deduplicated groups' first, where ``rows`` is None.
            shared: [U, num_shared].
            rows: the shared rows, None where nothing is shared.
        """
        if rows is not None and self.is_shared:
            return self._rest(F.linear(_present(shared), self.first.weight, self.first.bias))
        return self._rest(self.first(sample, shared, rows))

    def _rest(self, hidden: Tensor) -> Tensor:
        out: Tensor = self.rest(torch.relu(hidden))
        return out
