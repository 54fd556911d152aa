"""Which rows a model computes on: shared by many samples, or one per sample.

Two deduplicated groups of one batch, and the distinct pairs of their rows::

    sample         0  1  2  3  4  5
    user inverse   0  0  0  0  1  1
    page inverse   0  0  1  1  1  1
    shared row     0  0  1  1  2  2       shared rows (0,0) (0,1) (1,1): what holds for all groups of a sample at once

What depends on several deduplicated groups (their products, a layer over all of them) is computed once per shared
row. Samples of a session are neighbours in a batch, so comparing neighbours finds them in O(B) without a sort.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from recd_dist.tensors.grouped import Grouped, expand_rows

MIN_SHARED = 1.25
"""Samples per shared row from which computing once and expanding is faster than computing per sample (measured)."""

MAX_SLOT = 8
"""Samples per slot: with 16 samples a row in the mean, heavy-tailed, 8 was as fast as 4 or 16, or faster."""


@dataclass(frozen=True, eq=False)
class SharedRows:
    """The distinct combinations of a batch's deduplicated groups.

    Attributes:
        inverse: [B], for each sample its shared row.
        num_rows: U.
        rows_of: per group [U], the group's row that a shared row has; None where they are the same rows.
    """

    inverse: Tensor
    num_rows: int
    rows_of: Mapping[str, Tensor | None]

    def of(self, group: str, values: Tensor) -> Tensor:
        """A group's values, [its unique rows, ...], brought to the shared rows, [U, ...]."""
        rows = self.rows_of[group]
        return values if rows is None else expand_rows(values, rows)

    def expand(self, values: Tensor) -> Tensor:
        """A row per sample, [B, ...]."""
        return expand_rows(values, self.inverse)


def shared_rows(tensors: Mapping[str, Grouped]) -> SharedRows | None:
    """The shared rows of a batch; None where nothing is deduplicated, or too little to be worth it.

    Args:
        tensors: per group something that carries its inverse.
    """
    groups = {g: x for g, x in tensors.items() if x.inverse is not None}
    if not groups:
        return None
    if len(groups) == 1:
        ((name, group),) = groups.items()
        found = _one_group(name, group)
    else:
        found = _neighbours({g: x.inverse for g, x in groups.items() if x.inverse is not None})
    return found if len(found.inverse) >= MIN_SHARED * found.num_rows else None


def _one_group(name: str, group: Grouped) -> SharedRows:
    if group.inverse is None:
        raise ValueError(f"shared rows: group '{name}' has no inverse")
    return SharedRows(group.inverse, group.num_rows, {name: None})


def _neighbours(inverses: Mapping[str, Tensor]) -> SharedRows:
    """Shared rows of several groups: a new one wherever any group's row differs from the sample before."""
    stacked = torch.stack([inverse.long() for inverse in inverses.values()])
    changed = torch.ones(stacked.shape[1], dtype=torch.bool, device=stacked.device)
    changed[1:] = (stacked[:, 1:] != stacked[:, :-1]).any(0)
    first = torch.nonzero(changed).squeeze(1)  # one host synchronisation on CUDA
    rows = stacked[:, first]
    inverse = torch.cumsum(changed, 0) - 1
    return SharedRows(inverse, len(first), {g: rows[n] for n, g in enumerate(inverses)})


@dataclass(frozen=True, eq=False)
class Slots:
    """Samples laid out beside the row they share: a few slots of equal width per row, so that products are batched.

    ::

        inverse 0 0 0 1 1, width 2     slot 0 | sample 0, sample 1 |  row 0
                                       slot 1 | sample 2,    -     |  row 0
                                       slot 2 | sample 3, sample 4 |  row 1

    Heavy-tailed sessions do not pad: a row with many samples takes many slots.

    Attributes:
        place: int64 [B], a sample's place in [0, number of slots * width).
        row: int64 [number of slots], never decreasing: the row of each slot.
        width: samples a slot holds.
    """

    place: Tensor
    row: Tensor
    width: int

    @staticmethod
    def of(inverse: Tensor, num_rows: int, width: int) -> "Slots":
        """The slots of a batch.

        Args:
            inverse: int32 or int64 [B] in [0, num_rows), in any order.
            num_rows: U.
            width: samples a slot holds.
        """
        rows, order = torch.sort(inverse.long(), stable=True)
        bounds = torch.searchsorted(rows, torch.arange(num_rows + 1, device=rows.device))
        slots_of = (bounds.diff() + width - 1) // width
        first_slot = torch.cumsum(slots_of, 0) - slots_of
        rank = torch.arange(len(rows), device=rows.device) - bounds[rows]
        place = torch.empty_like(rows)
        place[order] = first_slot[rows] * width + rank
        return Slots(place, torch.repeat_interleave(torch.arange(num_rows, device=rows.device), slots_of), width)

    @staticmethod
    def of_group(inverse: Tensor | None, num_rows: int) -> "Slots | None":
        """The slots of a group, of a width that suits its samples per row; None where there is no inverse."""
        return None if inverse is None else Slots.of(inverse, num_rows, slot_width(len(inverse), num_rows))

    def fill(self, values: Tensor) -> Tensor:
        """Per-sample values [B, ...] laid into slots, [number of slots * width, ...], zero where a slot is not full."""
        return values.new_zeros(len(self.row) * self.width, *values.shape[1:]).index_copy(0, self.place, values)

    def take(self, values: Tensor) -> Tensor:
        """The samples' values out of their slots, [B, ...]: the inverse of ``fill``."""
        return take_places(values, self.place)

    def rows(self, values: Tensor) -> Tensor:
        """Each slot's row, [number of slots, ...], of values [U, ...]."""
        return expand_rows(values, self.row)


def slot_width(batch_size: int, num_rows: int) -> int:
    """Samples per slot: a power of two, at most the mean samples per row and at most ``MAX_SLOT``."""
    width = 1
    while 2 * width * num_rows <= batch_size and width < MAX_SLOT:
        width *= 2
    return width


def take_places(values: Tensor, place: Tensor) -> Tensor:
    """``values[place]`` for places that all differ: the gradient is a copy, not a sum.

    Args:
        values: [N, ...].
        place: int64 [M] in [0, N), without repeats.
    """
    taken: Tensor = _Take.apply(values, place)  # type: ignore[no-untyped-call]
    return taken


class _Take(torch.autograd.Function):
    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, values: Tensor, place: Tensor) -> Tensor:
        ctx.save_for_backward(place)
        ctx.shape = values.shape  # type: ignore[attr-defined]
        return values.index_select(0, place)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple[Tensor, None]:
        (place,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return grad.new_zeros(ctx.shape).index_copy_(0, place, grad), None  # type: ignore[attr-defined]
