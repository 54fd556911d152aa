"""The sizes that each rank is told before ids travel."""

import pytest
import torch
from tests.embedding.exchange.small_layout import layout

from recd_dist.embedding.exchange.inputs import message_on_device, message_on_host


@pytest.mark.parametrize("longest", [0, 255, 256, 40_000])
def test_sizes_are_the_same_by_loop_and_by_operators(longest: int) -> None:
    """The loop runs on CPU, the operators on CUDA."""
    counts = torch.tensor([10, 20, 3, 4, 50, 60, 7])
    lengths = torch.tensor([1, longest], dtype=torch.int32) if longest else torch.empty(0, dtype=torch.int32)
    rows = [5, 5, 5, 0]
    message = message_on_host(layout(0), rows, counts, lengths)
    assert torch.equal(message, message_on_device(layout(0), rows, counts, lengths))
    code = int(longest > 255) + int(longest > 32767)
    assert message.tolist() == [[code, 5, 0, 5, 20, 5, 3, 0, 50], [code, 5, 10, 5, 20, 5, 4, 0, 60]]
