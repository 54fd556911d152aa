"""Scores of predictions, as literals."""

import numpy as np
import pytest

from recd_dist.synthetic.labels import score


def test_score_of_literals() -> None:
    oracle = score(np.array([0.1, 0.4, 0.4, 0.8]), np.array([0.0, 0.0, 1.0, 1.0]))
    assert oracle.auc == pytest.approx(0.875)  # three pairs right, one tie
    assert oracle.log_loss == pytest.approx(-np.mean(np.log([0.9, 0.6, 0.4, 0.8])))
    assert oracle.ne == pytest.approx(oracle.log_loss / np.log(2))
    assert score(np.array([0.3, 0.3]), np.array([1.0, 1.0])).auc == 0.5
