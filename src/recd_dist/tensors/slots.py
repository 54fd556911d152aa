"""Slots: samples laid out beside the row that they share, so that products over rows and samples are batched."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recd_dist.tensors.expansion import expand_rows
from recd_dist.tensors.host_side import HostArray, host_array
from recd_dist.tensors.levels import RowIndex
from recd_dist.tensors.tracing import is_traced

MAX_SLOT = 8
"""The most samples in a slot. For heavy-tailed sessions, 16 samples in the mean, 8 was at least as fast as 4 and 16."""


@dataclass(frozen=True, eq=False)
class Slots:
    """Samples laid out beside the row that they share: each row has slots of equal width, so that products are batched.

    ::

        inverse 0 0 0 1 1, width 2     slot 0 | sample 0, sample 1 |  row 0
                                       slot 1 | sample 2,    -     |  row 0
                                       slot 2 | sample 3, sample 4 |  row 1

    Heavy-tailed sessions need little padding, because a row with many samples takes many slots.

    Attributes:
        cell: int64 [B], for each sample its cell in [0, number of slots * width): slot 0's cells, then slot 1's, ...
        row: int64 [number of slots], the row of each slot, never decreasing.
        width: the number of cells in a slot, one per sample.
    """

    cell: Tensor
    row: Tensor
    width: int

    @staticmethod
    def of(inverse: Tensor, num_rows: int, width: int, known_inverse: HostArray | None = None) -> "Slots":
        """The slots of a batch. The host waits for a device if it does not know the inverse.

        Args:
            inverse: int32 or int64 [B] in [0, num_rows), for each sample its row, in any order.
            num_rows: U, the number of rows.
            width: the number of cells in a slot.
            known_inverse: the inverse on the host, where it is known there.
        """
        samples_of = np.bincount(host_array(inverse, known_inverse), minlength=num_rows)
        num_slots = int((-(-samples_of // width)).sum())
        rows, order = torch.sort(inverse.long(), stable=True)
        bounds = torch.searchsorted(rows, torch.arange(num_rows + 1, device=rows.device))
        slots_of = (bounds.diff() + width - 1) // width
        first_slot = torch.cumsum(slots_of, 0) - slots_of
        rank = torch.arange(len(rows), device=rows.device) - bounds[rows]
        cell = torch.empty_like(rows)
        cell[order] = first_slot[rows] * width + rank
        numbers = torch.arange(num_rows, device=rows.device)
        return Slots(cell, torch.repeat_interleave(numbers, slots_of, output_size=num_slots), width)

    @staticmethod
    def of_index(index: RowIndex) -> "Slots":
        """The slots of the rows of a fine level beside those of a coarse one, with a width that suits their number.

        They are laid once for a batch.

        Args:
            index: for each fine row the coarse one in which it lies.
        """
        if is_traced():
            return Slots._of_any_size(index)
        width = slot_width(len(index.known), index.num_rows)
        if width not in index.slots:
            index.slots[width] = Slots.of(index.rows, index.num_rows, width, index.known)
        slots: Slots = index.slots[width]
        return slots

    @staticmethod
    def _of_any_size(index: RowIndex) -> "Slots":
        """The slots of a batch whose sizes are not known: as many as it could need at most, some of them empty."""
        inverse, width = index.rows.long(), MAX_SLOT
        size, num_rows = inverse.shape[0], index.num_rows
        ones = torch.ones_like(inverse)
        samples_of = torch.zeros(num_rows, dtype=torch.int64).index_add(0, inverse, ones)
        slots_of = (samples_of + width - 1) // width
        last_slot = torch.cumsum(slots_of, 0)
        rows, order = torch.sort(inverse, stable=True)
        first_sample = torch.cumsum(samples_of, 0) - samples_of
        rank = torch.arange(size) - first_sample.index_select(0, rows)
        cell = torch.zeros_like(inverse).scatter(0, order, (last_slot - slots_of).index_select(0, rows) * width + rank)
        num_slots = size // width + num_rows
        row = torch.searchsorted(last_slot, torch.arange(num_slots), right=True).clamp(max=num_rows - 1)
        return Slots(cell, row, width)

    def fill(self, values: Tensor) -> Tensor:
        """Lays the samples' values [B, ...] into cells, [number of slots, width, ...]; an empty cell is zero."""
        num_slots, rest = self.row.shape[0], values.shape[1:]
        if is_traced():  # whose cells, as many as a product of symbols, torch.export cannot cut into slots
            cells = values.new_zeros(num_slots, self.width, *rest)
            return cells.index_put((self.cell // self.width, self.cell % self.width), values)
        cells = values.new_zeros(num_slots * self.width, *rest).index_copy(0, self.cell, values)
        return cells.view(num_slots, self.width, *rest)

    def take(self, values: Tensor) -> Tensor:
        """Takes the samples' values out of their cells, [B, ...]; it undoes ``fill``."""
        return take_distinct(values.flatten(0, 1), self.cell)

    def gather_rows(self, values: Tensor) -> Tensor:
        """Gives every slot its row of values: [U, ...] -> [number of slots, ...]."""
        return expand_rows(values, self.row)


def slot_width(batch_size: int, num_rows: int) -> int:
    """The number of cells in a slot: a power of two, at most the mean samples per row and at most ``MAX_SLOT``."""
    width = 1
    while 2 * width * num_rows <= batch_size and width < MAX_SLOT:
        width *= 2
    return width


def take_distinct(values: Tensor, index: Tensor) -> Tensor:
    """Takes ``values[index]`` for indexes that all differ, so that the gradient is a copy and not a sum.

    Args:
        values: [N, ...].
        index: int64 [M] in [0, N), without repeats.
    """
    taken: Tensor = _Take.apply(values, index)  # type: ignore[no-untyped-call,unused-ignore]
    return taken


class _Take(torch.autograd.Function):
    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, values: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.shape = values.shape  # type: ignore[attr-defined]
        return values.index_select(0, index)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple[Tensor, None]:
        (index,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return grad.new_zeros(ctx.shape).index_copy_(0, index, grad), None  # type: ignore[attr-defined]
