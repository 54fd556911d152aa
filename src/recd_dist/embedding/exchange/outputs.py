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

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import FunctionCtx
from torchrec.distributed import comm_ops

from recd_dist.embedding.exchange.codec import CODECS, Codec, Columns
from recd_dist.embedding.exchange.pieces import Integers, reorder, transposed
from recd_dist.embedding.exchange.return_index import ReturnIndex
from recd_dist.embedding.vocabulary.names import Codecs


class VectorExchange:
    """The exchange of vectors in one step.

    Args:
        here: for each matrix that this rank computed the number of rows that belong to each rank, int64 [matrices, W].
        here_columns: for each of these matrices the columns of its tables.
        returns: the matrices that come back.
        there: for each rank and unit the number of rows that come back, int64 [W, units].
        codecs: how vectors and gradients are written while they travel.
        group: the process group of all ranks.
    """

    def __init__(
        self,
        here: Integers,
        here_columns: Sequence[Columns],
        returns: ReturnIndex,
        there: Integers,
        codecs: Codecs,
        group: dist.ProcessGroup,
    ) -> None:
        self.here, self.here_columns, self.returns, self.there, self.group = here, here_columns, returns, there, group
        self.forward_codec, self.backward_codec = CODECS[codecs.forward], CODECS[codecs.backward]
        self.handle: Any = None
        self.buffer: Tensor | None = None

    def here_sizes(self, codec: Codec) -> Integers:
        """Elements of each matrix of this rank, for each rank: they are sent forward and received backward.

        Args:
            codec: the codec of the direction.

        Returns:
            The numbers, int64 [matrices, W].
        """
        widths = np.array([codec.row_size(c) for c in self.here_columns], dtype=np.int64)
        return self.here * widths[:, None]

    def start(self, flat: Tensor, sent: list[int], received: list[int]) -> None:
        """Starts an all-to-all.

        Args:
            flat: the elements to send, rank after rank.
            sent: how many elements each rank is sent.
            received: how many elements come from each rank.
        """
        self.buffer = flat.new_empty(sum(received))
        self.handle = dist.all_to_all_single(
            self.buffer,
            flat,
            output_split_sizes=received,
            input_split_sizes=sent,
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
    sent: Tensor = _Send.apply(step, anchor, *matrices)  # type: ignore[no-untyped-call,unused-ignore]
    return sent


def receive(step: VectorExchange, sent: Tensor) -> list[Tensor]:
    """Waits for the exchange of vectors.

    Args:
        step: sizes and codecs of the exchange.
        sent: what ``start_exchange`` returned.

    Returns:
        For each bundle its matrices, float32 [rows of all matrices, columns].
    """
    return list(_Receive.apply(step, sent))  # type: ignore[no-untyped-call,unused-ignore]


class _Send(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, step: VectorExchange, anchor: Tensor, *matrices: Tensor) -> Tensor:
        ctx.step = step  # type: ignore[attr-defined]
        codec, returns = step.forward_codec, step.returns
        sizes = step.here_sizes(codec)
        encoded = [codec.encode(m, c).reshape(-1) for m, c in zip(matrices, step.here_columns, strict=True)]
        empty = [anchor.new_empty(0, dtype=codec.dtype)] * (not encoded)
        flat = empty[0] if empty else reorder(encoded, list(sizes), transposed(*sizes.shape))
        step.start(flat, sizes.sum(0).tolist(), returns.by_rank(returns.sizes(step.there, codec)))
        return anchor.new_zeros(1)

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        del grad  # it stands for the gradients that are under way
        step: VectorExchange = ctx.step  # type: ignore[attr-defined]
        codec = step.backward_codec
        flat, sizes = step.finish(), step.here_sizes(codec)
        if not len(sizes):
            return None, None
        by_matrix = reorder([flat], [sizes.T.reshape(-1)], transposed(*sizes.T.shape)).split(sizes.sum(1).tolist())
        grads: list[Tensor | None] = []
        for own, columns in zip(by_matrix, step.here_columns, strict=True):
            decoded = codec.decode(own.view(-1, codec.row_size(columns)), columns)
            if comm_ops.get_gradient_division():
                decoded = decoded.div_(sizes.shape[1])
            grads.append(decoded)
        return None, None, *grads


class _Receive(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, step: VectorExchange, sent: Tensor) -> tuple[Tensor, ...]:
        del sent  # it stands for the vectors that are under way
        ctx.step = step  # type: ignore[attr-defined]
        codec, returns = step.forward_codec, step.returns
        sizes = returns.sizes(step.there, codec)
        totals = [int(own.sum()) for own in returns.by_bundle(sizes)]
        pieces = reorder([step.finish()], [sizes], returns.order).split(totals)
        widths = [b.widths for b in returns.bundles]
        return tuple(codec.decode(p.view(-1, codec.row_size(w)), w) for p, w in zip(pieces, widths, strict=True))

    @staticmethod
    def backward(ctx: FunctionCtx, *grads: Tensor) -> tuple[None, Tensor]:
        step: VectorExchange = ctx.step  # type: ignore[attr-defined]
        codec, returns = step.backward_codec, step.returns
        widths = [b.widths for b in returns.bundles]
        flat = [codec.encode(g, w).reshape(-1) for g, w in zip(grads, widths, strict=True)]
        like = grads[0] if grads else torch.empty(0)
        sizes = returns.sizes(step.there, codec)
        joined = reorder(flat, returns.by_bundle(sizes), returns.back) if flat else like.new_empty(0, dtype=codec.dtype)
        step.start(joined, returns.by_rank(sizes), step.here_sizes(codec).sum(0).tolist())
        return None, like.new_zeros(1, dtype=torch.float32)
