"""Bytes that leave a rank, counted by direction."""

import pytest
import torch
import torch.distributed as dist

from recd_dist.metrics.traffic import DIRECTIONS, TrafficCounter
from recd_dist.ranks.process_group import process_group


@pytest.fixture
def world_of_four(monkeypatch: pytest.MonkeyPatch):
    """One process acts as rank 1 of 4; the collectives do nothing."""
    for name in ("all_to_all_single", "reduce_scatter_tensor", "all_gather_into_tensor", "all_gather", "all_reduce"):
        monkeypatch.setattr(dist, name, lambda *args, **kwargs: "done")
    monkeypatch.setattr(dist, "get_world_size", lambda group=None: 4)
    monkeypatch.setattr(dist, "get_rank", lambda group=None: 1)


def test_directions_and_own_share(world_of_four: None) -> None:
    ids, rows = torch.zeros(10, dtype=torch.int32), torch.zeros(10, 8)
    with TrafficCounter() as counter:
        assert dist.all_to_all_single(ids, ids, [1, 2, 3, 4], [1, 2, 3, 4]) == "done"
        dist.all_to_all_single(
            output=rows, input=rows, output_split_sizes=[10, 0, 0, 0], input_split_sizes=[5, 5, 0, 0]
        )
        dist.all_to_all_single(torch.zeros(8, dtype=torch.int64), torch.zeros(8, dtype=torch.int64))
        dist.reduce_scatter_tensor(rows, torch.zeros(40, 8))
        dist.all_reduce(torch.zeros(100))
        assert counter.num_collectives == 5
        assert counter.take() == {
            "input": 8 * 4,  # all but its own two ids
            "output": 5 * 8 * 4 + 30 * 8 * 4,
            "backward": 0,
            "splits": 6 * 8,
            "other": 2 * 3 * 100,
        }
        assert counter.take() == dict.fromkeys(DIRECTIONS, 0)


def test_gradients_are_another_direction_than_rows(world_of_four: None) -> None:
    class Exchange(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, grad):
            dist.all_to_all_single(grad, grad, [1, 1, 1, 1], [1, 1, 1, 1])
            return grad

    with TrafficCounter() as counter:
        Exchange.apply(torch.ones(4, 2, requires_grad=True)).sum().backward()
        assert counter.take()["backward"] == 3 * 2 * 4


def test_stock_functions_come_back() -> None:
    stock = dist.all_to_all_single
    counter = TrafficCounter()
    counter.install()
    counter.install()
    assert dist.all_to_all_single is not stock
    counter.uninstall()
    counter.uninstall()
    assert dist.all_to_all_single is stock


def test_one_rank_sends_nothing() -> None:
    with process_group("cpu"), TrafficCounter() as counter:
        dist.all_reduce(torch.ones(1000))
        dist.all_to_all_single(torch.ones(4), torch.ones(4))
        assert sum(counter.take().values()) == 0
