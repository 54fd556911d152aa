"""Initial table weights that do not depend on the plan: a function of seed, table name and row.

A table is filled in blocks of rows, each from its own generator; a shard takes its rows and columns of the blocks it
touches. 1, 2 and 4 ranks, table-wise, row-wise and column-wise, dedup on and off start from the same numbers, and no
rank ever holds a whole table that it does not own.
"""

import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.distributed._shard.sharded_tensor import ShardedTensor

from recd_dist.embedding.tables import table_weights

BLOCK_SIZE = 65536
"""Numbers drawn per generator; part of the definition of the initial weights."""


def initialize(module: nn.Module, seed: int) -> None:
    """Fills every table with uniform(-1/sqrt(rows), 1/sqrt(rows)), as TorchRec's default bounds are.

    Args:
        module: Embeddings or a model that holds them, sharded or not.
        seed: the run's seed.
    """
    with torch.no_grad():
        for name, weight in table_weights(module).items():
            rows, dim = weight.shape
            for part, row, column in local_shards(weight):
                part.copy_(table_part(seed, name, rows, dim, (row, row + len(part)), (column, column + part.shape[1])))


def local_shards(weight: Tensor) -> Iterator[tuple[Tensor, int, int]]:
    """The parts of a table that lie on this rank, with their first row and column; written to in place.

    Args:
        weight: Tensor or ShardedTensor [rows, dim].
    """
    if isinstance(weight, ShardedTensor):
        for shard in weight.local_shards():
            row, column = shard.metadata.shard_offsets
            yield shard.tensor.detach(), row, column
    else:
        yield weight.detach(), 0, 0


def table_part(
    seed: int, table: str, num_embeddings: int, dim: int, rows: tuple[int, int], columns: tuple[int, int]
) -> Tensor:
    """Rows [rows[0], rows[1]) and columns of a table's initial weight, float32 on the CPU.

    Args:
        seed: the run's seed.
        table: table name.
        num_embeddings: rows of the whole table, which set the bound.
        dim: columns of the whole table.
        rows: first row and row behind the last.
        columns: first column and column behind the last.
    """
    per_block = max(1, BLOCK_SIZE // dim)
    bound = num_embeddings**-0.5
    out = torch.empty(rows[1] - rows[0], columns[1] - columns[0])
    for block in range(rows[0] // per_block, -(-rows[1] // per_block)):
        start = block * per_block
        first, last = max(rows[0], start), min(rows[1], start + per_block)
        generator = torch.Generator().manual_seed(_block_seed(seed, table, block))
        size = min(per_block, num_embeddings - start)
        drawn = torch.empty(size, dim).uniform_(-bound, bound, generator=generator)
        out[first - rows[0] : last - rows[0]] = drawn[first - start : last - start, columns[0] : columns[1]]
    return out


def _block_seed(seed: int, table: str, block: int) -> int:
    digest = hashlib.blake2b(f"{seed}/{table}/{block}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
