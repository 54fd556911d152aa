"""Adds up partial sums inside a host, for tables with rows split there (TWRW, GRID).

Ranks 0 and 1, which are one host, hold a table with its rows split; the batches of ranks 0 to 3, on two hosts, ask
for it::

    rank 0  [rows of 0 | 1 | 2 | 3]  partial  --.   rank 0  [rows of 0 | 2]  summed  --> ranks 0 and 2
    rank 1  [rows of 0 | 1 | 2 | 3]  partial  --'   rank 1  [rows of 1 | 3]  summed  --> ranks 1 and 3

Each rank adds up the rows of those ranks that have its own local rank in their hosts. The number of bytes stays the
same, but with L ranks a host only one L-th of them crosses between hosts, where the link is slow. This takes one more
collective in each direction, inside the host.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import FunctionCtx

from recd_dist.embedding.exchange.pieces import Integers, Order, reorder


class HostSum:
    """The sums inside a host in one step.

    Args:
        rows: for each matrix the number of rows that belong to each rank of the job, int64 [matrices, W].
        columns: for each matrix the number of its columns.
        group: the process group of the ranks of this host.
    """

    def __init__(self, rows: Integers, columns: Sequence[int], group: dist.ProcessGroup) -> None:
        self.rows, self.columns, self.group = rows, np.array(columns, dtype=np.int64), group
        self.size, self.local_rank = group.size(), group.rank()
        self.order, self.back = _by_local_rank(*rows.shape, self.size)
        self.sizes = rows * self.columns[:, None]

    def kept_rows(self) -> Integers:
        """For each summed matrix the number of rows of each rank: only ranks with this local rank have some."""
        kept: Integers = np.where(np.arange(self.rows.shape[1]) % self.size == self.local_rank, self.rows, 0)
        return kept

    def num_elements(self) -> Integers:
        """For each matrix and local rank how many numbers belong to the ranks with this local rank."""
        return self.sizes.reshape(len(self.sizes), -1, self.size).sum(1)


@lru_cache(maxsize=16)
def _by_local_rank(num_matrices: int, world_size: int, host_size: int) -> tuple[Order, Order]:
    """The order of pieces [matrices, hosts, local ranks] by local rank, then by matrix, then by host; and back."""
    order = Order(np.arange(num_matrices * world_size).reshape(num_matrices, -1, host_size).transpose(2, 0, 1))
    return order, order.inverse()


def sum_in_host(step: HostSum, matrices: Sequence[Tensor], anchor: Tensor) -> list[Tensor]:
    """Adds up the partial sums that the ranks of a host computed.

    Args:
        step: sizes of the sums.
        matrices: partial sums, float32 [rows of all ranks, columns], rank after rank.
        anchor: a tensor that requires a gradient, so that every rank of the host takes part in the backward exchange.

    Returns:
        Whole sums, float32 [rows of the ranks with this local rank, columns].
    """
    return list(_HostSum.apply(step, anchor, *matrices))  # type: ignore[no-untyped-call,unused-ignore]


class _HostSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, step: HostSum, anchor: Tensor, *matrices: Tensor) -> tuple[Tensor, ...]:
        ctx.step = step  # type: ignore[attr-defined]
        sent = reorder([m.reshape(-1) for m in matrices], list(step.sizes), step.order)
        elements = step.num_elements()
        own = elements[:, step.local_rank].tolist()
        received = anchor.new_empty(sum(own) * step.size)
        dist.all_to_all_single(
            received,
            sent,
            output_split_sizes=[sum(own)] * step.size,
            input_split_sizes=elements.sum(0).tolist(),
            group=step.group,
        )
        # The sum runs in the order of the ranks, so that it is the same every time.
        total = received.view(step.size, sum(own)).sum(0)
        return tuple(p.view(-1, c) for p, c in zip(total.split(own), step.columns.tolist(), strict=True))

    @staticmethod
    def backward(ctx: FunctionCtx, *grads: Tensor) -> tuple[Tensor | None, ...]:
        step: HostSum = ctx.step  # type: ignore[attr-defined]
        sent = torch.cat([g.reshape(-1) for g in grads])
        sizes_received = step.num_elements().sum(0).tolist()
        received = sent.new_empty(sum(sizes_received))
        dist.all_to_all_single(
            received,
            sent.repeat(step.size),
            output_split_sizes=sizes_received,
            input_split_sizes=[len(sent)] * step.size,
            group=step.group,
        )
        by_matrix = reorder([received], [step.sizes.reshape(-1)[step.order.numbers]], step.back)
        parts = by_matrix.split(step.sizes.sum(1).tolist())
        return None, None, *(p.view(-1, c) for p, c in zip(parts, step.columns.tolist(), strict=True))
