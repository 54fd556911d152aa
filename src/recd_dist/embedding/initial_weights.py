"""Initial weights of the tables, which depend on seed, table name and row only.

A table is drawn in blocks of rows, each from a generator of its own; a shard takes its rows and columns of the blocks
that it touches. So a job starts from the same numbers on any number of ranks, under any sharding, with dedup on or
off, and a rank never holds more of a table than its shard and one block. A mapped table is drawn number by number,
since its rows are drawn again, one by one, when they go over to other ids.
"""

import hashlib
from collections.abc import Collection, Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed._shard.sharded_tensor import ShardedTensor

from recd_dist.embedding.tables import table_weights
from recd_dist.table.column import Array
from recd_dist.table.hash import GOLDEN, splitmix64

BLOCK_SIZE = 65536
"""How many numbers a block has, at most. It is part of what defines the initial weights."""


def initialize_tables(module: nn.Module, seed: int, mapped: Collection[str] = ()) -> None:
    """Fills every table with numbers from uniform(-1/sqrt(rows), 1/sqrt(rows)), TorchRec's default bounds.

    Args:
        module: Embeddings, or a model that holds them, sharded or not.
        seed: seed of the run.
        mapped: names of the tables that are drawn number by number.
    """
    with torch.no_grad():
        for name, weight in table_weights(module).items():
            rows, dim = weight.shape
            for shard, row, column in local_shards(weight):
                last_row, last_column = row + len(shard), column + shard.shape[1]
                if name not in mapped:
                    shard.copy_(draw_weights(seed, name, rows, dim, (row, last_row), (column, last_column)))
                    continue
                for start in range(0, len(shard), rows_per_block := max(1, BLOCK_SIZE // dim)):
                    chosen = np.arange(row + start, min(row + start + rows_per_block, last_row))
                    drawn = draw_rows(seed, name, rows, chosen, (column, last_column))
                    shard[start : start + len(chosen)].copy_(drawn)


def local_shards(weight: Tensor) -> Iterator[tuple[Tensor, int, int]]:
    """Goes through the shards of a table that lie on this rank.

    Args:
        weight: the table's weight, Tensor or ShardedTensor [rows, dim].

    Yields:
        The shard's weight (writing to it changes the table), its first row and its first column.
    """
    if isinstance(weight, ShardedTensor):
        for shard in weight.local_shards():
            row, column = shard.metadata.shard_offsets
            yield shard.tensor.detach(), row, column
    else:
        yield weight.detach(), 0, 0


def draw_weights(
    seed: int, table: str, num_embeddings: int, dim: int, rows: tuple[int, int], columns: tuple[int, int]
) -> Tensor:
    """Draws a rectangle of a table's initial weight.

    Args:
        seed: seed of the run.
        table: name of the table.
        num_embeddings: number of rows of the whole table; it sets the bounds of the numbers.
        dim: number of columns of the whole table.
        rows: first row of the rectangle, and the row behind its last one.
        columns: first column of the rectangle, and the column behind its last one.

    Returns:
        float32 [rows of the rectangle, columns of the rectangle], on the CPU.
    """
    rows_per_block = max(1, BLOCK_SIZE // dim)
    bound = num_embeddings**-0.5
    out = torch.empty(rows[1] - rows[0], columns[1] - columns[0])
    for block in range(rows[0] // rows_per_block, -(-rows[1] // rows_per_block)):
        start = block * rows_per_block
        first, last = max(rows[0], start), min(rows[1], start + rows_per_block)
        generator = torch.Generator().manual_seed(_block_seed(seed, table, block))
        size = min(rows_per_block, num_embeddings - start)
        drawn = torch.empty(size, dim).uniform_(-bound, bound, generator=generator)
        out[first - rows[0] : last - rows[0]] = drawn[first - start : last - start, columns[0] : columns[1]]
    return out


def draw_rows(seed: int, table: str, num_embeddings: int, rows: Array, columns: tuple[int, int]) -> Tensor:
    """Draws some rows of the initial weight of a mapped table, each number by itself.

    Args:
        seed: seed of the run.
        table: name of the table.
        num_embeddings: number of rows of the whole table; it sets the bounds of the numbers.
        rows: int64 [n], the rows.
        columns: the first of their columns, and the one behind the last.

    Returns:
        float32 [n, columns], on the CPU.
    """
    states = splitmix64(rows.astype(np.uint64) + np.uint64(_block_seed(seed, table, -1)))
    drawn = splitmix64(states[:, None] + np.arange(*columns, dtype=np.uint64) * GOLDEN)
    shares = (drawn >> np.uint64(40)).astype(np.float32) * np.float32(2**-24)  # 24 bits are what a float32 holds
    return torch.from_numpy((2 * shares - 1) * np.float32(num_embeddings**-0.5))


def _block_seed(seed: int, table: str, block: int) -> int:
    digest = hashlib.blake2b(f"{seed}/{table}/{block}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
