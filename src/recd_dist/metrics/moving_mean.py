"""A moving mean of a number per step, such as the loss that is shown."""

import math

import torch
from torch import Tensor


class MovingMean:
    """An exponential moving mean, kept on the device: the host does not wait for it before ``value``.

    Args:
        half_life: the number of steps after which a number counts half.
    """

    def __init__(self, half_life: float = 10.0) -> None:
        self._decay = 0.5 ** (1.0 / half_life)
        self._sum: Tensor | None = None

    def update(self, number: Tensor) -> None:
        """Adds the number of a step, or several numbers: a tensor of the same shape each time."""
        number = number.detach().float()
        self._sum = number.clone() if self._sum is None else torch.lerp(number, self._sum, self._decay)

    def values(self) -> list[float]:
        """The means of several numbers so far; empty before the first ``update``."""
        return [] if self._sum is None else self._sum.tolist()

    def value(self) -> float:
        """The mean of the numbers so far; nan before the first ``update``."""
        return float(self._sum) if self._sum is not None else math.nan
