"""Expansion: every sample gets its unique row, and the gradient adds up the samples of a row."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from recd_dist.table.loops import jit
from recd_dist.tensors.host_side import is_on_host
from recd_dist.tensors.row_windows import Stored, lay_out

Places = tuple[np.ndarray, np.ndarray, np.ndarray]
"""For each stored id its vector, and where rows that are windows begin and how long they are."""


def expand_rows(values: Tensor, inverse: Tensor) -> Tensor:
    """Gives every sample its row: ``values[inverse]``, [B, ...]. The gradient is ``sum_rows``.

    The gradient of index_select adds sample by sample through index_add. On one core, 2048 samples of 512 floats and an
    int32 inverse take 0.2-0.3 ms that way; ``sum_rows`` takes 0.06 ms, as long as a copy. On CUDA it sorts first and
    sums segments, which needs no atomics, so that the sum is the same every time.

    Args:
        values: [U, ...], unique rows.
        inverse: int32 or int64 [B] in [0, U), for each sample its row.
    """
    expanded: Tensor = _Expand.apply(values, inverse)  # type: ignore[no-untyped-call,unused-ignore]
    return expanded


def expand_windows(values: Tensor, index: Tensor, windows: Stored) -> Tensor:
    """The vectors of rows that are windows, one after the other: ``expand_rows`` by the index laid out as lists.

    On the host no such index is made: it would have a number for each id of the lists, the stored one has far fewer.

    Args:
        values: vectors, [N, D].
        index: int64 [V] in [0, N), the vector of each stored id.
        windows: the rows, over the stored ids.

    Returns:
        [sum of the lengths, D]; the gradient sums over the places of a vector, in the order of the rows.
    """
    if windows.starts is None or not is_on_host(values) or values.dtype not in (torch.float32, torch.float64):
        return expand_rows(values, lay_out([windows._replace(values=index)]))
    expanded: Tensor = _ExpandWindows.apply(values, index, windows)  # type: ignore[no-untyped-call,unused-ignore]
    return expanded


def expand_beside(values: Sequence[Tensor], rows: Sequence[Tensor | None]) -> Tensor:
    """Lays rows of some matrices side by side, ``cat([values[0][rows[0]], values[1][rows[1]], ...], 1)``.

    On the host each number is written once, to where it stays.

    Args:
        values: matrices [U, width], at least one.
        rows: for each of them int32 or int64 [R] in [0, U), the row of the matrix; None for a matrix of R rows.

    Returns:
        [R, sum of the widths].
    """
    (dtype, *others), on_host = {v.dtype for v in values}, is_on_host(values[0])
    if len(values) == 1 or others or not on_host or dtype not in (torch.float32, torch.float64):
        parts = [v if index is None else expand_rows(v, index) for v, index in zip(values, rows, strict=True)]
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1)
    beside: Tensor = _ExpandBeside.apply(tuple(rows), *values)  # type: ignore[no-untyped-call,unused-ignore]
    return beside


def sum_rows(values: Tensor, inverse: Tensor, num_rows: int) -> Tensor:
    """Adds up the samples of each unique row: [U, ...], zero for a row that no sample has. It has no gradient.

    Args:
        values: float [B, ...], a row per sample.
        inverse: int32 or int64 [B] in [0, U), for each sample its row, in any order.
        num_rows: U, the number of unique rows.
    """
    width = values[:1].numel() if len(values) else 0
    if width == 0 or num_rows == 0:
        return values.new_zeros(num_rows, *values.shape[1:])
    if is_on_host(values) and values.dtype in (torch.float32, torch.float64):
        sums = values.new_zeros(num_rows, width)
        _add_rows(values.detach().reshape(len(values), width).numpy(), inverse.numpy(), sums.numpy())
        return sums.view(num_rows, *values.shape[1:])
    if is_on_host(values) and values.is_floating_point():  # of 16 bits, in which a sum of many would lose its digits
        return sum_rows(values.float(), inverse, num_rows).to(values.dtype)
    return sum_sorted_rows(values, inverse, num_rows)


def sum_sorted_rows(values: Tensor, inverse: Tensor, num_rows: int) -> Tensor:
    """``sum_rows`` by a sort, as on CUDA, for at least one sample, row and column; the host does not wait."""
    width = values[0].numel()
    rows, order = torch.sort(inverse.long(), stable=True)
    starts = torch.searchsorted(rows, torch.arange(num_rows, device=rows.device))
    sums = torch.embedding_bag(values.reshape(len(values), width), order, starts)[0]
    return sums.view(num_rows, *values.shape[1:])


@jit
def _copy_rows(values: np.ndarray, inverse: np.ndarray, out: np.ndarray, start: int) -> None:
    """``out[b, start + c] = values[inverse[b], c]``."""
    for sample in range(len(inverse)):
        row = inverse[sample]
        for column in range(values.shape[1]):
            out[sample, start + column] = values[row, column]


@jit
def _copy_windows(values: np.ndarray, places: Places, out: np.ndarray) -> None:
    """Writes ``values[index[place]]`` for each place of each window, row after row."""
    index, starts, lengths = places
    at = 0
    for window in range(len(starts)):
        for place in range(starts[window], starts[window] + lengths[window]):
            row = index[place]
            for column in range(values.shape[1]):
                out[at, column] = values[row, column]
            at += 1


@jit
def _add_windows(values: np.ndarray, places: Places, sums: np.ndarray) -> None:
    """Adds what stands at each place of each window, row after row, to ``sums[index[place]]``."""
    index, starts, lengths = places
    at = 0
    for window in range(len(starts)):
        for place in range(starts[window], starts[window] + lengths[window]):
            row = index[place]
            for column in range(values.shape[1]):
                sums[row, column] += values[at, column]
            at += 1


@jit
def _add_rows(values: np.ndarray, inverse: np.ndarray, sums: np.ndarray) -> None:
    """``sums[inverse[b]] += values[b]``, in the order of b."""
    for sample in range(len(inverse)):
        row = inverse[sample]
        for column in range(values.shape[1]):
            sums[row, column] += values[sample, column]


class _Expand(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, values: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(inverse)
        ctx.num_rows = values.shape[0]  # type: ignore[attr-defined]
        return values.index_select(0, inverse)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, None]:
        (inverse,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return sum_rows(grad, inverse, ctx.num_rows), None  # type: ignore[attr-defined]


class _ExpandWindows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, values: Tensor, index: Tensor, windows: Stored) -> Tensor:
        ctx.places = index.numpy(), windows.starts.numpy(), windows.lengths.numpy()  # type: ignore[attr-defined,union-attr]
        ctx.num_rows = values.shape[0]  # type: ignore[attr-defined]
        out = values.new_empty(windows.num_list_values, values.shape[1])
        _copy_windows(values.detach().contiguous().numpy(), ctx.places, out.numpy())  # type: ignore[attr-defined]
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, None, None]:
        sums = grad.new_zeros(ctx.num_rows, grad.shape[1])  # type: ignore[attr-defined]
        _add_windows(grad.contiguous().numpy(), ctx.places, sums.numpy())  # type: ignore[attr-defined]
        return sums, None, None


class _ExpandBeside(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, rows: tuple[Tensor | None, ...], *values: Tensor) -> Tensor:
        ctx.rows, ctx.shapes = rows, [v.shape for v in values]  # type: ignore[attr-defined]
        size = next((len(index) for index in rows if index is not None), len(values[0]))
        out = values[0].new_empty(size, sum(v.shape[1] for v in values))
        start = 0
        for matrix, index in zip(values, rows, strict=True):
            width = matrix.shape[1]
            if index is None:
                out.narrow(1, start, width).copy_(matrix)
            else:
                _copy_rows(matrix.detach().numpy(), index.numpy(), out.numpy(), start)
            start += width
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        grads, start = list[Tensor | None]([None]), 0
        for index, shape in zip(ctx.rows, ctx.shapes, strict=True):  # type: ignore[attr-defined]
            part = grad.narrow(1, start, shape[1])
            grads.append(part if index is None else _sum_part(part, index, shape[0]))
            start += shape[1]
        return tuple(grads)


def _sum_part(part: Tensor, index: Tensor, num_rows: int) -> Tensor:
    """``sum_rows`` of some columns of a matrix on the host, without a copy of them."""
    sums = part.new_zeros(num_rows, part.shape[1])
    _add_rows(part.numpy(), index.numpy(), sums.numpy())
    return sums
