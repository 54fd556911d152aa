"""Partial sums of tables whose rows are split inside a host (TWRW, GRID) are added up there, before they leave it.

::

    host of ranks 0 and 1 holds the table, its rows split; R rows of the batches of ranks 0 to 3 (two hosts)

    rank 0  [rows of 0 | 1 | 2 | 3]  partial  --.   rank 0  [rows of 0 | 2]  summed  --> ranks 0 and 2
    rank 1  [rows of 0 | 1 | 2 | 3]  partial  --'   rank 1  [rows of 1 | 3]  summed  --> ranks 1 and 3

Each rank sums the rows of the ranks that have its place in their host. The bytes are as many in all, but of L ranks a
host only one L-th crosses between hosts, where the link is slow. One more collective a direction, inside the host.
"""

from collections.abc import Sequence
from itertools import accumulate, pairwise

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import FunctionCtx


class HostSum:
    """One step's sums inside a host.

    Args:
        rows: of each matrix its rows by source, of all ranks of the job.
        columns: their columns.
        group: the ranks of this host.
    """

    def __init__(self, rows: Sequence[tuple[int, ...]], columns: Sequence[int], group: dist.ProcessGroup) -> None:
        self.rows, self.columns, self.group = rows, columns, group
        self.size, self.place = group.size(), group.rank()

    def kept(self) -> list[tuple[int, ...]]:
        """Rows by source of the summed matrices: only of ranks with this rank's place in their host."""
        return [tuple(n if q % self.size == self.place else 0 for q, n in enumerate(rows)) for rows in self.rows]

    def num_rows(self, place: int) -> list[int]:
        """Of each matrix the rows of all ranks with a place in their host."""
        return [sum(rows[place :: self.size]) for rows in self.rows]

    def elements(self, place: int) -> int:
        """Numbers in these rows, over all matrices."""
        return sum(n * c for n, c in zip(self.num_rows(place), self.columns, strict=True))


def host_sum(step: HostSum, matrices: Sequence[Tensor], anchor: Tensor) -> list[Tensor]:
    """Partial sums of all sources -> whole sums of the sources with this rank's place, float32.

    Args:
        step: sizes.
        matrices: [rows of all sources, columns] each, source after source.
        anchor: requires a gradient, so that every rank of the host takes part in the backward exchange.
    """
    return list(_HostSum.apply(step, anchor, *matrices))  # type: ignore[no-untyped-call]


class _HostSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, step: HostSum, anchor: Tensor, *matrices: Tensor) -> tuple[Tensor, ...]:
        ctx.step = step  # type: ignore[attr-defined]
        by_source = [m.split(list(rows)) for m, rows in zip(matrices, step.rows, strict=True)]
        sent = [part.reshape(-1) for place in range(step.size) for m in by_source for part in m[place :: step.size]]
        own = step.elements(step.place)
        found = anchor.new_empty(own * step.size)
        dist.all_to_all_single(
            found,
            torch.cat(sent),
            output_split_sizes=[own] * step.size,
            input_split_sizes=[step.elements(place) for place in range(step.size)],
            group=step.group,
        )
        # In the order of the ranks: the same sum every time.
        total = found.view(step.size, own).sum(0)
        sizes = [n * c for n, c in zip(step.num_rows(step.place), step.columns, strict=True)]
        return tuple(p.view(-1, c) for p, c in zip(total.split(sizes), step.columns, strict=True))

    @staticmethod
    def backward(ctx: FunctionCtx, *grads: Tensor) -> tuple[Tensor | None, ...]:
        step: HostSum = ctx.step  # type: ignore[attr-defined]
        sent = torch.cat([g.reshape(-1) for g in grads])
        received = [step.elements(place) for place in range(step.size)]
        found = sent.new_empty(sum(received))
        dist.all_to_all_single(
            found,
            sent.repeat(step.size),
            output_split_sizes=received,
            input_split_sizes=[len(sent)] * step.size,
            group=step.group,
        )
        whole: list[list[Tensor]] = [[found[:0]] * len(rows) for rows in step.rows]
        for place, (start, end) in enumerate(pairwise(accumulate(received, initial=0))):
            sizes = [n * c for n, c in zip(step.num_rows(place), step.columns, strict=True)]
            for n, (part, columns) in enumerate(zip(found[start:end].split(sizes), step.columns, strict=True)):
                sources = [rows * columns for rows in step.rows[n][place :: step.size]]
                whole[n][place :: step.size] = part.split(sources)
        return None, None, *(torch.cat(parts).view(-1, c) for parts, c in zip(whole, step.columns, strict=True))
