"""What a model is trained for: its tasks, each on one label with a loss of its own. This file loads no torch."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

LOSSES = ("binary", "regression", "softmax", "in_batch")
"""Losses by name: of a label that is 0 or 1, of any number, of one candidate among those of its request, and of one
item among those of the batch."""

CANDIDATES = ("all", "positives")
NEGATIVES = ("all_ranks", "rank")
NO_POSITIVE = ("error", "skip")


@dataclass(frozen=True)
class Task:
    """One number that a model gives for each sample; the logits have a column for each task.

    Attributes:
        name: the name of the task in scores, curves and summaries.
        label: the column that it is trained on.
        loss: ``binary`` (log loss of a label that is 0 or 1), ``regression`` (squared error, in units of the label's
            variance), ``softmax`` (log loss of the candidates with label 1 among those of their request), or
            ``in_batch`` (log loss of the items with label 1 among those of the batch; for a model with towers).
        weight: the factor of this loss in the sum over the tasks.
        negatives_kept: the share of the samples with label 0 that the training table has kept, in (0, 1]; ``binary``.
        mean, std: mean and standard deviation of the label in the training table; ``regression``. The model gives
            ``(label - mean) / std``.
        candidates: ``in_batch``: whose items are negatives of others: ``all`` samples, or those of ``positives`` alone.
        negatives: ``in_batch``: items of ``all_ranks``, or those of a sample's own ``rank``.
        log_q: ``in_batch``: whether negatives count by how seldom the training table has them.
        user: ``in_batch``: the id feature that says whose a sample is; None for its session.
    """

    name: str
    label: str
    loss: str = "binary"
    weight: float = 1.0
    negatives_kept: float = 1.0
    mean: float = 0.0
    std: float = 1.0
    candidates: str = "all"
    negatives: str = "all_ranks"
    log_q: bool = True
    user: str | None = None

    @property
    def scale(self) -> tuple[float, float]:
        """What a logit is multiplied by, and what is then added, to score a log with all its negatives.

        A model that is trained on a share r of the negatives learns the odds p / (r (1 - p)). The odds without
        sampling are r times those, and so log(r) is added to the logit (He et al., 2014, section 6.3). A regression is
        brought back to the units of its label.
        """
        return self.std, self.mean + math.log(self.negatives_kept)

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict; ``Task.from_json`` is its inverse."""
        return asdict(self)

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> "Task":
        """The task that ``to_json`` wrote."""
        return Task(**value)
