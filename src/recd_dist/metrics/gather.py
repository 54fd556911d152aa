"""Numbers of all ranks, brought together rarely and exactly."""

from collections.abc import Mapping

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor


def gather_columns(columns: Mapping[str, Tensor]) -> dict[str, NDArray[np.generic]] | None:
    """Every rank's rows on rank 0, in the order of the ranks; ranks may hold different numbers of rows, or none.

    Args:
        columns: 1-D tensors of one length, the same names and dtypes on every rank, on the group's device.

    Returns:
        numpy arrays on rank 0, None elsewhere.
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


def over_ranks(values: Mapping[str, float], how: Mapping[str, str] | str, device: torch.device) -> dict[str, float]:
    """Each value's sum, mean or max over the ranks, on every rank; one all-gather.

    Args:
        values: the same names on every rank.
        how: ``sum``, ``mean`` or ``max``, for all or by name.
        device: where the group's collectives run.
    """
    mine = torch.tensor(list(values.values()), dtype=torch.float64, device=device)
    everyone = [mine]
    if dist.is_initialized() and dist.get_world_size() > 1:
        everyone = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
        dist.all_gather(everyone, mine)
    table = torch.stack(everyone).cpu()
    reduced = {"sum": table.sum(0), "mean": table.mean(0), "max": table.amax(0)}
    return {n: float(reduced[how if isinstance(how, str) else how[n]][i]) for i, n in enumerate(values)}
