"""Numbers of all ranks, put together exactly; for now and then, not for every step."""

from collections.abc import Mapping

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor


def gather_on_first_rank(columns: Mapping[str, Tensor]) -> dict[str, NDArray[np.generic]] | None:
    """Gathers every rank's rows on rank 0, in the order of the ranks; a collective.

    Args:
        columns: this rank's columns by name, 1-D tensors of one length on the device of the process group. Names and
            dtypes are the same on every rank; the lengths may differ from rank to rank and may be 0.

    Returns:
        The whole columns by name on rank 0, None on the other ranks.
    """
    columns = {name: column.detach().contiguous() for name, column in columns.items()}
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return {name: column.cpu().numpy() for name, column in columns.items()}
    first = next(iter(columns.values()))
    sizes = torch.zeros(dist.get_world_size(), dtype=torch.int64, device=first.device)
    sizes[dist.get_rank()] = first.numel()
    dist.all_reduce(sizes)
    longest = int(sizes.max())
    is_first = dist.get_rank() == 0
    gathered: dict[str, NDArray[np.generic]] = {}
    for name, column in columns.items():
        padded = torch.nn.functional.pad(column, (0, longest - column.numel()))
        parts = [torch.empty_like(padded) for _ in sizes] if is_first else None
        dist.gather(padded, parts, dst=0)
        if parts is not None:
            rows = [part[:n].cpu().numpy() for part, n in zip(parts, sizes.tolist(), strict=True)]
            gathered[name] = np.concatenate(rows)
    return gathered if is_first else None


def gather_on_every_rank(columns: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Gathers every rank's rows on all ranks, in the order of the ranks; a collective.

    Args:
        columns: this rank's columns by name, with as many rows each, of any further shape, on the device of the process
            group. Names, dtypes and further shapes are the same on every rank; the number of rows may differ.

    Returns:
        The whole columns by name, on the same device.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return dict(columns)
    first = next(iter(columns.values()))
    sizes = torch.zeros(dist.get_world_size(), dtype=torch.int64, device=first.device)
    sizes[dist.get_rank()] = len(first)
    dist.all_reduce(sizes)
    whole = {}
    for name, column in columns.items():
        missing = max(1, int(sizes.max())) - len(column)
        padded = torch.cat([column.detach(), column.new_zeros(missing, *column.shape[1:])]).contiguous()
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded)
        whole[name] = torch.cat([part[:n] for part, n in zip(parts, sizes.tolist(), strict=True)])
    return whole


def reduce_over_ranks(
    values: Mapping[str, float], how: Mapping[str, str] | str, device: torch.device
) -> dict[str, float]:
    """Reduces each value to its sum, mean or max over the ranks, on every rank; a collective, one all-gather.

    Args:
        values: this rank's values by name; every rank has the same names.
        how: ``sum``, ``mean`` or ``max``, one for all values or one for each by name.
        device: where the collectives of the process group run.
    """
    mine = torch.tensor(list(values.values()), dtype=torch.float64, device=device)
    table = gather_over_ranks(mine)
    reduced = {"sum": table.sum(0), "mean": table.mean(0), "max": table.amax(0)}
    return {n: float(reduced[how if isinstance(how, str) else how[n]][i]) for i, n in enumerate(values)}


def gather_over_ranks(numbers: Tensor) -> Tensor:
    """The numbers of all ranks, side by side, on every rank; a collective.

    Args:
        numbers: this rank's, [...], of the same shape on every rank, on the device of the process group.

    Returns:
        [ranks, ...], on the host.
    """
    of_ranks = [numbers]
    if dist.is_initialized() and dist.get_world_size() > 1:
        of_ranks = [torch.empty_like(numbers) for _ in range(dist.get_world_size())]
        dist.all_gather(of_ranks, numbers)
    return torch.stack(of_ranks).cpu()
