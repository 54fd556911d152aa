"""AUC and NDCG inside requests, by scikit-learn: ties, weights, requests of one class."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import log_loss, mean_absolute_error, mean_squared_error, ndcg_score, r2_score, roc_auc_score

from recd_dist.metrics.per_request import measure_requests
from recd_dist.metrics.quality import measure_choice, measure_quality, measure_regression

FEW_SCORES = st.sampled_from([-2.0, -0.5, 0.0, 0.5, 3.0])  # few: many ties
WEIGHTS = st.sampled_from([0.0, 0.5, 1.0, 3.0])
SAMPLE = st.tuples(FEW_SCORES, st.integers(0, 1), st.integers(0, 4), WEIGHTS)


def columns(samples: list[tuple[float, int, int, float]]) -> tuple[np.ndarray, ...]:
    return tuple(np.array(column) for column in zip(*samples, strict=True))


@given(st.lists(SAMPLE, min_size=2, max_size=60))
def test_means_over_requests_equal_scikit_learn(samples: list[tuple[float, int, int, float]]) -> None:
    scores, labels, requests, weights = columns(samples)
    found = measure_requests(requests, scores, labels.astype(float), weights)
    rows = []
    for request in np.unique(requests):
        mine = requests == request
        y, s, w = labels[mine], scores[mine], weights[mine]
        if w[y == 1].sum() > 0 and w[y == 0].sum() > 0:
            ndcg = ndcg_score([y], [s])
            rows.append((roc_auc_score(y, s, sample_weight=w), ndcg, w.sum(), w.mean()))
    assert found.num_requests == len(rows)
    if not rows:
        assert np.isnan([found.auc_per_request, found.gauc, found.ndcg]).all()
        return
    aucs, ndcgs, sums, means = map(np.array, zip(*rows, strict=True))
    assert found.gauc == pytest.approx(np.average(aucs, weights=sums))
    assert found.auc_per_request == pytest.approx(np.average(aucs, weights=means))
    assert found.ndcg == pytest.approx(np.average(ndcgs, weights=means))


@given(st.lists(SAMPLE, min_size=2, max_size=60))
def test_weighted_figures_equal_scikit_learn(samples: list[tuple[float, int, int, float]]) -> None:
    scores, labels, requests, weights = columns(samples)
    quality = measure_quality(scores, labels, requests, weights)
    if weights.sum() == 0:
        assert np.isnan([quality.loss, quality.auc, quality.ne, quality.calibration]).all()
        return
    predictions = 1 / (1 + np.exp(-scores))
    assert quality.loss == pytest.approx(log_loss(labels, predictions, sample_weight=weights, labels=[0, 1]))
    assert quality.base_rate == pytest.approx(np.average(labels, weights=weights))
    if weights[labels == 1].sum() > 0 and weights[labels == 0].sum() > 0:
        assert quality.auc == pytest.approx(roc_auc_score(labels, scores, sample_weight=weights))
        assert quality.calibration == pytest.approx((predictions * weights).sum() / (labels * weights).sum())
        entropy = log_loss(labels, np.full(len(labels), quality.base_rate), sample_weight=weights, labels=[0, 1])
        assert quality.ne == pytest.approx(quality.loss / entropy)
    else:
        assert np.isnan([quality.auc, quality.ne]).all()


@given(st.lists(st.tuples(FEW_SCORES, st.integers(0, 5), st.integers(0, 4), WEIGHTS), min_size=2, max_size=40))
def test_a_regression_equals_scikit_learn(samples: list[tuple[float, int, int, float]]) -> None:
    predictions, labels, requests, weights = columns(samples)
    quality = measure_regression(predictions, labels, requests, weights)
    if weights.sum() == 0:
        assert np.isnan([quality.loss, quality.rmse, quality.mae, quality.r2]).all()
        return
    assert quality.loss == pytest.approx(mean_squared_error(labels, predictions, sample_weight=weights))
    assert quality.mae == pytest.approx(mean_absolute_error(labels, predictions, sample_weight=weights))
    if np.unique(labels[weights > 0]).size > 1:
        assert quality.r2 == pytest.approx(r2_score(labels, predictions, sample_weight=weights))
    differing = [r for r in np.unique(requests) if np.unique(labels[requests == r]).size > 1]
    differing = [r for r in differing if weights[requests == r].sum() > 0]
    assert quality.num_requests == len(differing)
    if differing:
        ndcgs = [ndcg_score([labels[requests == r]], [predictions[requests == r]]) for r in differing]
        means = [weights[requests == r].mean() for r in differing]
        assert quality.ndcg == pytest.approx(np.average(ndcgs, weights=means))


def test_a_choice_by_hand() -> None:
    """Request 7 has logits 1 (chosen) and 0, request 9 has 0 (chosen, counts double) and 2."""
    quality = measure_choice([1.0, 0.0, 0.0, 2.0], [1, 0, 1, 0], [7, 9, 9, 7], [1.0, 1.0, 2.0, 1.0])
    first, second = np.log(np.exp([1.0, 2.0]).sum()) - 1, np.log(np.exp([0.0, 0.0]).sum())
    assert quality.loss == pytest.approx((first + 2 * second) / 3)
    assert quality.auc_per_request == pytest.approx((1.0 * 0.0 + 1.5 * 0.5) / 2.5)


def test_samples_without_a_label_are_left_out() -> None:
    labels = np.array([1.0, np.nan, 0.0, np.nan, 1.0])
    scores, requests = np.array([0.3, 9.0, 0.1, -9.0, 0.2]), np.array([1, 1, 1, 2, 2])
    known = ~np.isnan(labels)
    assert measure_quality(scores, labels, requests) == measure_quality(scores[known], labels[known], requests[known])


def test_one_sample_a_request_says_nothing() -> None:
    found = measure_requests(np.arange(4), np.zeros(4), np.array([0.0, 1.0, 0.0, 1.0]), np.ones(4))
    assert found.num_requests == 0
    assert np.isnan(found.ndcg)
