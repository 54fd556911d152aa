"""Bytes of tables and their optimizer states on each rank."""

from typing import Any

import numpy as np

from recd_dist.embedding.vocabulary.placement import TablePlace
from recd_dist.plan.step_bytes import Array, sum_by_rank
from recd_dist.plan.step_rows import FLOAT_BYTES, TableUse


def table_memory(use: TableUse, place: TablePlace, world_size: int, optimizer: str) -> Array:
    """Bytes of one table's weights and optimizer states on each rank, float64 [W].

    Args:
        use: the table.
        place: where it lies.
        world_size: W, the number of ranks.
        optimizer: name of the tables' optimizer.
    """
    if not place.shards:
        return np.full(world_size, shard_bytes(use.num_embeddings, use.dim, optimizer))
    shards = place.rectangles
    return sum_by_rank(shards[:, 0], shard_bytes(shards[:, 2], shards[:, 4], optimizer), world_size)


def shard_bytes(num_rows: Any, num_columns: Any, optimizer: str) -> Any:
    """Bytes of a shard's weights and optimizer states. A row-wise state is one number for each row of the shard.

    Args:
        num_rows: rows of the shard, or an array of those of several shards.
        num_columns: columns of the shard, or of each.
        optimizer: name of the tables' optimizer.
    """
    numbers = num_rows * num_columns
    states = {
        "sgd": 0,
        "rowwise_adagrad": num_rows,
        "adagrad": numbers,
        "partial_rowwise_adam": numbers + num_rows,
    }
    return float(FLOAT_BYTES) * (numbers + states.get(optimizer, 2 * numbers))
