"""What a model of two towers gives: a vector for the query of each sample, and one for its item."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recd_dist.tensors.host_side import HostArray
from recd_dist.tensors.shared import Rows, Shared, expand, rows_at


@dataclass(frozen=True, eq=False)
class TowerRows:
    """The vectors of one tower where they are unique.

    Attributes:
        values: float [U, D].
        row_of_sample: int64 [B] on the host, for each sample its row.
    """

    values: Tensor
    row_of_sample: NDArray[np.int64]

    @staticmethod
    def of(rows: Rows) -> "TowerRows":
        """The rows of a tower's output, which stands for [B, D]."""
        known: HostArray | NDArray[np.int64] = (
            rows.level.known_inverse if isinstance(rows, Shared) else np.arange(rows.shape[0])
        )
        values = rows.values if isinstance(rows, Shared) else rows_at(None, rows)
        return TowerRows(values, known.astype(np.int64))


@dataclass(frozen=True, eq=False)
class Towers:
    """What the towers give for a batch. The score of a query and an item is the product of their vectors.

    Attributes:
        query: [B, D], shared where all that the query depends on is.
        item: [B, D], shared where items repeat.
    """

    query: Rows
    item: Rows

    def scores(self, num_tasks: int) -> Tensor:
        """The score of each sample's own query and item, float [B, T]: all tasks have the same.

        Args:
            num_tasks: T, the number of tasks.
        """
        return (expand(self.query) * expand(self.item)).sum(1, keepdim=True).expand(-1, num_tasks)

    def widen(self) -> "Towers":
        """The same vectors in float32 at least."""
        dtype = torch.promote_types(self.query.dtype, torch.float32)
        return Towers(self.query.to(dtype), self.item.to(dtype))

    def plain(self) -> tuple[Tensor, Tensor]:
        """Both as tensors with a row per sample."""
        return expand(self.query), expand(self.item)

    @staticmethod
    def join(parts: Sequence[tuple[Tensor, Tensor]]) -> "Towers":
        """The towers of a batch of which each part was computed by itself."""
        queries, items = zip(*parts, strict=True)
        return Towers(torch.cat(queries), torch.cat(items))
