"""The rows of one unit in one batch, with ids sorted by the rank that holds them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from recd_dist.embedding.exchange.buckets import bucketize, bucketize_ids
from recd_dist.embedding.exchange.classes import class_rows
from recd_dist.embedding.exchange.distinct import distinct_ids
from recd_dist.embedding.exchange.layout import Unit
from recd_dist.tensors.host_side import host_integers
from recd_dist.tensors.ikjt import IKJT


@dataclass(frozen=True, eq=False)
class UnitRows:
    """The rows of one unit in one batch.

    Attributes:
        num_rows: number of rows of each key; 0 if every row is one id, since that number differs from rank to rank.
        values: ids, segment after segment, counted from the first row of their block.
        counts: number of ids of each segment, int64 [segments].
        lengths: number of ids of each row, int32 [segments * num_rows]; None if every row is one id.
        weights: weight of each id, float32; None if there are none.
        index: for each id that the batch stores where it stands in ``values``, int64; None if they stand in the same
            order.
    """

    num_rows: int
    values: Tensor
    counts: Tensor
    lengths: Tensor | None = None
    weights: Tensor | None = None
    index: Tensor | None = None

    def tensors(self) -> list[Tensor]:
        """The tensors that are not None."""
        return [t for t in (self.values, self.counts, self.lengths, self.weights, self.index) if t is not None]


def unit_rows(sparse: IKJT, unit: Unit) -> UnitRows:
    """The rows of a unit in a batch.

    Args:
        sparse: the deduplicated batch.
        unit: one of the units of the layout.
    """
    rows = class_rows(sparse, unit.table_class)
    if rows.lengths is None:
        return _id_rows(rows.values, unit)
    if unit.num_buckets > 1:
        values, lengths, weights = bucketize(rows.values, rows.lengths, rows.weights, unit.block_rows, unit.num_buckets)
        counts = lengths.view(unit.num_segments, rows.num_rows).sum(1, dtype=torch.int64)
        return UnitRows(rows.num_rows, values, counts, lengths, weights)
    sizes = [sum(sparse.num_list_values(f) for f in stack) for stack in unit.table_class.stacks.values()]
    return UnitRows(rows.num_rows, rows.values, host_integers(sizes, rows.values), rows.lengths, rows.weights)


def _id_rows(values: Tensor, unit: Unit) -> UnitRows:
    """The rows of a unit whose ids are rows: each distinct id once, or all ids."""
    block_rows = unit.block_rows[0] if unit.block_rows else torch.iinfo(values.dtype).max
    if unit.table_class.send == "ids":
        once, index, counts = distinct_ids(values, block_rows, unit.num_buckets)
        return UnitRows(0, once, counts, index=index)
    if unit.num_buckets == 1:
        return UnitRows(0, values, host_integers([len(values)], values))
    ordered, index, counts = bucketize_ids(values, block_rows, unit.num_buckets)
    return UnitRows(0, ordered, counts, index=index)
