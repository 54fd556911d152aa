"""Pieces of tensors in another order: the same result by a few calls as by one."""

import numpy as np
import pytest
import torch

from recd_dist.embedding.exchange import pieces
from recd_dist.embedding.exchange.pieces import Order, reorder, transposed


@pytest.mark.parametrize("few", [0, 32])
@pytest.mark.parametrize("dtype", [torch.int32, torch.float32, torch.float16])
def test_pieces_of_two_matrices_for_three_ranks(few: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "FEW", few)
    first, second = torch.tensor([1, 2, 3, 4], dtype=dtype), torch.tensor([5, 6], dtype=dtype)
    sizes = [np.array([1, 0, 3]), np.array([1, 1, 0])]
    order = transposed(2, 3)
    assert order.numbers.tolist() == [0, 3, 1, 4, 2, 5]
    joined = reorder([first, second], sizes, order)
    assert joined.tolist() == [1, 5, 6, 2, 3, 4]
    back = reorder([joined], [np.concatenate(sizes)[order.numbers]], order.inverse())
    assert back.tolist() == [1, 2, 3, 4, 5, 6]


def test_an_order_knows_whether_anything_moves() -> None:
    assert Order([0, 1, 2]).is_same
    assert not Order([0, 1, 2], 4).is_same
    assert not Order([0, 2, 1]).is_same
    assert Order([0, 1, 1]).repeats
    values = torch.arange(3)
    assert reorder([values], [np.array([1, 2])], Order([0, 1])) is values
    assert len(reorder([values[:0]], [np.array([0, 0])], Order([1, 0]))) == 0


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1], list(range(199, -1, -1))])
def test_a_number_that_is_seen_as_many_is_laid_out(order: list[int]) -> None:
    """As the gradient of a plain sum is."""
    sizes = np.full(len(order), 2, dtype=np.int64)
    joined = reorder([torch.tensor(3.0).expand(2 * len(order))], [sizes], Order(np.array(order)))
    assert joined.is_contiguous()
    assert joined.tolist() == [3.0] * 2 * len(order)
