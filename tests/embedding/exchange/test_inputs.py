"""The sizes that each rank is told before ids travel."""

import numpy as np
import pytest
import torch
from tests.embedding.exchange.small_layout import layout

from recd_dist.embedding.exchange.inputs import message_on_device, message_on_host, width_code


@pytest.mark.parametrize("longest", [0, 255, 256, 40_000])
def test_sizes_are_the_same_by_numpy_and_by_operators(longest: int) -> None:
    """numpy computes them on CPU, operators on CUDA."""
    counts = torch.tensor([10, 20, 3, 4, 50, 60, 7])
    lengths = torch.tensor([1, longest], dtype=torch.int32) if longest else torch.empty(0, dtype=torch.int32)
    rows, code = np.array([5, 5, 5, 0]), width_code(lengths)
    message = message_on_host(layout(0), rows, counts, code)
    assert torch.equal(message, message_on_device(layout(0), rows, counts, code))
    assert code == int(longest > 255) + int(longest > 32767)
    # Rows and ids of shop and city, then the ids of article; rank 1 holds item, too.
    assert message.tolist() == [[code, 5, 20, 5, 3, 50, 0, 0], [code, 5, 10, 5, 20, 5, 4, 60]]
    sent = layout(0).sizes.sent_ids(message.numpy())
    assert sent.tolist() == [[0, 20, 3, 50], [10, 20, 4, 60]]


def test_the_longest_row_decides_how_long_all_are() -> None:
    """A rank is told nothing about units of which it holds no shard, so that messages do not grow with all tables."""
    assert [layout(rank).sizes.width for rank in (0, 1)] == [8, 8]
