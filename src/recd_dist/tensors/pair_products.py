"""Dot products of pairs of vectors of each row, each pair once.

::

    n = 2 own vectors a b, and others c d of the same row      [a.b | a.c a.d b.c b.d]      c.d is not wanted
    forward    one batched product [n, D] x [D, N], of which the pairs are taken
    backward   grads laid out as [n, N] with both places of a.b filled: one batched product for the own vectors, one for
               the others

Torch's own gradient of ``bmm(x, x.mT)`` is two batched products and their sum, for the same numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from recd_dist.table.loops import jit
from recd_dist.tensors.host_side import autocast_dtype, is_on_host


@dataclass(frozen=True, eq=False)
class PairPlaces:
    """Which products of a row are taken.

    Attributes:
        num_own: n, the vectors that are multiplied with all N of the row; they come first.
        taken: int64 [P], for each pair its place in the [n, N] products.
        pair_at: int64 [n * N], for each product the pair whose gradient it has, P for none. Both products of two own
            vectors have their pair.
    """

    num_own: int
    taken: Tensor
    pair_at: Tensor

    @staticmethod
    def of(pairs: Sequence[tuple[int, int]], num_own: int, num_vectors: int, device: torch.device) -> "PairPlaces":
        """The places of some pairs.

        Args:
            pairs: for each pair the numbers of its vectors, the first of them less than ``num_own``.
            num_own: n.
            num_vectors: N.
            device: where the places lie.
        """
        pair_at = [len(pairs)] * (num_own * num_vectors)
        for number, (i, j) in enumerate(pairs):
            pair_at[i * num_vectors + j] = number
            if j < num_own:
                pair_at[j * num_vectors + i] = number
        taken = [i * num_vectors + j for i, j in pairs]
        return PairPlaces(num_own, torch.tensor(taken, device=device), torch.tensor(pair_at, device=device))


def multiply_pairs(vectors: Tensor, places: PairPlaces) -> Tensor:
    """The dot products of pairs of vectors, float [R, P].

    Args:
        vectors: float [R, N, D].
        places: which pairs.
    """
    if (dtype := autocast_dtype(vectors)) is not None:  # a function of one's own is not cast
        vectors = vectors.to(dtype)
    products: Tensor = _MultiplyPairs.apply(vectors, places)  # type: ignore[no-untyped-call,unused-ignore]
    return products


class _MultiplyPairs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, vectors: Tensor, places: PairPlaces) -> Tensor:
        ctx.save_for_backward(vectors)
        ctx.places = places  # type: ignore[attr-defined]
        products = torch.bmm(vectors[:, : places.num_own], vectors.mT)
        return products.flatten(1).index_select(1, places.taken)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, None]:
        (vectors,) = ctx.saved_tensors  # type: ignore[attr-defined]
        places: PairPlaces = ctx.places  # type: ignore[attr-defined]
        num_own = places.num_own
        square = _lay_out(grad, places.pair_at).view(len(grad), num_own, vectors.shape[1])
        own = torch.bmm(square, vectors)
        if num_own == vectors.shape[1]:
            return own, None
        others = torch.bmm(square[:, :, num_own:].mT, vectors[:, :num_own])
        return torch.cat([own, others], 1), None


def _lay_out(grad: Tensor, pair_at: Tensor) -> Tensor:
    """The gradients of pairs [R, P] at the places of their products, [R, n * N]; 0 where no pair is taken."""
    if is_on_host(grad) and grad.dtype in (torch.float32, torch.float64):
        out = grad.new_empty(len(grad), len(pair_at))
        _fill_places(grad.numpy(), pair_at.numpy(), out.numpy())
        return out
    return F.pad(grad, (0, 1)).index_select(1, pair_at)


@jit
def _fill_places(grad: np.ndarray, pair_at: np.ndarray, out: np.ndarray) -> None:
    num_pairs = grad.shape[1]
    for row in range(grad.shape[0]):
        for place in range(len(pair_at)):
            pair = pair_at[place]
            out[row, place] = grad[row, pair] if pair < num_pairs else 0.0
