"""Layers that take some columns once per shared row and others once per sample.

A linear layer is a sum over its input columns, so that columns may be multiplied where their rows are still unique::

    W [x_shared | x_sample] + b   =   expand(W_shared x_shared) + (W_sample x_sample + b)
                                      U rows                      B rows

No layer here normalises over rows. Batch statistics over unique rows are not those over samples, so that BatchNorm
would train one model with deduplication and another model without. Layers that treat rows one by one (LayerNorm, ReLU)
are exact.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recd_dist.model.shared_rows import SharedRows


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


class SplitLinear(nn.Module):
    """A linear layer with two blocks of input columns: one has a row per sample, the other a row per shared row.

    Args:
        num_sample: the number of columns that have a row per sample.
        num_shared: the number of columns that have a row per shared row.
        size: the output width.
        shared_first: whether the shared columns stand before the samples' columns in ``weight``.
    """

    def __init__(self, num_sample: int, num_shared: int, size: int, shared_first: bool = False) -> None:
        super().__init__()
        linear = nn.Linear(num_sample + num_shared, size)
        self.weight, self.bias = linear.weight, linear.bias
        self.num_sample, self.num_shared, self.shared_first = num_sample, num_shared, shared_first

    def forward(self, sample: Tensor | None, shared: Tensor | None, rows: SharedRows | None) -> Tensor:
        """The layer's output per sample, [B, size].

        Args:
            sample: the samples' columns, [B, num_sample]; all [B, num_sample + num_shared] columns if ``rows`` is None.
            shared: the shared columns, [U, num_shared]; None when there are none.
            rows: the shared rows; None computes everything per sample.
        """
        if rows is None or not self.num_shared:
            return F.linear(_require_columns(sample), self.weight, self.bias)
        if not self.num_sample:
            return rows.expand(F.linear(_require_columns(shared), self.weight, self.bias))
        if self.shared_first:
            of_shared, of_sample = torch.split_with_sizes(self.weight, (self.num_shared, self.num_sample), 1)
        else:
            of_sample, of_shared = torch.split_with_sizes(self.weight, (self.num_sample, self.num_shared), 1)
        once = rows.expand(F.linear(_require_columns(shared), of_shared))
        return once + F.linear(_require_columns(sample), of_sample, self.bias)


def _require_columns(columns: Tensor | None) -> Tensor:
    if columns is None:
        raise ValueError("layer: its input columns are missing")
    return columns


class DenseArch(nn.Module):
    """The bottom MLP over the dense features of all groups, with its first layer split by columns.

    Args:
        num_sample: the number of dense features of the group ``sample``.
        num_shared: the number of dense features of the deduplicated groups.
        sizes: the widths of the layers; the last one is the width of the output.
    """

    def __init__(self, num_sample: int, num_shared: int, sizes: Sequence[int]) -> None:
        super().__init__()
        self.first = SplitLinear(num_sample, num_shared, sizes[0], shared_first=True)
        self.rest = MLP(sizes[0], sizes[1:])
        self.size = sizes[-1]
        self.is_shared = num_sample == 0
        """Whether the samples of a shared row have the same output, which is then computed once per shared row."""

    def forward(self, sample: Tensor | None, shared: Tensor | None, rows: SharedRows | None) -> Tensor:
        """The dense features' vector: [B, size], or [U, size] when ``is_shared`` and ``rows`` is not None.

        Args:
            sample: the samples' columns, [B, num_sample]; if ``rows`` is None all columns, those of deduplicated groups
                first.
            shared: the columns of the deduplicated groups, [U, num_shared]; None when there are none.
            rows: the shared rows; None computes everything per sample.
        """
        if rows is not None and self.is_shared:
            return self._run_rest(F.linear(_require_columns(shared), self.first.weight, self.first.bias))
        return self._run_rest(self.first(sample, shared, rows))

    def _run_rest(self, hidden: Tensor) -> Tensor:
        out: Tensor = self.rest(torch.relu(hidden))
        return out
