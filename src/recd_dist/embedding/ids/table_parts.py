"""The parts of a table and of its optimizer's states that lie on a rank, whatever the sharding."""

from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor, nn
from torch.distributed._shard.sharded_tensor import ShardedTensor

from recd_dist.checkpoint.replicated_states import shared_name
from recd_dist.checkpoint.staging import parts_of
from recd_dist.embedding.initial_weights import local_shards
from recd_dist.embedding.tables import portable_name, table_weights

WEIGHT = "weight"
"""The key of the parts of a table's weight; those of states have others."""


class TablePart(NamedTuple):
    """A part of a table, or of a state of its optimizer, that lies on this rank.

    Attributes:
        key: what it is a part of: the weight, a state, or the block of a state that belongs to some columns.
        rows: its rows.
        columns: the first of its columns, and the one behind the last.
        values: [rows, columns]; writing to it changes the table or the state.
        is_everywhere: whether every rank has the whole of it.
    """

    key: str
    rows: range
    columns: tuple[int, int]
    values: Tensor
    is_everywhere: bool


def parts_of_tables(module: nn.Module, optimizer: Any, tables: Collection[str]) -> dict[str, list[TablePart]]:
    """For each of some tables its parts on this rank.

    Args:
        module: a sharded model that holds Embeddings.
        optimizer: the optimizer of the whole model, with states that exist and stay where they are; None for none.
        tables: their names.
    """
    weights = table_weights(module)
    parts = {name: list(_weights_of(weights[name])) for name in tables}
    states: dict[str, Any] = {} if optimizer is None else optimizer.state_dict()["state"]
    for parameter, of_parameter in states.items():
        table = portable_name(parameter).split(".")[-2:-1]
        if portable_name(parameter) != parameter and table[0] in parts:
            for name, state in of_parameter.items():
                if (key := shared_name(f"optimizer/{parameter}/{name}")) is not None:
                    parts[table[0]] += _states_of(key.rpartition("/")[2], state, weights[table[0]].shape[0])
    return parts


def _weights_of(weight: Tensor) -> Iterator[TablePart]:
    is_everywhere = not isinstance(weight, ShardedTensor)
    for shard, row, column in local_shards(weight):
        columns = (column, column + shard.shape[1])
        yield TablePart(WEIGHT, range(row, row + len(shard)), columns, shard, is_everywhere)


def _states_of(name: str, state: Any, num_rows: int) -> Iterator[TablePart]:
    """The parts of a state. One with a number a row has the rows of each column shard, one behind the other."""
    is_everywhere = not hasattr(state, "local_shards")
    for offset, values in parts_of(state):
        if values.dim() == 0 or np.prod(values.shape) == 0:
            continue
        block, row = divmod(int(offset[0]), num_rows)
        column = int(offset[1]) if values.dim() > 1 else 0
        flat = values.detach().view(len(values), -1)
        columns = (column, column + flat.shape[1])
        yield TablePart(f"{name}/{block}", range(row, row + len(flat)), columns, flat, is_everywhere)
