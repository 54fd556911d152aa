"""Rows of a jagged column: taken by number, or cut to their last values.

A jagged column is ``values`` [V] with ``lengths`` [R]. Row r holds the next lengths[r] values::

    rows      [1, 2]  []  [3]
    values    1 2 3
    lengths   2 0 1
"""

import torch
from torch import Tensor

Jagged = tuple[Tensor, Tensor, Tensor | None]
"""A jagged column: values [V], lengths int32 [R], and weights float32 [V] or None."""


def gather_rows(values: Tensor, lengths: Tensor, rows: Tensor, weights: Tensor | None = None) -> Jagged:
    """Takes rows of a jagged column, in any order and any number of times (RecD's O6, JaggedIndexSelect).

    Args:
        values: [V] or [V, D], the column's values.
        lengths: int32 [R], the column's lengths.
        rows: int64 [N] in [0, R), the numbers of the rows to take.
        weights: [V], a weight per value; or None.

    Returns:
        The values, the lengths int32 [N] and the weights of the rows taken.
    """
    out_lengths = lengths[rows]
    index = value_index(lengths, rows, out_lengths)
    picked = None if weights is None else weights.index_select(0, index)
    return values.index_select(0, index), out_lengths, picked


def value_index(lengths: Tensor, rows: Tensor, out_lengths: Tensor, num_values: int | None = None) -> Tensor:
    """The index of every value of some rows, row after row: int64 [sum of out_lengths].

    Args:
        lengths: int32 [R], the column's lengths.
        rows: int64 [N] in [0, R), the numbers of the rows.
        out_lengths: int32 [N], the lengths of these rows: ``lengths[rows]``.
        num_values: their sum; when absent, the host waits for a device to tell it.
    """
    starts = torch.cumsum(lengths, 0, dtype=torch.int64) - lengths
    return slice_index(starts[rows], out_lengths, num_values)


def slice_index(starts: Tensor, lengths: Tensor, num_values: int | None = None) -> Tensor:
    """The index of every value of some slices, slice after slice: int64 [sum of the lengths].

    Args:
        starts: int32 or int64 [N], where each slice begins.
        lengths: int32 [N], how many values each has.
        num_values: the sum of the lengths; when absent, the host waits for a device to tell it.
    """
    ends = torch.cumsum(lengths, 0, dtype=torch.int64)
    shifts = torch.repeat_interleave(starts - (ends - lengths), lengths.long(), output_size=num_values)
    return shifts + torch.arange(len(shifts), device=shifts.device)


def find_last_values(lengths: Tensor, max_length: int, num_kept: int) -> tuple[Tensor, Tensor]:
    """Finds each row's last ``max_length`` values.

    Args:
        lengths: int32 [R], the column's lengths.
        max_length: how many values of a row are kept at most.
        num_kept: how many values are kept, which the host must know before.

    Returns:
        index: int64 [sum of the new lengths], the indexes of the values that are kept.
        lengths: int32 [R], the new lengths.
    """
    kept = lengths.clamp(max=max_length)
    ends = torch.cumsum(lengths, 0, dtype=torch.int64)
    new_ends = torch.cumsum(kept, 0, dtype=torch.int64)
    shifts = torch.repeat_interleave(ends - new_ends, kept.long(), output_size=num_kept)
    return shifts + torch.arange(num_kept, device=shifts.device), kept
