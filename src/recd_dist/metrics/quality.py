"""How good predictions are: exactly for a table, over the last samples in training.

``measure_quality`` sorts all predictions once and is exact, ties included (a constant prediction has AUC 0.5). The
numbers in training come from TorchRec's RecMetricModule. It is cheap, but its AUC orders ties as they come, so that an
untrained model, which predicts a constant, shows an arbitrary AUC; NE and calibration are not affected. Of samples that
are all of one class TorchRec gives an AUC of 0.5, an NE of 6e10 and a calibration of 0; here these are nan.
"""

import logging
import math
from dataclasses import asdict, dataclass

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

logger = logging.getLogger(__name__)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Quality:
    """Exact numbers over all samples of a table; nan where they are undefined.

    Attributes:
        num_samples: the number of predictions.
        loss: the mean log loss, in nats.
        ne: the normalised entropy, which is the loss divided by the loss of always predicting the base rate; below 1 is
            better than the base rate.
        auc: the area under the ROC curve; a tie counts one half.
        auc_per_request: the mean AUC over the requests that have both labels (AUC per impression).
        num_requests: the number of requests in that mean.
        calibration: the sum of the predictions divided by the sum of the labels; 1 is right.
        base_rate: the mean of the labels.
    """

    num_samples: int
    loss: float
    ne: float
    auc: float
    auc_per_request: float
    num_requests: int
    calibration: float
    base_rate: float

    def to_json(self) -> dict[str, float]:
        """The numbers by name."""
        return asdict(self)


def measure_quality(logits: ArrayLike, labels: ArrayLike, request_ids: ArrayLike | None = None) -> Quality:
    """Measures the quality of a table's predictions exactly, and logs a warning where a number is undefined.

    Args:
        logits: float [N], before the sigmoid.
        labels: [N], each 0 or 1.
        request_ids: int64 [N]; samples that were ranked together share one. None leaves ``auc_per_request`` nan.
    """
    z, y = np.asarray(logits, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    per_request, num_requests = (float("nan"), 0) if request_ids is None else _auc_per_request(z, y, request_ids)
    base_rate = float(y.mean()) if len(y) else float("nan")
    loss = log_loss(z, y)
    quality = Quality(
        num_samples=len(y),
        loss=loss,
        ne=loss / _entropy(base_rate) if 0 < base_rate < 1 else float("nan"),
        auc=auc(z, y),
        auc_per_request=per_request,
        num_requests=num_requests,
        calibration=float(_sigmoid(z).sum() / y.sum()) if y.sum() > 0 else float("nan"),
        base_rate=base_rate,
    )
    undefined = [name for name in ("loss", "ne", "auc", "calibration") if np.isnan(getattr(quality, name))]
    if np.isnan(z).any():
        logger.warning("%d of %d predictions are nan: %s undefined", np.isnan(z).sum(), len(z), ", ".join(undefined))
    elif undefined:
        logger.warning("%s undefined: %d samples with base rate %s", ", ".join(undefined), len(y), base_rate)
    elif request_ids is not None and num_requests == 0:
        logger.warning("auc_per_request undefined: no request has both labels")
    return quality


def log_loss(logits: ArrayLike, labels: ArrayLike) -> float:
    """The mean binary cross-entropy of logits [N] and labels [N], in nats; nan when N is 0."""
    z, y = np.asarray(logits, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    with np.errstate(invalid="ignore"):  # measure_quality reports a nan by name
        return float(np.mean(np.logaddexp(0.0, z) - z * y)) if len(y) else float("nan")


def auc(scores: ArrayLike, labels: ArrayLike) -> float:
    """The area under the ROC curve; a tie counts one half. It is nan unless both labels occur, and for nan scores.

    Args:
        scores: [N]; a higher score means a likelier label 1.
        labels: [N], each 0 or 1.
    """
    return float(_auc_by_request(np.zeros(len(np.asarray(labels)), np.int64), scores, labels)[0])


def _auc_per_request(scores: Floats, labels: Floats, request_ids: ArrayLike) -> tuple[float, int]:
    """The mean AUC over the requests that have both labels, and the number of these requests."""
    by_request = _auc_by_request(np.asarray(request_ids), scores, labels)
    defined = by_request[~np.isnan(by_request)]
    return (float(defined.mean()), len(defined)) if len(defined) else (float("nan"), 0)


def _auc_by_request(request_ids: NDArray[np.int64], scores: ArrayLike, labels: ArrayLike) -> Floats:
    """The AUC of each request, from the sum of the ranks of its positives; equal scores share their mean rank."""
    s, y = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    if not len(y) or np.isnan(s).any():
        return np.array([np.nan])
    order = np.lexsort((s, request_ids))
    request, s, y = request_ids[order], s[order], y[order]
    new_request = np.flatnonzero(np.r_[True, request[1:] != request[:-1]])
    new_score = np.flatnonzero(np.r_[True, (request[1:] != request[:-1]) | (s[1:] != s[:-1])])
    ends = np.r_[new_score[1:], len(s)]
    mean_rank = np.repeat((new_score + ends + 1) / 2, ends - new_score)  # ranks from 1 over the whole table
    sizes = np.diff(np.r_[new_request, len(s)])
    positives = np.add.reduceat(y, new_request)
    negatives = sizes - positives
    rank_sum = np.add.reduceat(mean_rank * y, new_request) - positives * new_request
    with np.errstate(invalid="ignore", divide="ignore"):
        return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)


def _entropy(rate: float) -> float:
    return float(-rate * np.log(rate) - (1 - rate) * np.log1p(-rate))


def _sigmoid(z: Floats) -> Floats:
    with np.errstate(invalid="ignore"):
        return np.exp(-np.logaddexp(0.0, -z))


class TrainingQuality:
    """NE, AUC and calibration in training, over the last samples of all ranks and since the start, by TorchRec.

    Call ``update`` on every step (it takes about 0.3 ms on CPU), and ``compute`` now and then on all ranks, because it
    gathers the last samples.

    Args:
        batch_size: the number of samples in a rank's full batch; the last batch may be smaller.
        num_last: how many of the last samples of all ranks to measure; at least one batch of each rank is measured.
        device: where the predictions are.
    """

    def __init__(self, batch_size: int, num_last: int, device: torch.device) -> None:
        from torchrec.metrics.metric_module import RecMetricModule, generate_metric_module
        from torchrec.metrics.metrics_config import MetricsConfig, RecMetricDef, RecMetricEnum, RecTaskInfo

        world_size, rank = (dist.get_world_size(), dist.get_rank()) if dist.is_initialized() else (1, 0)
        task = RecTaskInfo(name="t", label_name="label", prediction_name="prediction", weight_name="weight")
        window_size = max(num_last, batch_size * world_size)
        # CTR, the mean label, tells whether both classes are there: the AUC's window holds all samples of its window.
        metrics = (RecMetricEnum.NE, RecMetricEnum.AUC, RecMetricEnum.CALIBRATION, RecMetricEnum.CTR)
        config = MetricsConfig(
            rec_tasks=[task],
            rec_metrics={metric: RecMetricDef(rec_tasks=[task], window_size=window_size) for metric in metrics},
        )
        self._metrics = generate_metric_module(
            RecMetricModule, config, batch_size, world_size, rank, state_metrics_mapping={}, device=device
        )

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Adds a batch.

        Args:
            logits: float [B], before the sigmoid.
            labels: float [B], each 0 or 1.
        """
        label = labels.detach()
        prediction = torch.sigmoid(logits.detach())
        self._metrics.update({"label": label, "prediction": prediction, "weight": torch.ones_like(label)})

    def compute(self) -> dict[str, float]:
        """The numbers so far; a collective.

        Returns:
            On rank 0 ``ne``, ``auc`` and ``calibration`` of the last samples, and ``lifetime_ne`` and
            ``lifetime_calibration`` since the start; nan where the samples leave a number undefined, because they are
            all of one class. Empty on other ranks, and before the first ``update``.
        """
        if not self._metrics.trained_batches:
            return {}
        numbers = {key.split("|")[1]: float(value) for key, value in dict(self._metrics.compute()).items()}
        for span in ("window_", "lifetime_"):
            base_rate = numbers.pop(f"{span}ctr", math.nan)
            undefined = ("ne", "auc", "calibration") if base_rate == 0 else ("ne", "auc") if base_rate == 1 else ()
            numbers |= {f"{span}{name}": math.nan for name in undefined if f"{span}{name}" in numbers}
        return {key.removeprefix("window_"): value for key, value in numbers.items()}
