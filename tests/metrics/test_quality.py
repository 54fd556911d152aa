"""Exact quality, by scikit-learn and by hand; a number that is undefined is nan, with the reason in the log."""

import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import log_loss, roc_auc_score

from recd_dist.metrics.quality import auc, measure_quality

FEW_SCORES = st.sampled_from([-2.0, -0.5, 0.0, 0.5, 3.0])  # few: many ties


def test_by_hand() -> None:
    """Pairs (positive, negative): 0.8 > 0.3, 0.8 > 0.5, 0.5 > 0.3, 0.5 = 0.5 counts one half."""
    assert auc([0.3, 0.5, 0.5, 0.8], [0, 0, 1, 1]) == 3.5 / 4


def test_constant_prediction_is_one_half() -> None:
    assert auc(np.zeros(5), [1, 0, 0, 1, 0]) == 0.5


def test_predicting_the_base_rate_has_ne_and_calibration_1() -> None:
    labels = np.array([1, 0, 0, 0])
    quality = measure_quality(np.full(4, np.log(0.25 / 0.75)), labels)
    assert quality.ne == pytest.approx(1.0)
    assert quality.calibration == pytest.approx(1.0)
    assert quality.base_rate == 0.25


@given(st.lists(st.tuples(FEW_SCORES, st.integers(0, 1), st.integers(0, 4)), min_size=2, max_size=60))
def test_equals_scikit_learn(samples: list[tuple[float, int, int]]) -> None:
    scores, labels, requests = (np.array(column) for column in zip(*samples, strict=True))
    quality = measure_quality(scores, labels, requests)
    assert quality.loss == pytest.approx(log_loss(labels, 1 / (1 + np.exp(-scores)), labels=[0, 1]))
    both = [r for r in np.unique(requests) if 0 < labels[requests == r].mean() < 1]
    assert quality.num_requests == len(both)
    if both:
        assert quality.auc == pytest.approx(roc_auc_score(labels, scores))
        mean = np.mean([roc_auc_score(labels[requests == r], scores[requests == r]) for r in both])
        assert quality.auc_per_request == pytest.approx(mean)
    else:
        assert np.isnan(quality.auc_per_request)


def test_extreme_logits_stay_finite() -> None:
    quality = measure_quality([1000.0, -1000.0], [1, 0])
    assert (quality.loss, quality.auc) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("logits", "labels", "undefined", "reason"),
    [
        ([0.1, 0.2], [0, 0], ("ne", "auc", "calibration"), "2 samples with base rate 0.0"),
        ([0.1, 0.2], [1, 1], ("ne", "auc"), "2 samples with base rate 1.0"),
        ([], [], ("loss", "ne", "auc", "calibration"), "0 samples"),
        ([np.nan, 0.2], [0, 1], ("loss", "ne", "auc", "calibration"), "1 of 2 predictions are nan"),
    ],
)
def test_degenerate(
    logits: list[float],
    labels: list[int],
    undefined: tuple[str, ...],
    reason: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        numbers = measure_quality(logits, labels).to_json()
    assert all(np.isnan(numbers[name]) for name in undefined)
    assert reason in caplog.text
    assert ", ".join(undefined) in caplog.text
