"""How good predictions are, exactly: all predictions of a table are sorted once, and ties count as they should.

A constant prediction has AUC 0.5. Samples without a label are left out, and every number takes the samples' weights.
"""

import logging
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recd_dist.metrics.per_request import RequestMeans, auc_by_request, measure_requests

logger = logging.getLogger(__name__)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Quality:
    """Exact numbers over the samples of a table that have the label; nan where they are undefined.

    Attributes:
        num_samples: the number of predictions.
        loss: the mean log loss, in nats.
        ne: the normalised entropy, which is the loss divided by the loss of always predicting the base rate; below 1 is
            better than the base rate.
        auc: the area under the ROC curve; a tie counts one half.
        auc_per_request: the mean AUC over the requests that have both labels (AUC per impression).
        gauc: the same, with requests weighed by their samples.
        ndcg: the mean NDCG over these requests.
        num_requests: the number of requests in these means.
        calibration: the sum of the predictions divided by the sum of the labels; 1 is right.
        base_rate: the mean of the labels.
    """

    num_samples: int
    loss: float
    ne: float
    auc: float
    auc_per_request: float
    gauc: float
    ndcg: float
    num_requests: int
    calibration: float
    base_rate: float

    def to_json(self) -> dict[str, float]:
        """The numbers by name."""
        return asdict(self)


@dataclass(frozen=True)
class RegressionQuality:
    """Exact numbers of a regression, in units of the label; nan where they are undefined.

    Attributes:
        num_samples: the number of predictions.
        loss: the mean squared error.
        rmse, mae: its root, and the mean absolute error.
        r2: 1 minus the loss divided by that of always predicting the mean; above 0 is better than the mean.
        ndcg: the mean NDCG over the requests whose labels differ, with the label as gain; nan for labels below 0.
        num_requests: the number of requests in that mean.
        calibration: the sum of the predictions divided by the sum of the labels; 1 is right.
        mean_label: the mean of the labels.
    """

    num_samples: int
    loss: float
    rmse: float
    mae: float
    r2: float
    ndcg: float
    num_requests: int
    calibration: float
    mean_label: float

    def to_json(self) -> dict[str, float]:
        """The numbers by name."""
        return asdict(self)


@dataclass(frozen=True)
class ChoiceQuality:
    """Exact numbers of a choice among the samples of a request; nan where they are undefined.

    Attributes:
        num_samples: the number of scores.
        loss: the mean log loss of the samples that were chosen, each among those of its request, in nats.
        auc_per_request, gauc, ndcg, num_requests: as in ``Quality``.
    """

    num_samples: int
    loss: float
    auc_per_request: float
    gauc: float
    ndcg: float
    num_requests: int

    def to_json(self) -> dict[str, float]:
        """The numbers by name."""
        return asdict(self)


@dataclass(frozen=True)
class _Columns:
    """The samples that have a label: scores, labels and weights float64 [N], requests int64 [N] or None."""

    scores: Floats
    labels: Floats
    weights: Floats
    requests: NDArray[np.int64] | None

    @staticmethod
    def of(scores: ArrayLike, labels: ArrayLike, requests: ArrayLike | None, weights: ArrayLike | None) -> "_Columns":
        z, y = np.asarray(scores, np.float64), np.asarray(labels, np.float64)
        w = np.ones(len(y)) if weights is None else np.asarray(weights, np.float64)
        r = None if requests is None else np.asarray(requests, np.int64)
        known = ~np.isnan(y)
        if known.all():
            return _Columns(z, y, w, r)
        return _Columns(z[known], y[known], w[known], None if r is None else r[known])

    def mean(self, numbers: Floats) -> float:
        """The weighted mean; nan where nothing counts."""
        total = self.weights.sum()
        with np.errstate(invalid="ignore"):  # a nan is reported by name
            return float((numbers * self.weights).sum() / total) if total > 0 else float("nan")

    def of_requests(self) -> RequestMeans:
        if self.requests is None:
            return RequestMeans()
        return measure_requests(self.requests, self.scores, self.labels, self.weights)


def measure_quality(
    logits: ArrayLike, labels: ArrayLike, request_ids: ArrayLike | None = None, weights: ArrayLike | None = None
) -> Quality:
    """Measures the quality of a table's predictions exactly, and logs a warning where a number is undefined.

    Args:
        logits: float [N], before the sigmoid.
        labels: [N], each 0 or 1, or nan where a sample has none.
        request_ids: int64 [N]; samples that were ranked together share one. None leaves numbers per request nan.
        weights: float [N], how much each sample counts, at least 0; None counts each once.
    """
    rows = _Columns.of(logits, labels, request_ids, weights)
    z, y, of_requests = rows.scores, rows.labels, rows.of_requests()
    base_rate, loss, clicks = rows.mean(y), rows.mean(_log_losses(z, y)), float((y * rows.weights).sum())
    quality = Quality(
        num_samples=len(y),
        loss=loss,
        ne=loss / _entropy(base_rate) if 0 < base_rate < 1 else float("nan"),
        auc=auc(z, y, rows.weights),
        auc_per_request=of_requests.auc_per_request,
        gauc=of_requests.gauc,
        ndcg=of_requests.ndcg,
        num_requests=of_requests.num_requests,
        calibration=float((_sigmoid(z) * rows.weights).sum() / clicks) if clicks > 0 else float("nan"),
        base_rate=base_rate,
    )
    undefined = [name for name in ("loss", "ne", "auc", "calibration") if np.isnan(getattr(quality, name))]
    if np.isnan(z).any():
        logger.warning("%d of %d predictions are nan: %s undefined", np.isnan(z).sum(), len(z), ", ".join(undefined))
    elif undefined:
        logger.warning("%s undefined: %d samples with base rate %s", ", ".join(undefined), len(y), base_rate)
    elif request_ids is not None and of_requests.num_requests == 0:
        logger.warning("auc_per_request undefined: no request has both labels")
    return quality


def measure_regression(
    predictions: ArrayLike, labels: ArrayLike, request_ids: ArrayLike | None = None, weights: ArrayLike | None = None
) -> RegressionQuality:
    """Measures predicted numbers exactly.

    Args:
        predictions: float [N], in units of the label.
        labels: float [N], nan where a sample has none.
        request_ids: int64 [N], as in ``measure_quality``.
        weights: float [N], as in ``measure_quality``.
    """
    rows = _Columns.of(predictions, labels, request_ids, weights)
    p, y, of_requests = rows.scores, rows.labels, rows.of_requests()
    loss, mean = rows.mean((p - y) ** 2), rows.mean(y)
    spread, total = rows.mean((y - mean) ** 2), float((y * rows.weights).sum())
    return RegressionQuality(
        num_samples=len(y),
        loss=loss,
        rmse=float(np.sqrt(loss)),
        mae=rows.mean(np.abs(p - y)),
        r2=1 - loss / spread if spread > 0 else float("nan"),
        ndcg=of_requests.ndcg,
        num_requests=of_requests.num_requests,
        calibration=float((p * rows.weights).sum() / total) if total else float("nan"),
        mean_label=mean,
    )


def measure_choice(
    logits: ArrayLike, labels: ArrayLike, request_ids: ArrayLike, weights: ArrayLike | None = None
) -> ChoiceQuality:
    """Measures scores by which one sample of a request is chosen.

    Args:
        logits: float [N], before the softmax over the request.
        labels: [N], 1 for a sample that was chosen, 0 for the others of its request, nan where that is not known.
        request_ids: int64 [N], as in ``measure_quality``.
        weights: float [N], as in ``measure_quality``.
    """
    rows = _Columns.of(logits, labels, request_ids, weights)
    z, y, of_requests = rows.scores, rows.labels, rows.of_requests()
    chosen, losses = y * rows.weights, np.zeros(len(z))
    if len(z) and rows.requests is not None:
        _, place = np.unique(rows.requests, return_inverse=True)
        tops = np.full(int(place.max()) + 1, -np.inf)
        np.maximum.at(tops, place, z)
        losses = np.log(np.bincount(place, np.exp(z - tops[place])))[place] + tops[place] - z
    return ChoiceQuality(
        num_samples=len(y),
        loss=float((losses * chosen).sum() / chosen.sum()) if chosen.sum() > 0 else float("nan"),
        auc_per_request=of_requests.auc_per_request,
        gauc=of_requests.gauc,
        ndcg=of_requests.ndcg,
        num_requests=of_requests.num_requests,
    )


def measure_task(
    loss: str,
    logits: ArrayLike,
    labels: ArrayLike,
    request_ids: ArrayLike,
    weights: ArrayLike | None,
    scale: tuple[float, float] = (1.0, 0.0),
) -> dict[str, Any]:
    """Measures one task of a model by its kind.

    Args:
        loss: ``binary``, ``regression``, ``softmax`` or ``in_batch``; of the last the order inside requests alone.
        logits: float [N], as the model gives them.
        labels: float [N], as in ``measure_quality``.
        request_ids: int64 [N], as in ``measure_quality``.
        weights: float [N], as in ``measure_quality``.
        scale: what logits are multiplied by, and what is then added, before they are measured.

    Returns:
        The numbers by name.
    """
    scores = np.asarray(logits, np.float64) * scale[0] + scale[1]
    if loss == "regression":
        return measure_regression(scores, labels, request_ids, weights).to_json()
    if loss == "softmax":
        return measure_choice(scores, labels, request_ids, weights).to_json()
    if loss == "in_batch":
        numbers = measure_choice(scores, labels, request_ids, weights).to_json()
        return {name: number for name, number in numbers.items() if name != "loss"}  # that is over all items
    return measure_quality(scores, labels, request_ids, weights).to_json()


def _log_losses(z: Floats, y: Floats) -> Floats:
    """The binary cross-entropy of each logit, in nats."""
    with np.errstate(invalid="ignore"):  # measure_quality reports a nan by name
        return np.asarray(np.logaddexp(0.0, z) - z * y)


def auc(scores: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None) -> float:
    """The area under the ROC curve; a tie counts one half. It is nan unless both labels occur, and for nan scores.

    Args:
        scores: [N]; a higher score means a likelier label 1.
        labels: [N], each 0 or 1.
        weights: [N], how much each sample counts, at least 0; None counts each once.
    """
    s, y = np.asarray(scores, np.float64), np.asarray(labels, np.float64)
    w = np.ones(len(y)) if weights is None else np.asarray(weights, np.float64)
    if not len(y) or np.isnan(s).any():
        return float("nan")
    order = np.argsort(s, kind="stable")
    return float(auc_by_request(np.zeros(len(y), np.int64), s[order], y[order], w[order])[0])


def _entropy(rate: float) -> float:
    return float(-rate * np.log(rate) - (1 - rate) * np.log1p(-rate))


def _sigmoid(z: Floats) -> Floats:
    with np.errstate(invalid="ignore"):
        return np.exp(-np.logaddexp(0.0, -z))
