"""A moving average of the dense weights, which evaluation and prediction take in place of the weights themselves."""

import copy
from typing import cast

import torch
from torch import Tensor, nn


def copy_to_average(model: nn.Module) -> nn.Module:
    """A copy of a model whose weights will be averages; no optimizer and no all-reduce touches it.

    It is a module beside the model, so that it is saved, loaded and moved to a device with it.

    Args:
        model: the dense layers, with their initial weights.
    """
    averaged = copy.deepcopy(model).requires_grad_(False)
    return averaged.eval()


class MovingAverage:
    """Moves the averages towards the weights after each step.

    The first steps count more, so that the initial weights do not stay in the average for long: step n keeps the share
    (1 + n) / (10 + n) of the average, and ``decay`` once that is smaller.

    Args:
        averaged: what ``copy_to_average`` returned.
        model: the model that is trained.
        decay: the share of the average that stays, in (0, 1).
    """

    def __init__(self, averaged: nn.Module, model: nn.Module, decay: float) -> None:
        self._averages, self._weights = list(averaged.parameters()), list(model.parameters())
        self._kept, self._buffers = list(averaged.buffers()), list(model.buffers())
        self._decay = decay

    @torch.no_grad()
    def move(self, step: int) -> None:
        """Moves the averages; what a normalisation has collected in buffers, an average already, is copied.

        Args:
            step: the number of steps that were done before this one.
        """
        share = 1.0 - min(self._decay, (1.0 + step) / (10.0 + step))
        torch._foreach_lerp_(cast(list[Tensor], self._averages), cast(list[Tensor], self._weights), share)
        for kept, buffer in zip(self._kept, self._buffers, strict=True):
            kept.copy_(buffer)
