"""States with a number a row: how they are laid out, and what becomes of them when a table is split in another way."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from recd_dist.checkpoint.column_shards import Blocks, convert_states, shape_of_rows, weight_of

WEIGHT, STATE = "model/embeddings.tables.item.weight", "optimizer/tables.embeddings.tables.item.weight/item.momentum1"
WHOLE, HALVES, UNEVEN = ((0, 16),), ((0, 8), (8, 8)), ((0, 12), (12, 4))


class Sharded:
    """A ShardedTensor of which all shards lie here, each [rows / pieces]."""

    def __init__(self, blocks: Blocks, num_rows: int, pieces: int = 1) -> None:
        self.whole, size = torch.zeros(len(blocks) * num_rows), num_rows // pieces
        self.shards = [
            SimpleNamespace(
                tensor=self.whole[start : start + size],
                metadata=SimpleNamespace(shard_offsets=[start], shard_sizes=[size]),
            )
            for start in range(0, len(self.whole), size)
        ]

    def size(self) -> torch.Size:
        return self.whole.size()

    def local_shards(self) -> list[Any]:
        return self.shards


def converted(stored: list[float], was: Blocks, now: Blocks, num_rows: int, pieces: int = 1) -> Tensor:
    state = Sharded(now, num_rows, pieces)
    convert_states({STATE: torch.tensor(stored)}, {STATE: state}, {WEIGHT: was}, {WEIGHT: now})
    return state.whole


@pytest.mark.parametrize("pieces", [1, 2])
def test_a_whole_row_has_the_mean_of_its_parts_by_columns(pieces: int) -> None:
    assert converted([1, 2, 3, 4], HALVES, WHOLE, 2, pieces).tolist() == [2, 3]
    assert converted([1, 2, 5, 6], UNEVEN, WHOLE, 2, pieces).tolist() == [2, 3]  # 12 of 16 columns, and 4


def test_a_part_has_the_number_of_what_it_was_cut_from() -> None:
    assert converted([1, 2], WHOLE, HALVES, 2).tolist() == [1, 2, 1, 2]
    assert converted([1, 2, 5, 6], UNEVEN, HALVES, 2).tolist() == [1, 2, 3, 4]  # columns 8-15: 4 of either shard
    assert converted([1, 2, 5, 6], HALVES, HALVES, 2).tolist() == [1, 2, 5, 6]


def test_rows_that_are_new_stay_as_they_are() -> None:
    assert converted([1, 2, 3, 4], HALVES, HALVES, 4).tolist() == [1, 2, 0, 0, 3, 4, 0, 0]
    assert converted([1, 2, 3, 4], HALVES, HALVES, 4, pieces=4).tolist() == [1, 2, 0, 0, 3, 4, 0, 0]


def test_gradients_add_up_to_the_same_in_one_piece_or_in_many() -> None:
    """What row-wise Adagrad sums up in each shard, and what it would have summed up in one."""
    squares = torch.randn(20, 6, 16).square()  # steps, rows, columns
    halves = torch.cat([squares[..., f : f + w].mean(2).sum(0) for f, w in UNEVEN])
    assert torch.allclose(converted(halves.tolist(), UNEVEN, WHOLE, 6), squares.mean(2).sum(0))


def test_names_and_shapes() -> None:
    weights = [WEIGHT, "model/embeddings.tables.other_item.weight"]
    assert weight_of(STATE, weights) == WEIGHT
    assert weight_of(STATE.replace("tables.item", "tables.other_item"), weights) == weights[1]
    assert weight_of(WEIGHT, weights) is None
    assert weight_of("optimizer/dense.head.bias/sum", weights) is None
    assert shape_of_rows((12,), HALVES) == (6,)
    assert shape_of_rows((6, 16), HALVES) == (6, 16)  # Adagrad has a number for each weight
