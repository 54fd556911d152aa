"""From the logits of a model to scores: probabilities, numbers in units of the label, or logits as they are."""

from collections.abc import Sequence

import torch
from torch import Tensor

from recd_dist.model.task import Task


def to_scores(logits: Tensor, tasks: Sequence[Task]) -> Tensor:
    """The scores of logits.

    Probabilities are those of a log with all its negatives, also where the training table has kept a share of them.

    Args:
        logits: float32 [B, T].
        tasks: a task for each column.

    Returns:
        float32 [B, T]: of a binary task the probability of label 1, of a regression the number in units of its label,
        else the logit.
    """
    columns = []
    for task, column in zip(tasks, logits.unbind(1), strict=True):
        factor, shift = task.scale
        score = column * factor + shift
        columns.append(torch.sigmoid(score) if task.loss == "binary" else score)
    return torch.stack(columns, 1)
