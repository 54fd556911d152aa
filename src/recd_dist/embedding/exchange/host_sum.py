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
from itertools import accumulate, pairwise

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import FunctionCtx


class HostSum:
    """The sums inside a host in one step.

    Args:
        rows: for each matrix the number of rows that belong to each rank of the job.
        columns: for each matrix the number of its columns.
        group: the process group of the ranks of this host.
    """

    def __init__(self, rows: Sequence[tuple[int, ...]], columns: Sequence[int], group: dist.ProcessGroup) -> None:
        self.rows, self.columns, self.group = rows, columns, group
        self.size, self.local_rank = group.size(), group.rank()

    def kept_rows(self) -> list[tuple[int, ...]]:
        """For each summed matrix the number of rows of each rank: only ranks with this local rank have some."""
        return [tuple(n if q % self.size == self.local_rank else 0 for q, n in enumerate(rows)) for rows in self.rows]

    def num_rows(self, local_rank: int) -> list[int]:
        """For each matrix the number of rows that belong to all ranks with a local rank.

        Args:
            local_rank: the local rank.
        """
        return [sum(rows[local_rank :: self.size]) for rows in self.rows]

    def num_elements(self, local_rank: int) -> int:
        """How many numbers all matrices have in these rows.

        Args:
            local_rank: the local rank.
        """
        return sum(n * c for n, c in zip(self.num_rows(local_rank), self.columns, strict=True))


def sum_in_host(step: HostSum, matrices: Sequence[Tensor], anchor: Tensor) -> list[Tensor]:
    """Adds up the partial sums that the ranks of a host computed.

    Args:
        step: sizes of the sums.
        matrices: partial sums, float32 [rows of all ranks, columns], rank after rank.
        anchor: a tensor that requires a gradient, so that every rank of the host takes part in the backward exchange.

    Returns:
        Whole sums, float32 [rows of the ranks with this local rank, columns].
    """
    return list(_HostSum.apply(step, anchor, *matrices))  # type: ignore[no-untyped-call]


class _HostSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, step: HostSum, anchor: Tensor, *matrices: Tensor) -> tuple[Tensor, ...]:
        ctx.step = step  # type: ignore[attr-defined]
        by_rank = [m.split(list(rows)) for m, rows in zip(matrices, step.rows, strict=True)]
        sent = [rows.reshape(-1) for q in range(step.size) for m in by_rank for rows in m[q :: step.size]]
        own = step.num_elements(step.local_rank)
        received = anchor.new_empty(own * step.size)
        dist.all_to_all_single(
            received,
            torch.cat(sent),
            output_split_sizes=[own] * step.size,
            input_split_sizes=[step.num_elements(q) for q in range(step.size)],
            group=step.group,
        )
        # The sum runs in the order of the ranks, so that it is the same every time.
        total = received.view(step.size, own).sum(0)
        sizes = [n * c for n, c in zip(step.num_rows(step.local_rank), step.columns, strict=True)]
        return tuple(p.view(-1, c) for p, c in zip(total.split(sizes), step.columns, strict=True))

    @staticmethod
    def backward(ctx: FunctionCtx, *grads: Tensor) -> tuple[Tensor | None, ...]:
        step: HostSum = ctx.step  # type: ignore[attr-defined]
        sent = torch.cat([g.reshape(-1) for g in grads])
        sizes_received = [step.num_elements(q) for q in range(step.size)]
        received = sent.new_empty(sum(sizes_received))
        dist.all_to_all_single(
            received,
            sent.repeat(step.size),
            output_split_sizes=sizes_received,
            input_split_sizes=[len(sent)] * step.size,
            group=step.group,
        )
        gradients: list[list[Tensor]] = [[received[:0]] * len(rows) for rows in step.rows]
        for local_rank, (start, end) in enumerate(pairwise(accumulate(sizes_received, initial=0))):
            sizes = [n * c for n, c in zip(step.num_rows(local_rank), step.columns, strict=True)]
            for n, (part, columns) in enumerate(zip(received[start:end].split(sizes), step.columns, strict=True)):
                of_ranks = [rows * columns for rows in step.rows[n][local_rank :: step.size]]
                gradients[n][local_rank :: step.size] = part.split(of_ranks)
        return None, None, *(torch.cat(parts).view(-1, c) for parts, c in zip(gradients, step.columns, strict=True))
