"""Sets rows that have gone over to other ids back to what they were at first: weights and optimizer states."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from recd_dist.checkpoint.replicated_states import shared_name
from recd_dist.checkpoint.staging import parts_of
from recd_dist.embedding.initial_weights import draw_rows, local_shards
from recd_dist.embedding.tables import portable_name, table_weights
from recd_dist.table.column import Array


class _Part(NamedTuple):
    """A part of a table, or of a state of its optimizer, that lies on this rank.

    Attributes:
        rows: its rows.
        values: [rows] or [rows, columns]; writing to it changes the table or the state.
        columns: the first of its columns, and the one behind the last; None for a state, which is set to zero.
    """

    rows: range
    values: Tensor
    columns: tuple[int, int] | None


class RowReset:
    """Resets rows of some tables, under any sharding.

    Args:
        module: a sharded model that holds Embeddings.
        optimizer: the optimizer of the whole model, with states that exist and stay where they are.
        seed: seed of the run.
        sizes: for each table that may be reset its number of rows.
    """

    def __init__(self, module: nn.Module, optimizer: Any, seed: int, sizes: Mapping[str, int]) -> None:
        self._seed, self._sizes = seed, dict(sizes)
        weights = table_weights(module)
        self._parts = {name: list(_weights_of(weights[name])) for name in sizes}
        for parameter, states in optimizer.state_dict()["state"].items():
            table = portable_name(parameter).split(".")[-2:-1]
            if portable_name(parameter) != parameter and table[0] in sizes:
                for name, state in states.items():
                    if shared_name(f"optimizer/{parameter}/{name}") is not None:
                        self._parts[table[0]] += _states_of(state, sizes[table[0]])

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
                if part.columns is None:
                    part.values[where] = 0
                else:
                    drawn = draw_rows(self._seed, table, self._sizes[table], mine, part.columns)
                    part.values[where] = drawn.to(part.values.device, part.values.dtype)


def _weights_of(weight: Tensor) -> Iterator[_Part]:
    for shard, row, column in local_shards(weight):
        yield _Part(range(row, row + len(shard)), shard, (column, column + shard.shape[1]))


def _states_of(state: Any, num_rows: int) -> Iterator[_Part]:
    """The parts of a state. One with a number a row has the rows of each column shard, one behind the other."""
    for offset, values in parts_of(state):
        row = int(offset[0]) % num_rows
        if values.dim() == 0 or np.prod(values.shape) == 0:
            continue
        yield _Part(range(row, row + len(values)), values.detach(), None)
