"""Whose samples a batch holds, for the loss ``in_batch``: their items and users, and how often items are drawn."""

from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from recd_dist.embedding.exchange.assemble import ids_of
from recd_dist.job.job import Job
from recd_dist.model.in_batch import InBatchSoftmax, ItemsAndUsers
from recd_dist.model.tower_choice import find_towers
from recd_dist.model.towers import Towers
from recd_dist.model.two_tower import single_ids
from recd_dist.ranks import progress
from recd_dist.ranks.process_group import Ranks
from recd_dist.reader.loader import Loader
from recd_dist.table.schema import Schema
from recd_dist.tensors.batch import Batch

COUNTED_AT_ONCE = 1 << 16
"""Samples of a rank that are read together when items are counted."""


class InBatchLosses:
    """The losses ``in_batch`` of a job's tasks; no parameters.

    Args:
        job: resolved config, of a model with towers.

    Attributes:
        item: the feature that names a sample's item.
    """

    def __init__(self, job: Job) -> None:
        self.item = item_feature(job)
        self._columns = {task.name: column for column, task in enumerate(job.tasks) if task.loss == "in_batch"}
        self._losses = {name: InBatchSoftmax(job.tasks[column]) for name, column in self._columns.items()}

    def __call__(self, towers: Towers, batch: Batch, labels: Tensor) -> dict[str, Tensor]:
        """For each of these tasks the losses of the samples, float [B]; a collective.

        Args:
            towers: the vectors of the batch.
            batch: the batch.
            labels: the labels of all tasks, float [B, T].
        """
        return {
            name: loss(towers, whose_samples(batch, self.item, loss.task.user), labels[:, self._columns[name]])
            for name, loss in self._losses.items()
        }

    def take_shares(self, log_q: Mapping[str, NDArray[np.float64]]) -> None:
        """Corrects negatives from now on by what ``count_item_shares`` has found."""
        for name, found in log_q.items():
            self._losses[name].log_q = found


def item_feature(job: Job) -> str:
    """The feature that names a sample's item, for a model with towers."""
    options = job.config.model
    return find_towers(job.schema, options.get("query"), options.get("item")).item[0]


def items_of(batch: Batch, feature: str) -> NDArray[np.int64]:
    """The single id of each sample, int64 [B] on the host; -1 where it has none."""
    return single_ids(ids_of(batch.sparse, feature))


def whose_samples(batch: Batch, item: str, user: str | None) -> ItemsAndUsers:
    """Items and users of a batch.

    Args:
        batch: the batch.
        item: the feature that names the item.
        user: the feature that says whose a sample is; None for its session.

    Raises:
        ValueError: the batch has no sessions.
    """
    if user is not None:
        return ItemsAndUsers(items_of(batch, item), items_of(batch, user))
    if batch.session_ids is None:
        raise ValueError("in_batch: this batch does not say whose its samples are; give it session_ids")
    return ItemsAndUsers(items_of(batch, item), batch.session_ids.numpy())


def count_item_shares(job: Job, ranks: Ranks, loader: Loader) -> dict[str, NDArray[np.float64]]:
    """The logarithm of each item's share among the candidates of a task, for tasks that ask for it; a collective.

    Every sample of the training table is read once, its item and labels alone.

    Args:
        job: resolved config.
        ranks: this rank.
        loader: this rank's samples, as ``narrow_to_items`` of the job reads them.

    Returns:
        By task float64 [ids of the item's table]; -inf for an item that is no candidate.
    """
    tasks = {task.name: (c, task) for c, task in enumerate(job.tasks) if task.loss == "in_batch" and task.log_q}
    item = item_feature(job)
    size = job.tables[str(job.schema[item].table)].num_embeddings
    counts = {name: np.zeros(size, np.int64) for name in tasks}
    with closing(loader):
        for batch in progress.reading(iter(loader)):
            items, labels = items_of(batch, item), batch.labels.numpy()
            for name, (_, task) in tasks.items():
                own = labels[:, job.schema.labels.index(task.label)]
                drawn = (np.isfinite(own) if task.candidates == "all" else own == 1) & (items >= 0)
                counts[name] += np.bincount(items[drawn], minlength=size)
    return {name: _log_shares(found, ranks) for name, found in counts.items()}


def narrow_to_items(job: Job) -> Job:
    """The job with the item as its only feature: what is read to count items."""
    return replace(job, schema=Schema((job.schema[item_feature(job)],), job.schema.labels))


def _log_shares(counts: NDArray[np.int64], ranks: Ranks) -> NDArray[np.float64]:
    whole = torch.from_numpy(counts).to(ranks.device)
    if ranks.world_size > 1:
        dist.all_reduce(whole)
    found = whole.cpu().numpy().astype(np.float64)
    with np.errstate(divide="ignore"):
        shares: NDArray[np.float64] = np.log(found) - np.log(max(found.sum(), 1.0))
    return shares
