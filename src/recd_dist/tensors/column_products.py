"""Linear functions of columns whose rows are of several levels: sums over levels, from the coarsest to the finest."""

import torch
import torch.nn.functional as F
from torch import Tensor

from recd_dist.tensors.host_side import autocast_dtype
from recd_dist.tensors.levels import Level, join_levels
from recd_dist.tensors.row_tensors import Columns, Rows, Shared, level_of, rows_at, stand_beside


def linear_of_columns(columns: Columns, weight: Tensor, bias: Tensor | None = None) -> Rows:
    """A linear layer over columns of several levels: each level's columns are multiplied where they are unique.

    Args:
        columns: matrices side by side, [B, width] in all.
        weight: [out, width].
        bias: [out].

    Returns:
        [B, out], shared at the join of the levels.
    """
    weights = torch.split_with_sizes(weight, [part.shape[1] for part in columns.parts], 1)
    total: Rows | None = None
    for level, numbers in columns.by_level():
        rows = stand_beside([columns.parts[n] for n in numbers], level)
        part = weights[numbers[0]] if len(numbers) == 1 else torch.cat([weights[n] for n in numbers], 1)
        total = add_product(total, rows, part, bias, level)
    if total is None:
        raise ValueError("linear: there are no columns")
    return total


def add_product(total: Rows | None, rows: Tensor, weight: Tensor, bias: Tensor | None, level: Level | None) -> Rows:
    """Adds a linear function of one level's rows to a sum that nobody else reads: it may be written over.

    Args:
        total: the sum so far, [B, out], of levels that are not finer; None for none, and the bias begins the sum.
        rows: the rows of the level, [rows, in].
        weight: [out, in].
        bias: [out].
        level: the level of the rows.
    """
    if total is None:
        return Shared.of(F.linear(rows, weight, bias), level)
    joined = join_levels([level_of(total), level])
    if joined is not level or autocast_dtype(rows) is not None:
        added: Rows = torch.add(total, Shared.of(F.linear(rows, weight), level))  # type: ignore[arg-type]
        return added
    # The product is added where the sum stands, which saves a pass over [rows, out].
    return Shared.of(rows_at(level, total).addmm_(rows, weight.t()), level)
