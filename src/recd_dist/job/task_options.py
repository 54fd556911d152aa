"""Options of a task: what the model predicts from one label, and how it is trained for it."""

from dataclasses import dataclass


@dataclass
class TaskOptions:
    """What the model predicts from one label; docs/tasks.md."""

    label: str | None = None  # the column; None: the name of the task
    loss: str = "binary"  # binary, regression, softmax over the candidates of a request, in_batch for model=two_tower
    weight: float = 1.0  # factor of the loss in the sum over the tasks
    negatives_kept: float = 1.0  # binary: share of the negatives in the table; predictions make up for the rest
    no_positive: str = "error"  # softmax: or skip, requests without a positive
    candidates: str = "all"  # in_batch: the samples whose items are negatives; or positives
    negatives: str = "all_ranks"  # in_batch: or rank, those of the rank's own batch
    log_q: bool = True  # in_batch: negatives count by how seldom the training table has them
    user: str | None = None  # in_batch: the id feature of whose items none is a negative of another; None: the session
