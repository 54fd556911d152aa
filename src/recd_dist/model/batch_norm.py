"""BatchNorm over the samples of all ranks, computed on unique rows.

::

    rows          x [U, C], row u is that of n_u samples      N = all samples of all ranks
    mean          sum of n_u x_u / N                           one all-reduce, with N beside it
    variance      sum of n_u (x_u - mean)^2 / N                a second one: small differences of large numbers would
    gradient      sums of dy and of dy * normal                lose digits if one did both; a third one going back

It is that of the expanded batch: torch's SyncBatchNorm over all samples gives the same numbers to rounding. The sums
are the same on every rank, and with them the running mean and variance: a checkpoint may take them from any rank.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from recd_dist.tensors.shared import Columns, Rows, Shared


class BatchNorm(nn.Module):
    """Normalises each column over all samples of all ranks, then scales and shifts it. It computes in float32 at least.

    Args:
        width: C, the number of columns.
        eps: a number that is added to the variance.
        momentum: the share of a batch in the running mean and variance, which are used in evaluation.

    Attributes:
        running_mean: float [C].
        running_var: float [C], of the unbiased variance, as torch keeps it.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, width: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_var", torch.ones(width))

    def forward(self, rows: Rows) -> Rows:
        """The same rows, normalised.

        Args:
            rows: [B, C]; of shared rows each counts as often as samples have it.
        """
        rows = rows.join() if isinstance(rows, Columns) else rows
        if not isinstance(rows, Shared):
            return self._normalise(rows, None)  # type: ignore[arg-type]
        return Shared(self._normalise(rows.values, rows.level.num_samples), rows.level)

    def _normalise(self, rows: Tensor, counts: Tensor | None) -> Tensor:
        dtype = torch.promote_types(rows.dtype, torch.float32)
        with torch.autocast(rows.device.type, enabled=False):
            values, weight, bias = rows.to(dtype), self.weight.to(dtype), self.bias.to(dtype)
            if not self.training:
                scale = weight * torch.rsqrt(self.running_var.to(dtype) + self.eps)
                return torch.addcmul(bias, values - self.running_mean.to(dtype), scale).to(rows.dtype)
            counted = values.new_ones(len(rows)) if counts is None else counts.to(dtype)
            normal, mean, var, size = _Normalise.apply(values, counted, self.eps)  # type: ignore[no-untyped-call,unused-ignore]
            with torch.no_grad():
                self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
                unbiased = var * (size / (size - 1).clamp(min=1))
                self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)
            return torch.addcmul(bias, normal, weight).to(rows.dtype)


def _add_up(numbers: Tensor) -> Tensor:
    """The sums over all ranks, the same bits on each; the numbers themselves where there is one."""
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(numbers)
    return numbers


class _Normalise(torch.autograd.Function):
    """Rows [U, C] without mean and with variance 1 over all samples; also mean, variance and number of samples."""

    @staticmethod
    def forward(ctx: FunctionCtx, rows: Tensor, counts: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        sums = _add_up(torch.cat([counts @ rows, counts.sum()[None]]))
        size, mean = sums[-1], sums[:-1] / sums[-1]
        centred = rows - mean
        var = _add_up(counts @ centred.square()) / size
        scale = torch.rsqrt(var + eps)
        normal = centred * scale
        ctx.save_for_backward(normal, counts, scale, size)
        ctx.mark_non_differentiable(mean, var, size)
        return normal, mean, var, size

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *others: Tensor) -> tuple[Tensor, None, None]:
        """A row's gradient comes summed over its samples; what it owes to the means counts for each of them."""
        del others
        normal, counts, scale, size = ctx.saved_tensors
        sums = _add_up(torch.stack([grad.sum(0), (grad * normal).sum(0)])) / size
        return (grad - counts[:, None] * torch.addcmul(sums[0], normal, sums[1])) * scale, None, None
