"""The loss: a mean over the rank's samples, in float32."""

import math

import pytest
import torch

from recd_dist.model.loss import click_loss


def test_by_hand() -> None:
    loss = click_loss(torch.tensor([0.0, math.log(3)]), torch.tensor([1.0, 0.0]))
    assert loss.item() == pytest.approx((math.log(2) + math.log(4)) / 2)


def test_half_precision_is_summed_in_float32() -> None:
    loss = click_loss(torch.zeros(3, dtype=torch.bfloat16), torch.ones(3))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(math.log(2))


def test_double_stays_double() -> None:
    assert click_loss(torch.zeros(1, dtype=torch.float64), torch.ones(1)).dtype == torch.float64


def test_shapes_that_differ() -> None:
    with pytest.raises(ValueError, match=r"logits have shape \(2,\), labels \(2, 1\)"):
        click_loss(torch.zeros(2), torch.zeros(2, 1))


def test_empty_batch() -> None:
    with pytest.raises(ValueError, match=r"an empty batch has no mean"):
        click_loss(torch.zeros(0), torch.zeros(0))
