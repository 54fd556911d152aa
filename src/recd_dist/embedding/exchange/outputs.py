"""Sends vectors to the ranks that asked for them, and gradients back.

Each direction has one all-to-all for all units. Forward, each rank receives its rows of the matrices that this rank
computed, and this rank receives the matrices that the others computed for its rows. A collective starts as soon as
there is something to send, and is waited for when its result is used. What does not depend on it is computed in
between::

    forward    _Send.forward starts        bottom MLP, ...    _Receive.forward waits
    backward   _Receive.backward starts    bottom MLP, ...    _Send.backward waits, then tables are updated

Gradients are divided by the number of ranks, as in TorchRec (``comm_ops.get_gradient_division``): the loss of a rank is
the mean over its own batch, and the gradients of the dense layers are averaged too.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import FunctionCtx
from torchrec.distributed import comm_ops

from recd_dist.embedding.exchange.codec import CODECS, Codec, Columns
from recd_dist.embedding.vocabulary.names import Codecs


class VectorExchange:
    """The exchange of vectors in one step.

    Args:
        here: for each matrix that this rank computed the number of rows that belong to each rank.
        here_columns: for each of these matrices the columns of its tables.
        there: for each rank and each matrix that it computed for this rank the number of rows, and the columns of its
            tables.
        codecs: how vectors and gradients are written while they travel.
        group: the process group of all ranks.
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
        self.handle: Any = None
        self.buffer: Tensor | None = None

    def here_sizes(self, codec: Codec) -> list[list[int]]:
        """Elements of each matrix of this rank, for each rank: they are sent forward and received backward.

        Args:
            codec: the codec of the direction.
        """
        widths = [codec.row_size(c) for c in self.here_columns]
        return [
            [rows[q] * w for rows, w in zip(self.here, widths, strict=True)]
            for q in range(dist.get_world_size(self.group))
        ]

    def there_sizes(self, codec: Codec) -> list[list[int]]:
        """Elements of each matrix for this rank, from each rank: they are received forward and sent backward.

        Args:
            codec: the codec of the direction.
        """
        return [[rows * codec.row_size(c) for rows, c in blocks] for blocks in self.there]

    def start(self, flat: Tensor, sent: list[list[int]], received: list[list[int]]) -> None:
        """Starts an all-to-all.

        Args:
            flat: the elements to send, rank after rank.
            sent: for each rank how many elements of each matrix it is sent.
            received: for each rank how many elements of each matrix come from it.
        """
        self.buffer = flat.new_empty(sum(map(sum, received)))
        self.handle = dist.all_to_all_single(
            self.buffer,
            flat,
            output_split_sizes=[sum(sizes) for sizes in received],
            input_split_sizes=[sum(sizes) for sizes in sent],
            group=self.group,
            async_op=True,
        )

    def finish(self) -> Tensor:
        """Waits for the all-to-all and returns what came, rank after rank."""
        self.handle.wait()
        buffer, self.handle, self.buffer = self.buffer, None, None
        if buffer is None:
            raise RuntimeError("exchange: finish() was called without start()")
        return buffer


def start_exchange(step: VectorExchange, matrices: Sequence[Tensor], anchor: Tensor) -> Tensor:
    """Starts the exchange of vectors; ``receive`` waits for it.

    Args:
        step: sizes and codecs of the exchange.
        matrices: the matrices that this rank computed, float32 [rows of all ranks, columns].
        anchor: a tensor that requires a gradient, so that every rank takes part in the backward exchange, even a rank
            without tables.

    Returns:
        A tensor that stands for the exchange, for ``receive``.
    """
    sent: Tensor = _Send.apply(step, anchor, *matrices)  # type: ignore[no-untyped-call]
    return sent


def receive(step: VectorExchange, sent: Tensor) -> list[Tensor]:
    """Waits for the exchange of vectors.

    Args:
        step: sizes and codecs of the exchange.
        sent: what ``start_exchange`` returned.

    Returns:
        The matrices for the rows of this rank, float32 [rows, columns], rank after rank.
    """
    return list(_Receive.apply(step, sent))  # type: ignore[no-untyped-call]


class _Send(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, step: VectorExchange, anchor: Tensor, *matrices: Tensor) -> Tensor:
        ctx.step = step  # type: ignore[attr-defined]
        codec = step.forward_codec
        sizes = step.here_sizes(codec)
        encoded = [codec.encode(m, c) for m, c in zip(matrices, step.here_columns, strict=True)]
        step.start(_join_by_source(encoded, sizes, codec, anchor), sizes, step.there_sizes(codec))
        return anchor.new_zeros(1)

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        del grad  # it stands for the gradients that are under way
        step: VectorExchange = ctx.step  # type: ignore[attr-defined]
        codec = step.backward_codec
        flat = step.finish()
        grads: list[Tensor | None] = []
        sizes = step.here_sizes(codec)
        pieces = flat.split([n for source in sizes for n in source])
        num_matrices = len(step.here)
        for n, columns in enumerate(step.here_columns):
            own = flat if num_matrices == 1 else torch.cat(pieces[n::num_matrices])
            decoded = codec.decode(own.view(-1, codec.row_size(columns)), columns)
            if comm_ops.get_gradient_division():
                decoded = decoded.div_(len(sizes))
            grads.append(decoded)
        return None, None, *grads


class _Receive(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, step: VectorExchange, sent: Tensor) -> tuple[Tensor, ...]:
        del sent  # it stands for the vectors that are under way
        ctx.step = step  # type: ignore[attr-defined]
        codec = step.forward_codec
        pieces = step.finish().split([n for sizes in step.there_sizes(codec) for n in sizes])
        columns = [c for blocks in step.there for _, c in blocks]
        return tuple(codec.decode(p.view(-1, codec.row_size(c)), c) for p, c in zip(pieces, columns, strict=True))

    @staticmethod
    def backward(ctx: FunctionCtx, *grads: Tensor) -> tuple[None, Tensor]:
        step: VectorExchange = ctx.step  # type: ignore[attr-defined]
        codec = step.backward_codec
        columns = [c for blocks in step.there for _, c in blocks]
        flat = [codec.encode(g, c).reshape(-1) for g, c in zip(grads, columns, strict=True)]
        like = grads[0] if grads else torch.empty(0)
        joined = torch.cat([like.new_empty(0, dtype=codec.dtype), *flat])
        step.start(joined, step.there_sizes(codec), step.here_sizes(codec))
        return None, like.new_zeros(1, dtype=torch.float32)


def _join_by_source(matrices: Sequence[Tensor], sizes: list[list[int]], codec: Codec, like: Tensor) -> Tensor:
    """The rows of every matrix, rank after rank, as one flat tensor; a single matrix is not copied."""
    if len(matrices) == 1:
        return matrices[0].reshape(-1)
    columns = [m.reshape(-1).split([s[n] for s in sizes]) for n, m in enumerate(matrices)]
    pieces = [piece for source in zip(*columns, strict=True) for piece in source]
    return torch.cat(pieces) if pieces else torch.empty(0, dtype=codec.dtype, device=like.device)
