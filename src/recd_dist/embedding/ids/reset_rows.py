"""Sets rows that have gone over to other ids back to what they were at first: weights and optimizer states."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from recd_dist.embedding.ids.table_parts import WEIGHT, parts_of_tables
from recd_dist.embedding.initial_weights import draw_rows
from recd_dist.table.column import Array


class RowReset:
    """Resets rows of some tables, under any sharding.

    Args:
        module: a sharded model that holds Embeddings.
        optimizer: the optimizer of the whole model, with states that exist and stay where they are; None for none.
        seed: seed of the run.
        sizes: for each table that may be reset its number of rows.
    """

    def __init__(self, module: nn.Module, optimizer: Any, seed: int, sizes: Mapping[str, int]) -> None:
        self._seed, self._sizes = seed, dict(sizes)
        self._parts = parts_of_tables(module, optimizer, sizes)

    def reset(self, table: str, rows: Array) -> None:
        """Draws some rows of a table anew, as far as they lie on this rank.

        Args:
            table: its name.
            rows: int64 [n], rows of the whole table.
        """
        with torch.no_grad():
            for part in self._parts[table]:
                mine = rows[(rows >= part.rows.start) & (rows < part.rows.stop)]
                if not len(mine):
                    continue
                where = torch.from_numpy(mine - part.rows.start).to(part.values.device)
                if part.key != WEIGHT:
                    part.values[where] = 0
                else:
                    drawn = draw_rows(self._seed, table, self._sizes[table], mine, part.columns)
                    part.values[where] = drawn.to(part.values.device, part.values.dtype)
