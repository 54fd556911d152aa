"""The way back: what the lookups computed, to the ranks whose rows they were, and gradients the same way forward again.

One all-to-all a direction for all units. Sent to each rank: for each unit its rows of this rank's matrix; received from
each rank: the matrix that it computed for this rank's rows. Both collectives are started as soon as there is something
to send and waited for when the result is used, so that what does not depend on it is computed meanwhile::

    forward    Send.forward   starts    -> bottom MLP .. ->   Receive.forward   waits
    backward   Receive.backward starts  -> bottom MLP .. ->   Send.backward     waits, tables are updated

As TorchRec does (``comm_ops.get_gradient_division``), gradients are divided by the number of ranks: each rank's loss is
the mean of its own batch, and the dense layers' gradients are averaged too.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import FunctionCtx
from torchrec.distributed import comm_ops

from recd_dist.embedding.exchange.codec import CODECS, Codec, Columns
from recd_dist.embedding.names import Codecs


class Exchange:
    """One step's exchange of vectors.

    Args:
        here: of each matrix computed here, its rows by source.
        here_columns: columns of their tables.
        there: of each rank and matrix that it computes for this rank, its rows and its tables' columns.
        codecs: of both directions.
        group: all ranks.
    """

    def __init__(
        self,
        here: Sequence[tuple[int, ...]],
        here_columns: Sequence[Columns],
        there: Sequence[Sequence[tuple[int, Columns]]],
        codecs: Codecs,
        group: dist.ProcessGroup,
    ) -> None:
        self.here, self.here_columns, self.there, self.group = here, here_columns, there, group
        self.forward_codec, self.backward_codec = CODECS[codecs.forward], CODECS[codecs.backward]
        self.work: Any = None
        self.buffer: Tensor | None = None

    def here_sizes(self, codec: Codec) -> list[list[int]]:
        """Elements of each matrix's rows, by source: what goes out forward and comes in backward."""
        widths = [codec.row_size(c) for c in self.here_columns]
        return [
            [rows[q] * w for rows, w in zip(self.here, widths, strict=True)]
            for q in range(dist.get_world_size(self.group))
        ]

    def there_sizes(self, codec: Codec) -> list[list[int]]:
        """Elements of each rank's matrices for this rank: what comes in forward and goes out backward."""
        return [[rows * codec.row_size(c) for rows, c in blocks] for blocks in self.there]

    def start(self, flat: Tensor, sent: list[list[int]], received: list[list[int]]) -> None:
        """Starts an all-to-all of elements of one dtype."""
        self.buffer = flat.new_empty(sum(map(sum, received)))
        self.work = dist.all_to_all_single(
            self.buffer,
            flat,
            output_split_sizes=[sum(sizes) for sizes in received],
            input_split_sizes=[sum(sizes) for sizes in sent],
            group=self.group,
            async_op=True,
        )

    def finish(self) -> Tensor:
        """Waits for it and hands over what came."""
        self.work.wait()
        buffer, self.work, self.buffer = self.buffer, None, None
        if buffer is None:
            raise RuntimeError("exchange: finish without start")
        return buffer


def exchange(step: Exchange, matrices: Sequence[Tensor], anchor: Tensor) -> Tensor:
    """Starts the exchange of vectors; ``received`` waits for it.

    Args:
        step: sizes and codecs.
        matrices: float32 [rows of all sources, columns] each.
        anchor: requires a gradient, so that every rank takes part in the backward exchange, even one without tables.

    Returns:
        A tensor for ``received``.
    """
    sent: Tensor = _Send.apply(step, anchor, *matrices)  # type: ignore[no-untyped-call]
    return sent


def received(step: Exchange, sent: Tensor) -> list[Tensor]:
    """Each rank's matrices for this rank's rows, float32 [rows, columns], rank after rank."""
    return list(_Receive.apply(step, sent))  # type: ignore[no-untyped-call]


class _Send(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, step: Exchange, anchor: Tensor, *matrices: Tensor) -> Tensor:
        ctx.step = step  # type: ignore[attr-defined]
        codec = step.forward_codec
        sizes = step.here_sizes(codec)
        encoded = [codec.encode(m, c) for m, c in zip(matrices, step.here_columns, strict=True)]
        step.start(_by_source(encoded, sizes, codec, anchor), sizes, step.there_sizes(codec))
        return anchor.new_zeros(1)

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        del grad  # stands for the gradients that are under way
        step: Exchange = ctx.step  # type: ignore[attr-defined]
        codec = step.backward_codec
        flat = step.finish()
        grads: list[Tensor | None] = []
        sizes = step.here_sizes(codec)
        pieces = flat.split([n for source in sizes for n in source])
        num_matrices = len(step.here)
        for n, columns in enumerate(step.here_columns):
            own = flat if num_matrices == 1 else torch.cat(pieces[n::num_matrices])
            found = codec.decode(own.view(-1, codec.row_size(columns)), columns)
            if comm_ops.get_gradient_division():
                found = found.div_(len(sizes))
            grads.append(found)
        return None, None, *grads


class _Receive(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, step: Exchange, sent: Tensor) -> tuple[Tensor, ...]:
        del sent  # stands for the vectors that are under way
        ctx.step = step  # type: ignore[attr-defined]
        codec = step.forward_codec
        pieces = step.finish().split([n for sizes in step.there_sizes(codec) for n in sizes])
        columns = [c for blocks in step.there for _, c in blocks]
        return tuple(codec.decode(p.view(-1, codec.row_size(c)), c) for p, c in zip(pieces, columns, strict=True))

    @staticmethod
    def backward(ctx: FunctionCtx, *grads: Tensor) -> tuple[None, Tensor]:
        step: Exchange = ctx.step  # type: ignore[attr-defined]
        codec = step.backward_codec
        columns = [c for blocks in step.there for _, c in blocks]
        flat = [codec.encode(g, c).reshape(-1) for g, c in zip(grads, columns, strict=True)]
        like = grads[0] if grads else torch.empty(0)
        joined = torch.cat([like.new_empty(0, dtype=codec.dtype), *flat])
        step.start(joined, step.there_sizes(codec), step.here_sizes(codec))
        return None, like.new_zeros(1, dtype=torch.float32)


def _by_source(matrices: Sequence[Tensor], sizes: list[list[int]], codec: Codec, like: Tensor) -> Tensor:
    """Rows of every matrix, source after source, as one flat tensor; no copy of a single matrix."""
    if len(matrices) == 1:
        return matrices[0].reshape(-1)
    columns = [m.reshape(-1).split([s[n] for s in sizes]) for n, m in enumerate(matrices)]
    pieces = [piece for source in zip(*columns, strict=True) for piece in source]
    return torch.cat(pieces) if pieces else torch.empty(0, dtype=codec.dtype, device=like.device)
