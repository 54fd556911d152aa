"""Rates by a clock that the test moves."""

import itertools

import torch

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

    for num_samples in speed.time_reads(reader()):
        clock.now += 3.0
        speed.count_step(num_samples)
    assert speed.compute() == {"samples_per_s": 25.0, "step_ms": 4000.0, "reader_wait_share": 0.25}
    assert speed.samples_per_s == 25.0


def test_each_rate_is_since_the_last_and_totals_add_up() -> None:
    clock = Clock()
    speed = Speed(torch.device("cpu"), clock)
    for seconds, expected in ((1.0, 10.0), (4.0, 2.5)):
        clock.now += seconds
        speed.count_step(10)
        assert speed.compute()["samples_per_s"] == expected
    assert speed.samples_per_s == 4.0


def test_restart_leaves_out_an_evaluation() -> None:
    clock = Clock()
    speed = Speed(torch.device("cpu"), clock)
    clock.now += 100.0
    speed.restart()
    clock.now += 2.0
    speed.count_step(10)
    assert speed.compute()["samples_per_s"] == 5.0


def test_timed_reads_end_with_the_reader() -> None:
    assert list(Speed(torch.device("cpu")).time_reads(iter([1, 2]))) == [1, 2]
    assert list(itertools.islice(Speed(torch.device("cpu")).time_reads(itertools.count()), 2)) == [0, 1]


def test_no_step_yet() -> None:
    speed = Speed(torch.device("cpu"))
    assert speed.compute()["samples_per_s"] == 0.0
