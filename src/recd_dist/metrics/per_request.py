"""Quality inside requests: AUC and NDCG of each request, exact with ties and weights, all requests at once.

A request counts where its samples differ in their labels: one of a single class says nothing of the order.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class RequestMeans:
    """Means over requests; nan where no request counts.

    Attributes:
        auc_per_request: the mean AUC, in which a request weighs the mean of its samples' weights: 1 without weights.
        gauc: the mean AUC, in which a request weighs the sum of its samples' weights (GAUC): their number without.
        ndcg: the mean NDCG of whole requests, weighed like ``auc_per_request``.
        num_requests: the requests that count.
    """

    auc_per_request: float = float("nan")
    gauc: float = float("nan")
    ndcg: float = float("nan")
    num_requests: int = 0


def measure_requests(requests: NDArray[np.int64], scores: Floats, labels: Floats, weights: Floats) -> RequestMeans:
    """Measures the order of the samples inside each request.

    Args:
        requests: int64 [N], the request of each sample.
        scores: float64 [N]; a higher score stands before a lower one.
        labels: float64 [N], at least 0; AUC takes 0 and 1 only and is nan for other labels.
        weights: float64 [N], at least 0.
    """
    if not len(labels) or np.isnan(scores).any():
        return RequestMeans()
    order = np.lexsort((scores, requests))
    request, score, label, weight = requests[order], scores[order], labels[order], weights[order]
    starts = _starts(request)
    sizes = np.diff(np.r_[starts, len(label)])
    sums = np.add.reduceat(weight, starts)
    differ = (np.maximum.reduceat(label, starts) > np.minimum.reduceat(label, starts)) & (sums > 0)
    is_binary = bool(np.isin(labels, (0, 1)).all())
    aucs = auc_by_request(request, score, label, weight) if is_binary else np.full(len(starts), np.nan)
    counted = differ & ~np.isnan(aucs) if is_binary else differ
    if not counted.any():
        return RequestMeans()
    per_request, per_sample = (sums / sizes)[counted], sums[counted]
    ndcgs = ndcg_by_request(request, score, label) if label.min() >= 0 else np.full(len(starts), np.nan)
    return RequestMeans(
        float(np.average(aucs[counted], weights=per_request)),
        float(np.average(aucs[counted], weights=per_sample)),
        float(np.average(ndcgs[counted], weights=per_request)),
        int(counted.sum()),
    )


def auc_by_request(request: NDArray[np.int64], score: Floats, label: Floats, weight: Floats) -> Floats:
    """The AUC of each request, in which a pair weighs the product of its weights, and a tie counts one half.

    Args:
        request: int64 [N], sorted.
        score: float64 [N], sorted inside each request.
        label: float64 [N], each 0 or 1.
        weight: float64 [N], at least 0.

    Returns:
        float64 [requests], in the order of the requests; nan where only one class has a weight.
    """
    positive, negative = weight * label, weight * (1 - label)
    places = _starts(request, score)  # of the ties
    starts = np.searchsorted(places, _starts(request))
    ups, downs = np.add.reduceat(positive, places), np.add.reduceat(negative, places)
    below = np.cumsum(downs) - downs
    below -= np.repeat(below[starts], np.diff(np.r_[starts, len(places)]))
    won = np.add.reduceat(ups * (below + downs / 2), starts)
    pairs = np.add.reduceat(ups, starts) * np.add.reduceat(downs, starts)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(pairs > 0, won / pairs, np.nan)


def ndcg_by_request(request: NDArray[np.int64], score: Floats, label: Floats) -> Floats:
    """The NDCG of each whole request, with the label as gain; ties share the mean of their places.

    Args:
        request: int64 [N], sorted.
        score: float64 [N], sorted inside each request.
        label: float64 [N], at least 0.

    Returns:
        float64 [requests], in the order of the requests; nan where all gains are 0.
    """
    starts = _starts(request)
    ends = np.r_[starts[1:], len(label)]
    until = np.r_[
        0.0, np.cumsum(1 / np.log2(np.arange(2, int((ends - starts).max()) + 2)))
    ]  # discounts of first places
    ties = _starts(request, score)
    tie_ends = np.r_[ties[1:], len(label)]
    end_of_request = np.repeat(ends, np.diff(np.searchsorted(ties, np.r_[starts, len(label)])))
    shared = until[end_of_request - ties] - until[end_of_request - tie_ends]  # the highest score has the first place
    found = np.add.reduceat(np.add.reduceat(label, ties) / (tie_ends - ties) * shared, np.searchsorted(ties, starts))
    best = label[np.lexsort((-label, request))]
    place = np.arange(len(label)) - np.repeat(starts, ends - starts)
    ideal = np.add.reduceat(best / np.log2(place + 2), starts)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(ideal > 0, found / ideal, np.nan)


def _starts(*columns: NDArray[np.generic]) -> NDArray[np.int64]:
    """Where rows begin that differ in a column from the row before, the first row included."""
    differ = np.zeros(len(columns[0]), bool)
    differ[:1] = True
    for column in columns:
        differ[1:] |= column[1:] != column[:-1]
    return np.flatnonzero(differ)
