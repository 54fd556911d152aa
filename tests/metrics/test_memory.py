"""Memory of this process, by a block that the test allocates."""

import pytest
import torch

from recd_dist.metrics.memory import measure_memory


def test_memory_counts_a_large_block() -> None:
    device = torch.device("cpu")
    before = measure_memory(device)["rss_gib"]
    block = torch.ones(2**26, dtype=torch.uint8)
    after = measure_memory(device)
    assert after["rss_gib"] - before == pytest.approx(1 / 16, rel=0.5)
    assert after["rss_peak_gib"] >= after["rss_gib"] - 0.01
    assert block.numel() == 2**26
