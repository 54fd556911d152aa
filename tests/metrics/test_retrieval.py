"""Recall and NDCG at the top of lists: by hand with ties, and by sorting all scores, with scikit-learn as judge."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import ndcg_score, top_k_accuracy_score

from recd_dist.metrics import retrieval
from recd_dist.metrics.retrieval import Places, measure_retrieval, place_items

NONE = np.empty(0, np.int64), np.empty(0, np.int64)


def test_ties_share_their_places_by_hand() -> None:
    """One query; its own item ties with two others behind one that is better."""
    items = torch.tensor([[0.7], [0.9], [0.7], [0.2], [0.7]])
    places = place_items(torch.ones(1, 1), items, np.array([2]), NONE)
    assert (places.above.tolist(), places.tied.tolist()) == ([1.0], [2.0])
    found = measure_retrieval(places, None, [1, 2, 3, 4], 5)
    assert [found[f"recall@{k}"] for k in (1, 2, 3, 4)] == pytest.approx([0, 1 / 3, 2 / 3, 1])
    gains = [1 / math.log2(1 + place) for place in (2, 3, 4)]
    assert [found[f"ndcg@{k}"] for k in (1, 2, 3, 4)] == pytest.approx([sum(gains[:n]) / 3 for n in range(4)])
    scores = torch.tensor([0.7, 0.9, 0.7, 0.2, 0.7])
    assert found["loss"] == pytest.approx((scores.logsumexp(0) - 0.7).item(), rel=1e-6)


def test_equal_vectors_tie_wherever_they_stand() -> None:
    torch.manual_seed(0)
    items = torch.randn(1, 37).expand(1003, -1).contiguous()
    places = place_items(torch.randn(9, 37), items, np.arange(9) * 100, NONE)
    assert not places.above.any()
    found = measure_retrieval(places, None, [10], 1003)
    assert found["recall@10"] == pytest.approx(10 / 1003)


def test_other_positives_do_not_compete() -> None:
    items = torch.tensor([[3.0], [2.0], [1.0]])
    places = place_items(torch.ones(3, 1), items, np.array([0, 1, 2]), (np.array([1, 2, 2]), np.array([0, 0, 1])))
    assert places.above.tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("cells", [1 << 22, 100])
def test_against_scikit_learn(cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieval, "_CELLS_AT_ONCE", cells)
    random = np.random.default_rng(0)
    queries, items, own = random.normal(size=(40, 5)), random.normal(size=(30, 5)), random.integers(0, 30, 40)
    weights = random.integers(0, 4, 40)
    places = place_items(torch.from_numpy(queries), torch.from_numpy(items), own, NONE)
    found = measure_retrieval(places, weights, [3, 10], 30)
    scores = (queries @ items.T).astype(np.float32)
    for k in (3, 10):
        wanted = top_k_accuracy_score(own, scores, k=k, sample_weight=weights, labels=np.arange(30))
        assert found[f"recall@{k}"] == pytest.approx(wanted)
        judged = ndcg_score(np.eye(30)[own], scores, k=k, sample_weight=weights)
        assert found[f"ndcg@{k}"] == pytest.approx(judged)
    assert (found["num_positives"], found["num_items"]) == (40, 30)


def test_lists_longer_than_the_items_hold_all() -> None:
    found = measure_retrieval(Places(np.array([2.0]), np.array([0.0]), np.array([1.0])), None, [100], 3)
    assert found["recall@100"] == 1.0


def test_what_is_undefined_is_nan(caplog: pytest.LogCaptureFixture) -> None:
    nothing = Places(np.empty(0), np.empty(0), np.empty(0))
    assert math.isnan(measure_retrieval(nothing, None, [10], 3)["recall@10"])
    places = place_items(torch.tensor([[math.nan]]), torch.ones(3, 1), np.array([0]), NONE)
    assert math.isnan(measure_retrieval(places, None, [10], 3)["ndcg@10"])
    assert "scores are nan" in caplog.text
