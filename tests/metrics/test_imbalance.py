"""What ranks have over their mean, by a clock that the test moves; with several ranks: tests/dist/test_balance.py."""

import torch

from recd_dist.metrics.imbalance import Imbalance, find_worst


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_one_rank_is_even_and_what_is_no_step_does_not_count() -> None:
    clock = Clock()
    imbalance = Imbalance(torch.device("cpu"), clock)
    clock.now += 1.0
    imbalance.count_step({"ids": 5.0})
    clock.now += 100.0
    imbalance.restart()
    clock.now += 2.0
    imbalance.count_step({"ids": 7.0})
    assert imbalance._steps == [[1.0, 5.0], [2.0, 7.0]]
    assert imbalance.compute() == {"computing": 1.0, "ids": 1.0}
    assert imbalance.compute() == {}
    assert imbalance.total == {"computing": 1.0, "ids": 1.0}


def test_where_the_device_computes_only_the_work_is_compared() -> None:
    imbalance = Imbalance(torch.device("cpu"), clock=None)
    imbalance.count_step({"ids": 5.0, "unique_rows": 0.0})
    assert imbalance.compute() == {"ids": 1.0}


def test_nothing_is_known_before_a_step() -> None:
    imbalance = Imbalance(torch.device("cpu"))
    assert imbalance.total == {}
    imbalance.count_step({"ids": 5.0})
    imbalance.forget()
    assert imbalance.compute() == {}


def test_the_worst_is_that_of_computing_where_it_is_known() -> None:
    assert find_worst({"computing": 1.2, "ids": 1.5}) == 1.2
    assert find_worst({"ids": 1.5}) == 1.5
    assert find_worst({}) == 1.0
