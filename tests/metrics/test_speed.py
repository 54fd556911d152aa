"""Rates from a clock that the test moves."""

import itertools

import pytest
import torch

from recd_dist.metrics.memory import usage
from recd_dist.metrics.speed import Speed


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_rates_and_reader_wait() -> None:
    clock = Clock()
    speed = Speed(torch.device("cpu"), clock)

    def reader():
        for _ in range(4):
            clock.now += 1.0
            yield 100

    for num_samples in speed.watch(reader()):
        clock.now += 3.0
        speed.step(num_samples)
    assert speed.compute() == {"samples_per_s": 25.0, "step_ms": 4000.0, "reader_wait_share": 0.25}
    assert speed.samples_per_s == 25.0


def test_each_window_stands_alone_and_totals_add_up() -> None:
    clock = Clock()
    speed = Speed(torch.device("cpu"), clock)
    for seconds, expected in ((1.0, 10.0), (4.0, 2.5)):
        clock.now += seconds
        speed.step(10)
        assert speed.compute()["samples_per_s"] == expected
    assert speed.samples_per_s == 4.0


def test_restart_leaves_out_an_evaluation() -> None:
    clock = Clock()
    speed = Speed(torch.device("cpu"), clock)
    clock.now += 100.0
    speed.restart()
    clock.now += 2.0
    speed.step(10)
    assert speed.compute()["samples_per_s"] == 5.0


def test_watch_ends_with_its_source() -> None:
    assert list(Speed(torch.device("cpu")).watch(iter([1, 2]))) == [1, 2]
    assert list(itertools.islice(Speed(torch.device("cpu")).watch(itertools.count()), 2)) == [0, 1]


def test_no_step_yet() -> None:
    speed = Speed(torch.device("cpu"))
    assert speed.compute()["samples_per_s"] == 0.0


def test_memory_counts_a_large_block() -> None:
    device = torch.device("cpu")
    before = usage(device)["rss_gib"]
    block = torch.ones(2**26, dtype=torch.uint8)
    after = usage(device)
    assert after["rss_gib"] - before == pytest.approx(1 / 16, rel=0.5)
    assert after["rss_peak_gib"] >= after["rss_gib"] - 0.01
    assert block.numel() == 2**26
