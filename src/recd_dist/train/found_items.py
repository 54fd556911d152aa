"""The vectors of a split: each positive sample's item is looked for among all distinct items, exactly.

::

    batches of a rank --> query of each positive, vector of each item --.
                                                                        '--> all items on every rank
    places of a rank's own positives among all items <------------------'

An item has the vector of its latest sample. Items that the same request has as other positives do not compete with a
positive: they are not wrong. An item that a request has twice is one positive.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recd_dist.job.job import Job
from recd_dist.metrics.gather import gather_on_every_rank, gather_on_first_rank
from recd_dist.metrics.retrieval import Places, measure_retrieval, place_items
from recd_dist.model.in_batch import find_own_positives
from recd_dist.model.towers import TowerRows
from recd_dist.tensors.batch import Batch
from recd_dist.train.build import Output
from recd_dist.train.items_of_samples import item_feature, items_of

Integers = NDArray[np.int64]
_MOST_ROWS = 1 << 16
"""Vectors that may wait before those of repeated items are let go."""


@dataclass
class _Items:
    """The latest vector of each item, as far as seen: ids and samples int64 [n], vectors float [n, D]."""

    ids: list[Integers] = field(default_factory=list)
    samples: list[Integers] = field(default_factory=list)
    vectors: list[Tensor] = field(default_factory=list)
    num_kept: int = 0

    def add(self, ids: Integers, samples: Integers, rows: TowerRows) -> None:
        chosen = latest(ids, samples)
        chosen = chosen[ids[chosen] >= 0]
        index = torch.from_numpy(rows.row_of_sample[chosen]).to(rows.values.device)
        self._append(ids[chosen], samples[chosen], rows.values.index_select(0, index))
        if sum(map(len, self.ids)) > 2 * self.num_kept + _MOST_ROWS:
            self.num_kept = len(self.whole()[0])

    def _append(self, ids: Integers, samples: Integers, vectors: Tensor) -> None:
        self.ids.append(ids)
        self.samples.append(samples)
        self.vectors.append(vectors)

    def whole(self) -> tuple[Integers, Integers, Tensor]:
        """All items, each once, sorted by their ids."""
        ids, samples, vectors = np.concatenate(self.ids), np.concatenate(self.samples), torch.cat(self.vectors)
        chosen = latest(ids, samples)
        self.ids, self.samples, self.vectors = [], [], []
        self._append(ids[chosen], samples[chosen], vectors[torch.from_numpy(chosen).to(vectors.device)])
        return self.ids[0], self.samples[0], self.vectors[0]


@dataclass
class _Positives:
    """The positives of a task: facts int64 [n, 3] (request, item, sample), weights float [n], queries float [n, D]."""

    facts: list[Integers] = field(default_factory=list)
    weights: list[NDArray[np.float64]] = field(default_factory=list)
    queries: list[Tensor] = field(default_factory=list)


class Retrieval:
    """Collects the vectors of a split, batch by batch, and measures how well items are found.

    Args:
        columns: for each task that is measured the column of its label in a batch's labels.
        item: the feature that names a sample's item.
        top: the lengths K of the lists.
        weight: the column of the samples' weights; None where each counts once.
    """

    def __init__(self, columns: dict[str, int], item: str, top: Sequence[int], weight: int | None = None) -> None:
        self._columns, self._item, self._top, self._weight = columns, item, top, weight
        self._items = _Items()
        self._positives = {task: _Positives() for task in columns}

    def add(self, batch: Batch, output: Output) -> None:
        """Adds a batch.

        Args:
            batch: the batch, on any device.
            output: what the model gave for it, with towers.

        Raises:
            ValueError: the model has no towers.
        """
        if output.towers is None:
            raise ValueError("retrieval: the model has given no vectors")
        ids, samples, requests = items_of(batch, self._item), batch.sample_ids.numpy(), batch.request_ids.numpy()
        query, labels = TowerRows.of(output.towers.query), batch.labels.cpu().numpy()
        self._items.add(ids, samples, TowerRows.of(output.towers.item))
        for task, column in self._columns.items():
            chosen, positives = np.flatnonzero((labels[:, column] == 1) & (ids >= 0)), self._positives[task]
            index = torch.from_numpy(query.row_of_sample[chosen]).to(query.values.device)
            positives.facts.append(np.stack([requests, ids, samples], 1)[chosen])
            weights = np.ones(len(ids)) if self._weight is None else labels[:, self._weight].astype(np.float64)
            positives.weights.append(weights[chosen])
            positives.queries.append(query.values.index_select(0, index))

    def finish(self) -> dict[str, dict[str, Any]] | None:
        """The numbers of each task on rank 0, None on the others; a collective, after at least one batch."""
        ids, samples, vectors = self._items.whole()
        device = vectors.device
        known = {"ids": torch.from_numpy(ids).to(device), "samples": torch.from_numpy(samples).to(device)}
        gathered = gather_on_every_rank({**known, "vectors": vectors})
        all_ids, all_samples = (gathered[name].cpu().numpy() for name in ("ids", "samples"))
        chosen = latest(all_ids, all_samples)
        corpus = gathered["vectors"][torch.from_numpy(chosen).to(device)]
        numbers = {task: self._measure(of, all_ids[chosen], corpus) for task, of in self._positives.items()}
        return None if any(of is None for of in numbers.values()) else {t: of for t, of in numbers.items() if of}

    def _measure(self, of_task: _Positives, ids: Integers, corpus: Tensor) -> dict[str, Any] | None:
        facts, weights = np.concatenate(of_task.facts), np.concatenate(of_task.weights)
        queries = torch.cat(of_task.queries)
        pairs = gather_on_every_rank({"facts": torch.from_numpy(facts).to(corpus.device)})["facts"].cpu().numpy()
        order = np.lexsort((pairs[:, 2], pairs[:, 1], pairs[:, 0]))
        pairs = pairs[order]
        is_first = np.ones(len(pairs), bool)
        is_first[1:] = (pairs[1:, :2] != pairs[:-1, :2]).any(1)
        pairs = pairs[is_first]
        kept = np.isin(facts[:, 2], pairs[:, 2])  # of an item that a request has twice the first sample
        facts, weights, queries = facts[kept], weights[kept], queries[torch.from_numpy(kept).to(queries.device)]
        own = np.searchsorted(ids, facts[:, 1])
        asked, columns = find_own_positives(facts[:, 0], pairs[:, :2], ids)
        others = columns != own[asked]
        places = place_items(queries, corpus, own, (asked[others], columns[others]))
        found = {"above": places.above, "tied": places.tied, "losses": places.losses, "weights": weights}
        whole = gather_on_first_rank({n: torch.from_numpy(of).to(corpus.device) for n, of in found.items()})
        if whole is None:
            return None
        placed = Places(*(np.asarray(whole[n], np.float64) for n in ("above", "tied", "losses")))
        return measure_retrieval(placed, whole["weights"], self._top, len(ids))


def latest(ids: Integers, samples: Integers) -> Integers:
    """For each distinct id the place of its latest sample, in the order of the ids.

    Args:
        ids: int64 [n].
        samples: int64 [n], of which more is later.
    """
    order = np.lexsort((samples, ids))
    is_last = np.ones(len(ids), bool)
    is_last[:-1] = ids[order][1:] != ids[order][:-1]
    return order[is_last]


def retrieval_of(job: Job, top: Sequence[int]) -> Retrieval | None:
    """What measures retrieval in an evaluation of a job; None where no task has the loss ``in_batch``.

    Args:
        job: the job, whose labels a batch has.
        top: the lengths K of the lists.
    """
    columns = {task.name: job.schema.labels.index(task.label) for task in job.tasks if task.loss == "in_batch"}
    weight = None if job.weight is None else job.schema.labels.index(job.weight)
    return Retrieval(columns, item_feature(job), top, weight) if columns else None
