"""The hidden model that draws the labels, and the oracle: what a model that knew it would score.

    logit = bias + signal * sum over terms of sqrt(share) * standardised term
    affinity  how much of the user's history has the candidate's category
    item      the candidate's own appeal: one number per item plus one per category
    ids       one number per value of every single id with a small table
    dense     a weighted sum of the dense features

The true probabilities never enter the raw logs' columns; they lie in ``oracle.npz`` beside them, by timestamp.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recd_dist.errors import DataError
from recd_dist.synthetic.draw import I64, mix, normal, uniform
from recd_dist.synthetic.spec import CATEGORY, ITEM, TERMS, IdFeature, SyntheticSpec
from recd_dist.synthetic.values import Columns, Lists
from recd_dist.table.schema import SAMPLE

F64 = NDArray[np.float64]
Ids = Iterable[tuple[IdFeature, Lists]]
Dense = Iterable[tuple[str, NDArray[np.float32]]]

_SMALL = 1000
"""Tables up to this size carry signal: each of their ids is seen often enough to be learned."""

_PILOT = 20_000
"""Samples on which the terms are standardised."""

_WEIGHT, _LABEL = 21, 22


class HiddenModel:
    """Draws labels with known probabilities.

    Args:
        spec: what to generate.
        columns: its feature values.
    """

    def __init__(self, spec: SyntheticSpec, columns: Columns) -> None:
        self._spec = spec
        self._columns = columns
        self._key = mix(columns.seed_key, _WEIGHT)
        names = [name for group in spec.groups for name in group.dense]
        self._dense_weight = dict(zip(names, normal(mix(self._key, np.arange(len(names)))), strict=True))
        sampled = {f.name for g, f in spec.features if g.name == SAMPLE and f.length is None}
        self._candidates = {f.name for _, f in spec.features if f.name in sampled and f.table in (ITEM, CATEGORY)}
        pilot = np.unique(np.linspace(0, spec.num_samples - 1, _PILOT).astype(np.int64))
        terms = self._terms(pilot, columns.ids(pilot), columns.dense(pilot))
        self._mean = {name: float(term.mean()) for name, term in terms.items()}
        self._scale = self._scales(terms)
        self._bias = 0.0
        self._bias = _bias_for(spec.click_rate, self._logit(len(pilot), terms))

    def probability(self, index: I64, ids: Ids, dense: Dense) -> F64:
        """True probability of a click: float64 [n].

        Args:
            index: int64 [n], sample numbers.
            ids: their id features, as ``Columns.ids`` gives them.
            dense: their dense features, as ``Columns.dense`` gives them.
        """
        return 1 / (1 + np.exp(-self._logit(len(index), self._terms(index, ids, dense))))

    def labels(self, index: I64, probability: F64) -> NDArray[np.float32]:
        """0 or 1 for each sample, float32 [n], drawn with the given probabilities."""
        return (uniform(mix(mix(self._columns.seed_key, _LABEL), index)) < probability).astype(np.float32)

    def _terms(self, index: I64, ids: Ids, dense: Dense) -> dict[str, F64]:
        """The terms that the features allow, each float64 [n], not yet standardised."""
        terms: dict[str, F64] = {}
        affinity = self._columns.affinity(index)
        if affinity is not None:
            terms["affinity"] = affinity
        for number, (feature, rows) in enumerate(ids):
            if feature.length is not None:
                continue
            if feature.name in self._candidates:
                term = "item"
            elif feature.table not in (ITEM, CATEGORY) and self._spec.tables[feature.table] <= _SMALL:
                term = "ids"
            else:
                continue
            effect = normal(mix(mix(self._key, 1000 + number), rows.values))
            terms[term] = terms.get(term, 0.0) + effect
        for name, values in dense:
            terms["dense"] = terms.get("dense", 0.0) + self._dense_weight[name] * values
        return terms

    def _scales(self, terms: dict[str, F64]) -> dict[str, float]:
        """What each standardised term is multiplied with, so that the logit's deviation is ``signal``."""
        wide = {name: term.std() for name, term in terms.items() if name in TERMS and term.std() > 0}
        total = sum(self._spec.shares.get(name, 0.0) for name in wide)
        if total <= 0:
            return {}
        return {n: float(self._spec.signal * np.sqrt(self._spec.shares.get(n, 0.0) / total) / wide[n]) for n in wide}

    def _logit(self, num: int, terms: dict[str, F64]) -> F64:
        """Bias plus the scaled terms."""
        parts = [scale * (terms[name] - self._mean[name]) for name, scale in self._scale.items()]
        return np.asarray(self._bias + sum(parts, np.zeros(num)), np.float64)


def _bias_for(rate: float, logit: F64) -> float:
    """The bias that makes the mean probability the wanted one, by bisection."""
    low, high = -30.0, 30.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if np.mean(1 / (1 + np.exp(-logit - middle))) < rate else (low, middle)
    return low


@dataclass(frozen=True)
class Oracle:
    """What the true probabilities score on some samples: no model can do better but by luck.

    Attributes:
        num_samples: how many.
        click_rate: mean label.
        auc: area under the ROC curve (0.5 where only one class occurs).
        log_loss: mean log loss in nats.
        ne: normalised entropy, log loss over that of always predicting click_rate.
    """

    num_samples: int
    click_rate: float
    auc: float
    log_loss: float
    ne: float

    def to_json(self) -> dict[str, float]:
        """The attributes as a dict."""
        return asdict(self)


def score(probability: F64, label: NDArray[np.float32] | F64) -> Oracle:
    """Scores probabilities against labels.

    Args:
        probability: float64 [n].
        label: 0 or 1, [n].
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
    """The true probability of each sample, found by its timestamp (which is unique).

    Args:
        raw: directory that ``generate`` wrote.
        timestamp_us: int64 [n].

    Raises:
        DataError: no oracle there, or a timestamp that it does not know.
    """
    path = raw / "oracle.npz"
    if not path.is_file():
        raise DataError(f"{raw}: no oracle.npz here; only synthetic logs know their true probabilities")
    with np.load(path) as stored:
        known, probability = stored["timestamp_us"], stored["probability"]
    place = np.minimum(np.searchsorted(known, timestamp_us), len(known) - 1)
    if not np.array_equal(known[place], timestamp_us):
        raise DataError(f"{path}: some samples are not of these logs; make the table again with `recd etl`")
    return np.asarray(probability[place], np.float64)
