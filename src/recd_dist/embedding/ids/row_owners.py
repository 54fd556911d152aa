"""Asks the ranks that hand out rows: ids go to the owners of their zones, rows come back.

::

    rank 0   ids 7 3 9  --7 3-->  owner of zones 0-3      rows of 7, 3  --.
                        --9---->  owner of zones 4-7      row of 9      --'-->  rank 0
             '-- all ranks hear which rows were taken from other ids

Three small collectives a batch and a fourth where rows were taken, on a gloo group that nothing else uses. A rank sends
16 bytes for each distinct id of its batch that another rank owns, and gets 8 back, so that the work of a rank does not
grow with the number of ranks.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

# Bound here, before ``metrics/traffic.py`` counts what the tables' own exchange sends.
from torch.distributed import all_gather_into_tensor, all_to_all_single

from recd_dist.table.column import Array

Blocks = list[Array]
"""For each rank int64 numbers that are sent to it, or that came from it."""


class RowOwners:
    """The ranks, as those among whom the zones are dealt.

    Args:
        group: a gloo group of all ranks; None where there is one rank.

    Attributes:
        sent_bytes: bytes that this rank has sent to others.
    """

    def __init__(self, group: Any = None) -> None:
        self._group = group
        self.rank = 0 if group is None else dist.get_rank(group)
        self.world_size = 1 if group is None else dist.get_world_size(group)
        self.sent_bytes = 0

    def exchange(self, blocks: Blocks) -> Blocks:
        """Sends blocks whose sizes the receivers do not know; a collective."""
        if self._group is None:
            return blocks
        sizes = torch.tensor([len(block) for block in blocks])
        told = torch.empty_like(sizes)
        all_to_all_single(told, sizes, group=self._group)
        return self.send(blocks, told.tolist())

    def send(self, blocks: Blocks, sizes: Sequence[int]) -> Blocks:
        """Sends blocks, of which the receivers know the sizes; a collective.

        Args:
            blocks: a block for each rank.
            sizes: for each rank the size of the block that comes from it.
        """
        if self._group is None:
            return blocks
        sent = [len(block) for block in blocks]
        out = torch.from_numpy(np.concatenate(blocks))
        into = torch.empty(sum(sizes), dtype=torch.int64)
        all_to_all_single(into, out, list(sizes), sent, group=self._group)
        self.sent_bytes += 8 * (sum(sent) - sent[self.rank])
        return [part.numpy() for part in torch.split(into, list(sizes))]

    def gather(self, numbers: Array, sizes: Sequence[int]) -> Blocks:
        """The numbers of all ranks, on all ranks; a collective, unless no rank has any.

        Args:
            numbers: int64, those of this rank.
            sizes: for each rank how many it has.
        """
        if self._group is None or not any(sizes):
            return [numbers] * self.world_size if self._group is None else [numbers[:0]] * self.world_size
        longest = max(sizes)
        mine = torch.zeros(longest, dtype=torch.int64)
        mine[: len(numbers)] = torch.from_numpy(numbers)
        gathered: Tensor = torch.empty(self.world_size * longest, dtype=torch.int64)
        all_gather_into_tensor(gathered, mine, group=self._group)
        self.sent_bytes += 8 * longest * (self.world_size - 1)
        return [part[:size].numpy() for part, size in zip(gathered.split(longest), sizes, strict=True)]
