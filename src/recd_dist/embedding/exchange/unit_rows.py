"""A unit's rows of one batch, its ids sorted by the rank that holds them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from recd_dist.embedding.exchange.buckets import bucketize, bucketize_ids
from recd_dist.embedding.exchange.classes import class_rows
from recd_dist.embedding.exchange.distinct import distinct_ids
from recd_dist.embedding.exchange.layout import Unit
from recd_dist.tensors.ikjt import IKJT


@dataclass(frozen=True, eq=False)
class UnitRows:
    """A unit's rows.

    Attributes:
        num_rows: rows of each key; 0 where every row is one id, whose number differs from rank to rank.
        values: ids, segment after segment, counted from the first row of their block.
        counts: int64 [segments], ids of each.
        lengths: int32 [segments * num_rows], or None where every row is one id.
        weights: float32, as ``values``, or None.
        index: int64, for each id of the batch its place among ``values``; None where they are the same.
    """

    num_rows: int
    values: Tensor
    counts: Tensor
    lengths: Tensor | None = None
    weights: Tensor | None = None
    index: Tensor | None = None

    def tensors(self) -> list[Tensor]:
        """All that are there."""
        return [t for t in (self.values, self.counts, self.lengths, self.weights, self.index) if t is not None]


def unit_rows(sparse: IKJT, unit: Unit) -> UnitRows:
    """A unit's rows of a batch.

    Args:
        sparse: deduplicated batch.
        unit: of the layout.
    """
    rows = class_rows(sparse, unit.rows)
    if rows.lengths is None:
        return _ids(rows.values, unit)
    if unit.num_buckets > 1:
        values, lengths, weights = bucketize(rows.values, rows.lengths, rows.weights, unit.block_rows, unit.num_buckets)
        counts = lengths.view(unit.num_segments, rows.num_rows).sum(1, dtype=torch.int64)
        return UnitRows(rows.num_rows, values, counts, lengths, weights)
    sizes = [sum(sparse.num_values(f) for f in stack) for stack in unit.rows.stacks.values()]
    return UnitRows(rows.num_rows, rows.values, host_integers(sizes, rows.values), rows.lengths, rows.weights)


def _ids(values: Tensor, unit: Unit) -> UnitRows:
    """Every id a row: each distinct one once, or all of them."""
    block_rows = unit.block_rows[0] if unit.block_rows else torch.iinfo(values.dtype).max
    if unit.rows.send == "ids":
        once, index, counts = distinct_ids(values, block_rows, unit.num_buckets)
        return UnitRows(0, once, counts, index=index)
    if unit.num_buckets == 1:
        return UnitRows(0, values, host_integers([len(values)], values))
    ordered, place, counts = bucketize_ids(values, block_rows, unit.num_buckets)
    return UnitRows(0, ordered, counts, index=place)


def host_integers(numbers: Sequence[int], like: Tensor) -> Tensor:
    """Integers of this step as int64 on a tensor's device, without making the host wait."""
    made = torch.tensor(numbers, dtype=torch.int64)
    return made.pin_memory().to(like.device, non_blocking=True) if like.is_cuda else made


@lru_cache(maxsize=512)
def constant(numbers: tuple[int, ...], device: torch.device) -> Tensor:
    """Integers of the plan as int64 on a device, copied there once; not to be written to."""
    return torch.tensor(numbers, dtype=torch.int64, device=device)
