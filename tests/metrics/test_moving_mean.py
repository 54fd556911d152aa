"""A number counts half after the half-life."""

import math

import torch

from recd_dist.metrics.moving_mean import MovingMean


def test_a_number_halves_in_the_half_life() -> None:
    loss = MovingMean(half_life=2)
    assert math.isnan(loss.value())
    for number in (1.0, 0.0, 0.0):
        loss.update(torch.tensor(number))
    assert abs(loss.value() - 0.5) < 1e-6
