"""How well items are found among all others: recall@K and NDCG@K of each positive, exact, by brute force.

::

    scores of a query   .9  .7  .7  .7  .2      its own item has .7, and so have two others
    places              1   2 to 4      5       it has each of the places 2, 3 and 4 with probability 1/3
    recall@2 = 1/3      ndcg@2 = 1/3 * 1/log2(1 + 2)

Ties share their places, so that a model which gives all items one score has recall@K = K / items.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

logger = logging.getLogger(__name__)

Floats = NDArray[np.float64]
_CELLS_AT_ONCE = 1 << 22
"""Scores that are in memory at a time: 32 MiB."""


@dataclass(frozen=True, eq=False)
class Places:
    """Where the items of positives stand among all items.

    Attributes:
        above: float64 [P], how many items have a higher score; nan where a score is none.
        tied: float64 [P], how many others have the same score.
        losses: float64 [P], -log of the item's share in the softmax over all items, in nats.
    """

    above: Floats
    tied: Floats
    losses: Floats


def place_items(
    queries: Tensor, items: Tensor, own: NDArray[np.int64], left_out: tuple[NDArray[np.int64], NDArray[np.int64]]
) -> Places:
    """Compares the item of each positive with all items.

    Scores are summed up in float64 and rounded to float32, so that equal vectors tie wherever they stand.

    Args:
        queries: float [P, D], the query of each positive.
        items: float [I, D], the vectors of all items.
        own: int64 [P], the number of each positive's item.
        left_out: numbers of positives, ascending, and of items that do not compete with theirs, such as other positives
            of the same request.
    """
    vectors, size = items.double().T.contiguous(), max(1, _CELLS_AT_ONCE // max(1, len(items)))
    above, tied, losses = (np.empty(len(own)) for _ in range(3))
    for start in range(0, len(own), size):
        end = min(start + size, len(own))
        scores = (queries[start:end].double() @ vectors).float()
        first, last = np.searchsorted(left_out[0], (start, end))
        rows, columns = (torch.from_numpy(of[first:last]).to(scores.device) for of in left_out)
        scores[rows - start, columns] = -torch.inf
        mine = scores.gather(1, torch.from_numpy(own[start:end, None]).to(scores.device))
        higher, same = (scores > mine).sum(1).double(), (scores == mine).sum(1).double() - 1
        missing = ~torch.isfinite(scores.masked_fill(scores == -torch.inf, 0.0)).all(1)
        above[start:end] = higher.masked_fill(missing, torch.nan).cpu().numpy()
        tied[start:end] = same.cpu().numpy()
        losses[start:end] = (scores.double().logsumexp(1) - mine[:, 0].double()).cpu().numpy()
    return Places(above, tied, losses)


def measure_retrieval(places: Places, weights: ArrayLike | None, top: Sequence[int], num_items: int) -> dict[str, Any]:
    """Recall and NDCG at some lengths of the list, over all positives; nan where there are none.

    Args:
        places: where the items of the positives stand.
        weights: float [P], how much each positive counts, at least 0; None counts each once.
        top: the lengths K.
        num_items: the number of items that were compared.
    """
    w = np.ones(len(places.above)) if weights is None else np.asarray(weights, np.float64)
    known = w.sum() > 0 and not np.isnan(places.above).any()
    if np.isnan(places.above).any():
        logger.warning("%d of %d scores are nan: recall undefined", np.isnan(places.above).sum(), len(w))

    def mean(numbers: Floats) -> float:
        return float(np.average(numbers, weights=w)) if known else float("nan")

    above, among = np.nan_to_num(places.above).astype(np.int64), np.maximum(places.tied, 0).astype(np.int64) + 1
    gains = np.r_[0.0, np.cumsum(1 / np.log2(np.arange(2, max(top) + 2)))]  # of the first n places
    numbers: dict[str, Any] = {}
    for k in top:
        first, last = np.minimum(above, k), np.minimum(above + among, k)
        numbers[f"recall@{k}"] = mean((last - first) / among)
        numbers[f"ndcg@{k}"] = mean((gains[last] - gains[first]) / among)
    return {**numbers, "loss": mean(places.losses), "num_positives": len(w), "num_items": num_items}
