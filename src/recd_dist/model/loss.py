"""The losses of the tasks: masked where a label is missing, weighted, and the mean over the samples of all ranks.

::

    label    1    0    nan  1     nan: this sample says nothing of this task
    weight   2    1    1    .5    of the sample, 1 where the table has none
    counts   2    1    0    .5    loss of the task = sum(counts * losses) / sum(counts)

Data-parallel training averages gradients over ranks. Where the sums of counts differ from rank to rank, a mean of the
ranks' means is not the mean over all samples: samples of a rank with few labels would count more. So the sums are added
up over the ranks, and each rank divides its part by a rank's share of the whole. The sums follow from labels and
weights alone: they travel while the model computes, and no host waits for a device. Where every label of every sample
is there, none has a weight and batches are cut by samples, every rank has as many but for one, and nothing travels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from recd_dist.errors import ConfigError
from recd_dist.model.task import Task


@dataclass(frozen=True, eq=False)
class Counts:
    """How much each sample counts in each task, and the sums that travel.

    Attributes:
        weights: float [B, T]; 0 where the label is missing, and for a choice of a candidate with label 0.
        shares: float [T], the sum that a rank divides by: its own, or the mean over the ranks once ``wait`` returned.
        work: the collective under way, if any.
        num_ranks: the ranks whose sums are added up.
    """

    weights: Tensor
    shares: Tensor
    work: Any = None
    num_ranks: int = 1

    def wait(self) -> Tensor:
        """The sums to divide by, float [T]; on CUDA only the stream waits for them."""
        if self.work is not None:
            self.work.wait()
        return self.shares / self.num_ranks


class TaskLosses(nn.Module):
    """The losses of some tasks; it has no parameters and nothing to save.

    Args:
        tasks: the tasks, in the order of the logits' columns.
        columns: for each task the column of its label in a batch's labels.
        weight: the column that holds the samples' weights; None where every sample counts once.
        over_ranks: whether sums of counts may differ between ranks by more than a sample: labels are missing, samples
            have weights, a task is a choice, or batches are cut by work.

    Attributes:
        factors: float [T], the weight of each task in the sum.
        is_choice: bool [T], whether only samples with label 1 count: of a ``softmax`` and of ``in_batch``.
        in_batch: for each task of the loss ``in_batch`` its column.
    """

    factors: Tensor
    is_choice: Tensor

    def __init__(
        self, tasks: Sequence[Task], columns: Sequence[int], weight: int | None = None, over_ranks: bool = False
    ) -> None:
        super().__init__()
        self.tasks, self.columns, self.weight = tuple(tasks), list(columns), weight
        is_choice = [task.loss in ("softmax", "in_batch") for task in tasks]
        self.needs_requests = any(task.loss == "softmax" for task in tasks)
        self.in_batch = {task.name: number for number, task in enumerate(tasks) if task.loss == "in_batch"}
        self.has_choices = any(is_choice)
        self.over_ranks = over_ranks or weight is not None or self.has_choices
        self.register_buffer("factors", torch.tensor([float(task.weight) for task in tasks]), persistent=False)
        self.register_buffer("is_choice", torch.tensor(is_choice), persistent=False)

    def labels_of(self, labels: Tensor) -> Tensor:
        """The labels of the tasks, float32 [B, T]; nan where one is missing.

        Args:
            labels: the labels of a batch, float32 [B, number of labels].
        """
        if self.columns == list(range(labels.shape[1])):
            return labels
        return torch.stack([labels[:, column] for column in self.columns], 1)

    def weigh(self, labels: Tensor) -> Tensor:
        """The weight of each sample in each task, float32 [B, T]; 0 where the label is missing.

        Args:
            labels: the labels of a batch, float32 [B, number of labels].
        """
        known = torch.isfinite(self.labels_of(labels)).to(labels.dtype)
        return known if self.weight is None else known * labels[:, self.weight, None]

    def count(self, labels: Tensor) -> Counts:
        """Says how much each sample counts, and starts to add up the sums of all ranks: a collective.

        Args:
            labels: the labels of a batch, float32 [B, number of labels].
        """
        counts = self.weigh(labels)
        if self.has_choices:
            counts = counts * torch.where(self.is_choice, torch.nan_to_num(self.labels_of(labels)), 1.0)
        sums = counts.sum(0)
        if self.over_ranks and dist.is_initialized() and dist.get_world_size() > 1:
            return Counts(counts, sums, dist.all_reduce(sums, async_op=True), dist.get_world_size())
        return Counts(counts, sums)

    def forward(
        self,
        logits: Tensor,
        labels: Tensor,
        counts: Counts,
        requests: Tensor | None = None,
        in_batch: Mapping[str, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The weighted sum of the tasks' losses, and each of them.

        Args:
            logits: float [B, T].
            labels: the labels of a batch, float32 [B, number of labels].
            counts: of this batch.
            requests: int64 [B], the number of each sample's request in the batch, counted from 0; for ``softmax``.
            in_batch: for each task of that loss the losses of the samples, float [B].

        Returns:
            The loss, and float [T], the loss of each task without its factor; at least float32, whatever the logits'
            dtype. Their means over the ranks are those over all samples.

        Raises:
            ConfigError: the model gives logits of another shape.
            ValueError: the batch is empty (its mean would be nan).
        """
        wanted = self.labels_of(labels)
        if logits.shape != wanted.shape:
            raise ConfigError(
                f"model: its logits have shape {list(logits.shape)}, wanted is {list(wanted.shape)}: a row a sample "
                f"and a column a task ({', '.join(task.name for task in self.tasks)})"
            )
        if not len(logits):
            raise ValueError("loss: an empty batch has no mean")
        dtype = torch.promote_types(logits.dtype, torch.float32)
        logits, known = logits.to(dtype), torch.isfinite(wanted)
        targets = torch.where(known, wanted, 0.0).to(dtype)
        parts = [
            (in_batch or {})[task.name].to(dtype)
            if task.loss == "in_batch"
            else _losses_of(task, logits[:, t], targets[:, t], known[:, t], requests)
            for t, task in enumerate(self.tasks)
        ]
        sums = (torch.stack(parts, 1) * counts.weights.to(dtype)).sum(0)
        shares = counts.wait().to(dtype)
        losses = sums / torch.where(shares > 0, shares, 1.0)
        return (losses * self.factors).sum(), losses.detach()


def _losses_of(task: Task, logits: Tensor, targets: Tensor, known: Tensor, requests: Tensor | None) -> Tensor:
    """The loss of each sample in one task, float [B]; where the label is missing, any finite number."""
    if task.loss == "binary":
        return F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    if task.loss == "regression":
        return (logits - (targets - task.mean) / task.std).square()
    if requests is None:
        raise ValueError(f"loss: task '{task.name}' is a softmax over requests, and no requests are given")
    return request_log_loss(logits, known, requests)


def request_log_loss(logits: Tensor, known: Tensor, requests: Tensor) -> Tensor:
    """The log loss of choosing each sample among the samples of its request: -log softmax, float [B].

    Args:
        logits: float [B].
        known: bool [B]; a sample with False is no candidate, and its own loss is any finite number.
        requests: int64 [B], the number of each sample's request, less than B; samples of a request lie anywhere.
    """
    size = len(logits)
    low = torch.finfo(logits.dtype).min
    tops = logits.new_full((size,), low).scatter_reduce(0, requests, logits.detach().masked_fill(~known, low), "amax")
    above = logits - torch.where(tops > low, tops, 0.0).index_select(0, requests)
    shares = above.masked_fill(~known, -torch.inf).exp()
    totals = logits.new_zeros(size).index_add(0, requests, shares)
    return torch.where(totals > 0, totals, 1.0).log().index_select(0, requests) - above
