"""The rows on which a model computes, shared by several samples or one per sample.

Two deduplicated groups of one batch, and the distinct pairs of their rows::

    sample         0  1  2  3  4  5
    user inverse   0  0  0  0  1  1
    page inverse   0  0  1  1  1  1
    shared row     0  0  1  1  2  2       the shared rows are (user, page) = (0, 0) (0, 1) (1, 1)

What depends on several deduplicated groups (their products, a layer over all of them) is computed once per shared row.
The samples of a session are neighbours in a batch, so that comparing neighbours finds the shared rows in O(B) steps
without a sort.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recd_dist.tensors.grouped import Grouped, expand_rows
from recd_dist.tensors.host_side import HostArray, host_array

MIN_SHARED = 1.25
"""With this many samples per shared row, computing once and expanding beats computing per sample (measured)."""

MAX_SLOT = 8
"""The most samples in a slot. For heavy-tailed sessions, 16 samples in the mean, 8 was at least as fast as 4 and 16."""


@dataclass(frozen=True, eq=False)
class SharedRows:
    """The distinct combinations of rows of a batch's deduplicated groups.

    Attributes:
        inverse: int32 or int64 [B], for each sample its shared row.
        num_rows: U, the number of shared rows.
        rows_of: for each group int64 [U], the group's row in each shared row; None where the group's own rows are the
            shared rows.
        known_inverse: the inverse on the host, where it is known there.
    """

    inverse: Tensor
    num_rows: int
    rows_of: Mapping[str, Tensor | None]
    known_inverse: HostArray | None = None

    def gather_group(self, group: str, values: Tensor) -> Tensor:
        """Gives every shared row its row of a group's values: [unique rows of the group, ...] -> [U, ...]."""
        rows = self.rows_of[group]
        return values if rows is None else expand_rows(values, rows)

    def expand(self, values: Tensor) -> Tensor:
        """Gives every sample its row of values: [U, ...] -> [B, ...]."""
        return expand_rows(values, self.inverse)


def find_shared_rows(tensors: Mapping[str, Grouped]) -> SharedRows | None:
    """Finds the shared rows of a batch.

    Args:
        tensors: for each group any tensor that carries the group's inverse.

    Returns:
        The shared rows; None where nothing is deduplicated, or too little for sharing to be faster.
    """
    groups = {g: x for g, x in tensors.items() if x.inverse is not None}
    if not groups:
        return None
    if len(groups) == 1:
        ((name, group),) = groups.items()
        rows = _rows_of_one_group(name, group)
    else:
        rows = _compare_neighbours(groups)
    return rows if len(rows.inverse) >= MIN_SHARED * rows.num_rows else None


def _rows_of_one_group(name: str, group: Grouped) -> SharedRows:
    if group.inverse is None:
        raise ValueError(f"shared rows: group '{name}' has no inverse")
    return SharedRows(group.inverse, group.num_rows, {name: None}, group.known_inverse)


def _compare_neighbours(groups: Mapping[str, Grouped]) -> SharedRows:
    """The shared rows of several groups: a new one begins where a sample differs from the one before in any group.

    The host counts them, so that it need not wait for the device.
    """
    inverses = {g: (x.inverse, x.known_inverse) for g, x in groups.items() if x.inverse is not None}
    known = np.stack([host_array(inverse, array) for inverse, array in inverses.values()])
    numbers = np.cumsum((known[:, 1:] != known[:, :-1]).any(0), dtype=np.int32)
    known_inverse = np.concatenate([np.zeros(min(1, known.shape[1]), np.int32), numbers])
    num_rows = int(known_inverse[-1]) + 1 if len(known_inverse) else 0
    stacked = torch.stack([inverse.long() for inverse, _ in inverses.values()])
    changed = torch.zeros(stacked.shape[1], dtype=torch.int64, device=stacked.device)
    changed[1:] = (stacked[:, 1:] != stacked[:, :-1]).any(0)
    inverse = torch.cumsum(changed, 0)
    # The samples of a shared row write the same numbers.
    rows = stacked.new_zeros(len(inverses), num_rows).scatter_(1, inverse.expand(len(inverses), -1), stacked)
    return SharedRows(inverse, num_rows, {g: rows[n] for n, g in enumerate(inverses)}, known_inverse)


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
    def of_group(inverse: Tensor | None, num_rows: int, known_inverse: HostArray | None = None) -> "Slots | None":
        """The slots of a group, with a width that suits its samples per row; None where there is no inverse."""
        if inverse is None:
            return None
        return Slots.of(inverse, num_rows, slot_width(len(inverse), num_rows), known_inverse)

    def fill(self, values: Tensor) -> Tensor:
        """Lays the samples' values [B, ...] into cells, [number of slots * width, ...]; an empty cell is zero."""
        return values.new_zeros(len(self.row) * self.width, *values.shape[1:]).index_copy(0, self.cell, values)

    def take(self, values: Tensor) -> Tensor:
        """Takes the samples' values out of their cells, [B, ...]; it undoes ``fill``."""
        return take_distinct(values, self.cell)

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
