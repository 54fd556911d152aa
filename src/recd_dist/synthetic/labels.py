"""The hidden model that draws the labels, and the scores that it would reach itself.

::

    logit = bias + signal * sum over terms of sqrt(share) * standardised term
    affinity  how much of the user's history has the candidate's category
    item      how attractive the candidate is: one number per item plus one per category
    ids       one number per value of every other feature of one id with a small table
    dense     a weighted sum of the dense features

The true probabilities are no column of the raw logs. They lie beside the logs in ``oracle.npz``, by timestamp.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recd_dist.errors import DataError
from recd_dist.synthetic.draw import I64, mix, normal, uniform
from recd_dist.synthetic.spec import CATEGORY, ITEM, TERMS, IdFeature, SyntheticSpec
from recd_dist.synthetic.values import FeatureValues, Lists
from recd_dist.table.schema import SAMPLE

F64 = NDArray[np.float64]
Ids = Iterable[tuple[IdFeature, Lists]]
Dense = Iterable[tuple[str, NDArray[np.float32]]]

_MAX_LEARNABLE = 1000
"""Tables up to this size carry signal, since each of their ids is seen often enough to be learned."""

_NUM_PILOT = 20_000
"""Number of samples on which the terms are standardised."""

_WEIGHT, _LABEL = 21, 22
"""Numbers that are mixed into keys, so that each kind of draw has keys of its own."""


class HiddenModel:
    """Draws labels with known probabilities.

    Args:
        spec: what to generate.
        values: feature values of that spec.
    """

    def __init__(self, spec: SyntheticSpec, values: FeatureValues) -> None:
        self._spec = spec
        self._values = values
        self._key = mix(values.seed_key, _WEIGHT)
        names = [name for group in spec.groups for name in group.dense]
        self._dense_weight = dict(zip(names, normal(mix(self._key, np.arange(len(names)))), strict=True))
        sampled = {f.name for g, f in spec.features if g.name == SAMPLE and f.length is None}
        self._candidates = {f.name for _, f in spec.features if f.name in sampled and f.table in (ITEM, CATEGORY)}
        pilot = np.unique(np.linspace(0, spec.num_samples - 1, _NUM_PILOT).astype(np.int64))
        terms = self._terms(pilot, values.ids(pilot), values.dense(pilot))
        self._mean = {name: float(term.mean()) for name, term in terms.items()}
        self._scale = self._scales(terms)
        self._bias = 0.0
        self._bias = find_bias(spec.click_rate, self._logit(len(pilot), terms))

    def probability(self, index: I64, ids: Ids, dense: Dense) -> F64:
        """The true probability of a click in each sample: float64 [n].

        Args:
            index: int64 [n], numbers of the samples.
            ids: id features of the samples, as ``FeatureValues.ids`` draws them.
            dense: dense features of the samples, as ``FeatureValues.dense`` draws them.
        """
        return 1 / (1 + np.exp(-self._logit(len(index), self._terms(index, ids, dense))))

    def draw_labels(self, index: I64, probability: F64) -> NDArray[np.float32]:
        """Draws 0 or 1 for each sample: float32 [n].

        Args:
            index: int64 [n], numbers of the samples.
            probability: float64 [n], probability of 1.
        """
        return (uniform(mix(mix(self._values.seed_key, _LABEL), index)) < probability).astype(np.float32)

    def _terms(self, index: I64, ids: Ids, dense: Dense) -> dict[str, F64]:
        """The terms that the features allow, by name: float64 [n] each, not yet standardised."""
        terms: dict[str, F64] = {}
        affinity = self._values.affinity(index)
        if affinity is not None:
            terms["affinity"] = affinity
        for number, (feature, rows) in enumerate(ids):
            if feature.length is not None:
                continue
            if feature.name in self._candidates:
                term = "item"
            elif feature.table not in (ITEM, CATEGORY) and self._spec.tables[feature.table] <= _MAX_LEARNABLE:
                term = "ids"
            else:
                continue
            effect = normal(mix(mix(self._key, 1000 + number), rows.values))
            terms[term] = terms.get(term, 0.0) + effect
        for name, values in dense:
            terms["dense"] = terms.get("dense", 0.0) + self._dense_weight[name] * values
        return terms

    def _scales(self, terms: dict[str, F64]) -> dict[str, float]:
        """The factor of each term, by name, that gives the logit the standard deviation ``signal``."""
        deviations = {name: term.std() for name, term in terms.items() if name in TERMS and term.std() > 0}
        total = sum(self._spec.shares.get(name, 0.0) for name in deviations)
        if total <= 0:
            return {}
        return {
            name: float(self._spec.signal * np.sqrt(self._spec.shares.get(name, 0.0) / total) / deviation)
            for name, deviation in deviations.items()
        }

    def _logit(self, num_samples: int, terms: dict[str, F64]) -> F64:
        """The bias plus the scaled terms: float64 [num_samples]."""
        parts = [scale * (terms[name] - self._mean[name]) for name, scale in self._scale.items()]
        return np.asarray(self._bias + sum(parts, np.zeros(num_samples)), np.float64)


def find_bias(rate: float, logit: F64) -> float:
    """Finds by bisection the bias with which the mean probability is ``rate``."""
    low, high = -30.0, 30.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if np.mean(1 / (1 + np.exp(-logit - middle))) < rate else (low, middle)
    return low


@dataclass(frozen=True)
class Oracle:
    """Scores of the true probabilities on some samples; only by luck can a model do better.

    Attributes:
        num_samples: number of the samples.
        click_rate: mean of the label.
        auc: area under the ROC curve; 0.5 where all labels are equal.
        log_loss: mean log loss in nats.
        ne: normalised entropy: the log loss over that of always predicting ``click_rate``.
    """

    num_samples: int
    click_rate: float
    auc: float
    log_loss: float
    ne: float

    def to_json(self) -> dict[str, float]:
        """The attributes as a dict, for a JSON file."""
        return asdict(self)


def score(probability: F64, label: NDArray[np.float32] | F64) -> Oracle:
    """Scores probabilities against labels.

    Args:
        probability: float64 [n], predicted probability of the label 1.
        label: float [n], 0 or 1.
    """
    if not len(label):
        return Oracle(0, float("nan"), 0.5, float("nan"), float("nan"))
    y = np.asarray(label, np.float64)
    p = np.clip(probability, 1e-12, 1 - 1e-12)
    rate = float(y.mean())
    loss = float(-np.mean(y * np.log(p) + (1 - y) * np.log1p(-p)))
    if rate in (0.0, 1.0):
        return Oracle(len(y), rate, 0.5, loss, float("nan"))
    _, inverse, counts = np.unique(p, return_inverse=True, return_counts=True)
    rank = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    positives = y.sum()
    auc = (rank[y > 0].sum() - positives * (positives + 1) / 2) / (positives * (len(y) - positives))
    entropy = -(rate * np.log(rate) + (1 - rate) * np.log(1 - rate))
    return Oracle(len(y), rate, float(auc), loss, float(loss / entropy))


def true_probabilities(raw: Path, timestamp_us: I64) -> F64:
    """The true probability of each sample, which its timestamp names.

    Args:
        raw: directory that ``generate`` has written.
        timestamp_us: int64 [n], times of the samples in microseconds.

    Returns:
        float64 [n].

    Raises:
        DataError: the directory has no true probabilities, or none for one of the times.
    """
    path = raw / "oracle.npz"
    if not path.is_file():
        raise DataError(f"{raw}: no oracle.npz here; only synthetic logs know their true probabilities")
    with np.load(path) as stored:
        known, probability = stored["timestamp_us"], stored["probability"]
    index = np.minimum(np.searchsorted(known, timestamp_us), len(known) - 1)
    if not np.array_equal(known[index], timestamp_us):
        raise DataError(f"{path}: some samples are not of these logs; make the table again with `recd etl`")
    return np.asarray(probability[index], np.float64)
