"""Rows of tables that no step has changed: their weights are still those that were drawn.

Nothing is kept for it: initial weights follow from seed, table and row, so that they are drawn again and compared. This
holds for every optimizer and sharding, after any number of kills, and for rows that were added from run to run.
"""

from collections.abc import Mapping

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from recd_dist.embedding.initial_weights import BLOCK_SIZE, draw_weights, local_shards
from recd_dist.embedding.tables import table_weights
from recd_dist.table.column import Array

Drawn = tuple[tuple[int, int], ...]
"""How the rows of a table were drawn: those up to a number, as in a table of so many rows, from a seed."""


def find_unchanged(module: nn.Module, drawn: Mapping[str, Drawn], device: torch.device) -> dict[str, Array]:
    """Finds the rows that no step has changed; a collective.

    Args:
        module: a model that holds the tables, sharded or not.
        drawn: the tables to look at, and how they were drawn.
        device: where the collectives of the process group run.

    Returns:
        For each table bool [rows], the same on every rank.
    """
    found = {}
    for name, weight in table_weights(module).items():
        if name not in drawn:
            continue
        changed = torch.zeros(weight.shape[0], dtype=torch.uint8)
        for shard, row, column in local_shards(weight):
            _mark(changed, shard, (row, column), name, weight.shape[1], drawn[name])
        changed = changed.to(device)
        if dist.is_initialized() and dist.get_world_size() > 1:
            dist.all_reduce(changed, dist.ReduceOp.MAX)
        found[name] = changed.cpu().numpy() == 0
    return found


def count_rows(marks: Mapping[str, Array], device: torch.device) -> dict[str, int]:
    """Counts rows that any rank has marked; a collective.

    Args:
        marks: for each table bool [rows], of this rank; every rank has the same tables.
        device: where the collectives of the process group run.
    """
    counts = {}
    for name, mine in marks.items():
        marked = torch.from_numpy(mine.astype(np.uint8)).to(device)
        if dist.is_initialized() and dist.get_world_size() > 1:
            dist.all_reduce(marked, dist.ReduceOp.MAX)
        counts[name] = int(marked.sum(dtype=torch.int64))
    return counts


def _mark(changed: Tensor, shard: Tensor, at: tuple[int, int], name: str, dim: int, drawn: Drawn) -> None:
    """Marks the rows of a shard that differ from what was drawn, some rows at a time."""
    row, column = at
    columns, size = (column, column + shard.shape[1]), max(1, BLOCK_SIZE // dim) * 16
    first = 0
    for end, seed in drawn:
        for start in range(max(first, row), min(end, row + len(shard)), size):
            stop = min(start + size, end, row + len(shard))
            initial = draw_weights(seed, name, end, dim, (start, stop), columns)
            differs = (shard[start - row : stop - row].cpu() != initial).any(1)
            changed[start:stop] |= differs.to(torch.uint8)
        first = end
