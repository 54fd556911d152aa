"""A number of every step, smoothed: the loss on the progress bar and on the board."""

import math

import torch
from torch import Tensor


class Smoothed:
    """An exponential mean of a tensor, kept on its device: no waiting for the device until ``value``.

    Args:
        half_life: steps after which a number counts half.
    """

    def __init__(self, half_life: float = 10.0) -> None:
        self._decay = 0.5 ** (1.0 / half_life)
        self._sum: Tensor | None = None

    def update(self, number: Tensor) -> None:
        """Takes a step's number, a tensor of one element."""
        number = number.detach().float()
        self._sum = number.clone() if self._sum is None else torch.lerp(number, self._sum, self._decay)

    def value(self) -> float:
        """The mean so far; nan before the first ``update``."""
        return float(self._sum) if self._sum is not None else math.nan
