"""Two operations on jagged rows: gather rows by index, and find the distinct ones.

A jagged column is ``values`` [V] with ``lengths`` [R]: row r is the next lengths[r] values.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from recd_dist.table.hash import GOLDEN, MIX_1, MIX_2, as_signed

_GOLDEN, _MIX_1, _MIX_2 = map(as_signed, (GOLDEN, MIX_1, MIX_2))

Jagged = tuple[Tensor, Tensor, Tensor | None]
"""values [V], lengths int32 [R], weights float32 [V] or None."""


def gather_rows(values: Tensor, lengths: Tensor, rows: Tensor, weights: Tensor | None = None) -> Jagged:
    """Rows of a jagged column in a new order, repeated or left out (RecD's O6, JaggedIndexSelect).

    Args:
        values: [V] or [V, D].
        lengths: int32 [R].
        rows: int64 [N] in [0, R).
        weights: [V] or None.

    Returns:
        values, lengths int32 [N] and weights of the rows asked for.
    """
    out_lengths = lengths[rows]
    index = value_index(lengths, rows, out_lengths)
    picked = None if weights is None else weights.index_select(0, index)
    return values.index_select(0, index), out_lengths, picked


def value_index(lengths: Tensor, rows: Tensor, out_lengths: Tensor) -> Tensor:
    """Where the values of the rows asked for stand, int64 [sum of out_lengths].

    Args:
        lengths: int32 [R].
        rows: int64 [N] in [0, R).
        out_lengths: int32 [N], ``lengths[rows]``.
    """
    starts = torch.cumsum(lengths, 0, dtype=torch.int64) - lengths
    ends = torch.cumsum(out_lengths, 0, dtype=torch.int64)
    shift = starts[rows] - (ends - out_lengths)
    shifts = torch.repeat_interleave(shift, out_lengths.long())
    return shifts + torch.arange(len(shifts), device=shifts.device)


def last_values(lengths: Tensor, max_length: int) -> tuple[Tensor, Tensor]:
    """Where each row's last ``max_length`` values stand.

    Args:
        lengths: int32 [R].
        max_length: values kept of a row, at most.

    Returns:
        index: int64 [sum of the new lengths] into the values.
        lengths: int32 [R], the new lengths.
    """
    kept = lengths.clamp(max=max_length)
    ends = torch.cumsum(lengths, 0, dtype=torch.int64)
    new_ends = torch.cumsum(kept, 0, dtype=torch.int64)
    shifts = torch.repeat_interleave(ends - new_ends, kept.long())
    return shifts + torch.arange(len(shifts), device=shifts.device), kept


def find_unique_rows(columns: Sequence[Jagged], num_rows: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Deduplicates rows that are equal in every column; a hash finds candidates, values and lengths decide.

    A row whose hash collides with a different row stays by itself: at worst a repeat is left, never a wrong match.

    Args:
        columns: jagged columns of num_rows rows each.
        num_rows: R.
        device: where the result lies when there are no columns.

    Returns:
        first: int64 [U], a representative of each unique row, in order of first appearance.
        inverse: int32 [R], for each row its unique row.
    """
    signature = torch.zeros(num_rows, dtype=torch.int64, device=device)
    for values, lengths, weights in columns:
        signature = _mix(signature * 31 + _row_hash(values, lengths))
        if weights is not None:
            signature = _mix(signature * 31 + _row_hash(weights.view(torch.int32), lengths))
    _, candidate = torch.unique(signature, return_inverse=True)
    order = torch.arange(num_rows, device=device)
    leader = torch.full((num_rows,), num_rows, device=device).scatter_reduce(0, candidate, order, "amin")[candidate]
    equal = torch.ones(num_rows, dtype=torch.bool, device=device)
    for column in columns:
        equal &= _rows_equal(column, leader)
    leader = torch.where(equal, leader, order)
    first, inverse = torch.unique(leader, return_inverse=True)
    return first, inverse.to(torch.int32)


def _mix(x: Tensor) -> Tensor:
    """``table.hash.scramble`` in torch, whose shift of a negative number brings in ones, which are masked."""
    x = (x ^ ((x >> 30) & 0x3FFFFFFFF)) * _MIX_1
    x = (x ^ ((x >> 27) & 0x1FFFFFFFFF)) * _MIX_2
    return x ^ ((x >> 31) & 0x1FFFFFFFF)


def _row_hash(values: Tensor, lengths: Tensor) -> Tensor:
    """A 64-bit hash of each row's values and length, int64 [R]."""
    rows = torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths.long())
    starts = torch.cumsum(lengths, 0, dtype=torch.int64) - lengths
    position = torch.arange(len(values), device=values.device) - starts[rows]
    mixed = _mix(_mix(values.long() + 0x632BE5AB) + position * _GOLDEN)
    return _mix(lengths.long() + 1).index_add(0, rows, mixed)


def _rows_equal(column: Jagged, leader: Tensor) -> Tensor:
    """Whether each row equals, bit for bit, the row named as its leader; bool [R]."""
    values, lengths, weights = column
    equal = lengths == lengths[leader]
    # Only rows of equal length are compared, so that positions line up.
    rows = torch.nonzero(equal).squeeze(1)
    size = lengths[rows]
    own, other = value_index(lengths, rows, size), value_index(lengths, leader[rows], size)
    differs = values[own] != values[other]
    if weights is not None:
        bits = weights.view(torch.int32)
        differs |= bits[own] != bits[other]
    owner = torch.repeat_interleave(rows, size.long())
    num_differing = torch.zeros_like(leader).index_add(0, owner, differs.long())
    return equal & (num_differing == 0)
