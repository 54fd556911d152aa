"""The loss of a click model."""

import torch
import torch.nn.functional as F
from torch import Tensor


def click_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy, as the mean over this rank's samples; at least float32, whatever the logits' dtype.

    Data-parallel training averages gradients over ranks, so that the global loss is the mean of the ranks' means. It
    equals the mean over all samples when every rank has as many samples; the reader deals batches whose sizes differ by
    one at most.

    Args:
        logits: float [B], before the sigmoid.
        labels: float [B] in [0, 1].

    Raises:
        ValueError: the shapes differ, or the batch is empty (its mean would be nan).
    """
    if logits.shape != labels.shape:
        raise ValueError(f"loss: logits have shape {tuple(logits.shape)}, labels {tuple(labels.shape)}")
    if not logits.numel():
        raise ValueError("loss: an empty batch has no mean")
    dtype = torch.promote_types(logits.dtype, torch.float32)
    return F.binary_cross_entropy_with_logits(logits.to(dtype), labels.to(dtype))
