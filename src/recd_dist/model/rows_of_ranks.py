"""Rows of all ranks on every rank, with gradients: what each rank makes of a row flows back to the rank that has it.

::

    rank 0  [a b] --.                 gradient of b = what rank 0 and rank 1 made of it, added up
    rank 1  [c]   --'-> [a b c] on both

Ranks may have any number of rows. Where there is one process the rows are its own.
"""

from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable


def num_ranks() -> int:
    """The number of ranks of the job; 1 outside of one."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def gather_numbers(numbers: NDArray[np.int64], device: torch.device) -> list[NDArray[np.int64]]:
    """Every rank's whole numbers, rank by rank; a collective, for which the host waits.

    Args:
        numbers: int64 [n, columns] of this rank; n may differ from rank to rank.
        device: where the collectives of the process group run.
    """
    if num_ranks() == 1:
        return [numbers]
    sizes = [int(n) for n in _gather(torch.tensor([len(numbers)], device=device)).view(-1).tolist()]
    mine = torch.from_numpy(np.ascontiguousarray(numbers)).to(device)
    parts = _gather(_pad(mine, max(1, *sizes))).cpu().numpy()
    return [part[:size] for part, size in zip(parts, sizes, strict=True)]


def gather_rows_of_ranks(rows: Tensor, sizes: list[int]) -> Tensor:
    """The rows of all ranks, [sum of sizes, D], in the order of the ranks; a collective, as is its backward pass.

    Args:
        rows: float [n, D], those of this rank.
        sizes: the number of rows of each rank.
    """
    if num_ranks() == 1:
        return rows
    gathered: Tensor = _GatherRows.apply(rows, sizes)  # type: ignore[no-untyped-call,unused-ignore]
    return gathered


def _pad(rows: Tensor, size: int) -> Tensor:
    return torch.cat([rows, rows.new_zeros(size - len(rows), *rows.shape[1:])]) if len(rows) < size else rows


def _gather(rows: Tensor) -> Tensor:
    """The same shape of every rank, stacked."""
    rows = rows.contiguous()
    parts = [torch.empty_like(rows) for _ in range(num_ranks())]
    dist.all_gather(parts, rows)
    return torch.stack(parts)


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, rows: Tensor, sizes: list[int]) -> Tensor:
        ctx.sizes = sizes  # type: ignore[attr-defined]
        parts = _gather(_pad(rows, max(1, *sizes)))
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        summed, rank = grad.clone(memory_format=torch.contiguous_format), dist.get_rank()
        dist.all_reduce(summed)
        start = sum(ctx.sizes[:rank])
        return summed[start : start + ctx.sizes[rank]], None
