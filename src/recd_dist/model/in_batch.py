"""The loss ``in_batch``: a sample with label 1 is a choice of its item among the items of the batch, of all ranks.

::

    loss of a positive sample = -log  e^s / (e^s + sum over the negatives j of n_j / (N p_j) e^s_j)

    s      the score of its query and its own item
    n_j    how often item j was drawn: samples of the batch that are candidates and have it; N: all of them
    p_j    the share of item j among the candidates of the whole training table; without ``log_q`` n_j counts alone

A batch holds popular items more often than others. Divided by what is expected, N p_j, its negatives estimate the sum
over all items of the table, each once (sampled softmax, Bengio and Senecal, 2003; the correction by log p of Yi et al.,
2019). The item itself is there for sure and is not drawn: its weight is 1. To divide it by its share too, as is common,
makes the loss of rare items small (Khrylchenko et al., 2025).

Items that a sample's user has as positives in the batch, on whatever rank, are no negatives of it: they are not wrong.
Its own item is one of them, in whatever sample. So the negatives of a sample are those of its query's row and user, and
their sum is computed once for each such pair: ``loss = softplus(log sum - s)``.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from recd_dist.model.rows_of_ranks import gather_numbers, gather_rows_of_ranks, num_ranks
from recd_dist.model.task import Task
from recd_dist.model.towers import TowerRows, Towers
from recd_dist.tensors.expansion import expand_rows
from recd_dist.tensors.host_side import host_integers
from recd_dist.tensors.slots import take_distinct

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ItemsAndUsers:
    """Whose samples these are, on the host.

    Attributes:
        items: int64 [B], the id that names each sample's item; -1 where it has none: then it takes no part.
        users: int64 [B], the user, or the session.
    """

    items: Integers
    users: Integers


@dataclass(frozen=True, eq=False)
class _Candidates:
    """The item rows that are candidates, those of all ranks where they are wanted.

    Attributes:
        items: int64 [I], the item of each row.
        draws: int64 [I], how many samples of its rank have it.
        sizes: the number of rows of each rank.
        positives: int64 [P, 2], the distinct pairs of user and item that are positives.
    """

    items: Integers
    draws: Integers
    sizes: list[int]
    positives: Integers


class InBatchSoftmax:
    """The loss of one task; it has no parameters.

    Args:
        task: the task, with what it says of candidates and negatives.
        log_q: float64 [ids], the logarithm of each item's share among the candidates of the training table; None to
            count every draw once.
    """

    def __init__(self, task: Task, log_q: Floats | None = None) -> None:
        self.task, self.log_q = task, log_q

    def __call__(self, towers: Towers, whose: ItemsAndUsers, labels: Tensor) -> Tensor:
        """The loss of each positive sample, float [B]; 0 for all others, and where nothing is a negative. A collective.

        Args:
            towers: the vectors of this rank's samples, in float32 at least.
            whose: items and users of the samples.
            labels: [B], 1 for a positive, 0, or nan where it is not known.
        """
        known = labels.detach().cpu().numpy()
        has_item = whose.items >= 0  # an id that is outside its table was left out
        positive = (known == 1) & has_item
        drawn = np.isfinite(known) & has_item if self.task.candidates == "all" else positive
        query, item = TowerRows.of(towers.query), TowerRows.of(towers.item)
        kept, column = np.unique(item.row_of_sample[drawn], return_inverse=True)
        own = take_distinct(item.values, host_integers(kept, item.values))
        columns = np.full(len(known), -1, np.int64)
        columns[drawn] = column
        candidates = self._gather(whose, positive, drawn, columns, len(kept), own.device)
        vectors = gather_rows_of_ranks(own, candidates.sizes) if self._is_over_ranks else own
        return self._losses(query, own, vectors, candidates, whose, positive, columns)

    @property
    def _is_over_ranks(self) -> bool:
        return self.task.negatives == "all_ranks" and num_ranks() > 1

    def _gather(
        self,
        whose: ItemsAndUsers,
        positive: NDArray[np.bool_],
        drawn: NDArray[np.bool_],
        columns: Integers,
        num_rows: int,
        device: torch.device,
    ) -> _Candidates:
        """What all ranks must know of each other's items: two rows of numbers, one a candidate, one a positive."""
        items, draws = np.zeros(num_rows, np.int64), np.bincount(columns[drawn], minlength=num_rows)
        items[columns[drawn]] = whose.items[drawn]
        pairs = np.unique(np.stack([whose.users[positive], whose.items[positive]], 1), axis=0)
        if not self._is_over_ranks:
            return _Candidates(items, draws, [num_rows], pairs)
        # One message: rows of three numbers, of which the first says what they are.
        rows = np.stack([np.zeros(num_rows, np.int64), items, draws], 1)
        sent = np.concatenate([rows, np.insert(pairs, 0, 1, axis=1)])
        found = gather_numbers(sent, device)
        of_ranks = [part[part[:, 0] == 0] for part in found]
        together = np.concatenate(of_ranks)
        positives = np.unique(np.concatenate([part[part[:, 0] == 1, 1:] for part in found]), axis=0)
        return _Candidates(together[:, 1], together[:, 2], [len(part) for part in of_ranks], positives)

    def _losses(
        self,
        query: TowerRows,
        own: Tensor,
        vectors: Tensor,
        candidates: _Candidates,
        whose: ItemsAndUsers,
        positive: NDArray[np.bool_],
        columns: Integers,
    ) -> Tensor:
        samples = np.flatnonzero(positive)
        pairs, of_sample = np.unique(
            np.stack([query.row_of_sample[samples], whose.users[samples]], 1), axis=0, return_inverse=True
        )
        asked, column = find_own_positives(pairs[:, 1], candidates.positives, candidates.items)
        has_negatives = np.bincount(asked, minlength=len(pairs)) < len(candidates.items)
        kept = has_negatives[of_sample.reshape(-1)]
        place = np.cumsum(has_negatives) - 1  # of each pair among those that have negatives
        losses = own.new_zeros(len(positive))
        queries = expand_rows(query.values, host_integers(pairs[has_negatives, 0], own))
        if not kept.any():  # other ranks wait for the gradients of their rows, and the towers for theirs
            return losses + queries[:0].sum() + vectors[:0].sum() + own[:0].sum()
        alive = has_negatives[asked]
        masked = place[asked[alive]] * len(candidates.items) + column[alive]
        log_sums = log_sum_of_negatives(queries, vectors, self._log_weights(candidates), masked)
        chosen = host_integers(place[of_sample.reshape(-1)[kept]], own)
        itself = expand_rows(own, host_integers(columns[samples[kept]], own))
        scores = (expand_rows(queries, chosen) * itself).sum(1)
        return losses.index_copy(
            0, host_integers(samples[kept], own), -F.logsigmoid(scores - log_sums.index_select(0, chosen))
        )

    def _log_weights(self, candidates: _Candidates) -> Floats:
        """The logarithm of what each row counts as a negative, float64 [I]."""
        weights = np.log(candidates.draws.astype(np.float64))
        if self.log_q is None:
            return weights
        corrected: Floats = weights - np.log(float(candidates.draws.sum())) - self.log_q[candidates.items]
        return corrected


def find_own_positives(users: Integers, positives: Integers, items: Integers) -> tuple[Integers, Integers]:
    """The columns that are no negatives: those of items that a user has as positives.

    Args:
        users: int64 [Q], the user of each query.
        positives: int64 [P, 2], distinct pairs of user and item, sorted.
        items: int64 [I], the item of each column.

    Returns:
        Two int64 [n], the numbers of queries and of columns, each pair once.
    """
    queries, places = _join(users, positives[:, 0])
    order = np.argsort(items, kind="stable")
    found, columns = _join(positives[places, 1], items[order])
    return queries[found], order[columns]


def _join(left: Integers, right: Integers) -> tuple[Integers, Integers]:
    """For each number on the left all its places on the right, which is sorted: places left, and places right."""
    first, last = np.searchsorted(right, left, "left"), np.searchsorted(right, left, "right")
    counts = last - first
    lefts = np.repeat(np.arange(len(left)), counts)
    within = np.arange(len(lefts)) - np.repeat(np.cumsum(counts) - counts, counts)
    return lefts, first[lefts] + within


def log_sum_of_negatives(queries: Tensor, vectors: Tensor, log_weights: Floats, masked: Integers) -> Tensor:
    """The logarithm of the weighted sum of e^score over the negatives of each query, float [Q].

    Args:
        queries: float [Q, D], at least one, each with a negative.
        vectors: float [I, D].
        log_weights: float64 [I], the logarithm of each column's weight.
        masked: int64, the cells of [Q, I] that are no negatives, as places in the flat matrix.
    """
    weights = torch.from_numpy(log_weights).to(queries.device, queries.dtype)
    bias = weights.expand(len(queries), -1).clone()
    bias.view(-1).index_fill_(0, host_integers(masked, queries), -torch.inf)
    return torch.addmm(bias, queries, vectors.T).logsumexp(1)
