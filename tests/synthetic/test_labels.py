"""Scores of predictions, as literals."""

import numpy as np
import pytest

from recd_dist.synthetic.labels import score


def test_score_of_literals() -> None:
    found = score(np.array([0.1, 0.4, 0.4, 0.8]), np.array([0.0, 0.0, 1.0, 1.0]))
    assert found.auc == pytest.approx(0.875)  # three pairs right, one tie
    assert found.log_loss == pytest.approx(-np.mean(np.log([0.9, 0.6, 0.4, 0.8])))
    assert found.ne == pytest.approx(found.log_loss / np.log(2))
    assert score(np.array([0.3, 0.3]), np.array([1.0, 1.0])).auc == 0.5
