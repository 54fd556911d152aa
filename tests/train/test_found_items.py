"""What an evaluation collects of queries and items: each item once, as its latest sample has it, each positive once."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from recd_dist.model.towers import Towers
from recd_dist.tensors.batch import Batch
from recd_dist.tensors.ikjt import IKJT, GroupLayout
from recd_dist.train import found_items
from recd_dist.train.build import Output
from recd_dist.train.found_items import Retrieval

Sample = tuple[int, int, int, float, float, float, float]
"""Sample, request, item, query, vector of the item, label, weight; queries and vectors are of one number."""


def measure(samples: list[Sample], batch_size: int, weight: int | None = None) -> dict[str, Any]:
    found = Retrieval({"bought": 0}, "item", [1, 2], weight)
    for start in range(0, len(samples), batch_size):
        ids, requests, items, queries, vectors, *labels = zip(*samples[start : start + batch_size], strict=True)
        size = len(ids)
        has_item = torch.tensor([item >= 0 for item in items])
        sparse = IKJT(
            (GroupLayout("sample", ("item",), size),),
            size,
            torch.tensor(items)[has_item],
            has_item.int(),
            torch.empty(0, dtype=torch.int32),
            (0, int(has_item.sum())),
        )
        batch = Batch(sparse, {}, torch.tensor(labels).T.float(), torch.tensor(ids), torch.tensor(requests))
        towers = Towers(torch.tensor(queries)[:, None], torch.tensor(vectors)[:, None])
        none = torch.zeros(())
        found.add(batch, Output(none, towers.scores(1), batch, none, towers))
    numbers = found.finish()
    assert numbers is not None
    return numbers["bought"]


@pytest.mark.parametrize("batch_size", [1, 2, 10])
@pytest.mark.parametrize("most_rows", [0, 100])
def test_by_hand(batch_size: int, most_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Item 5 is worth 1 first and 4 at last; item 6 stays 3, item 7 has 2. Request 0 buys 5 twice, and 6."""
    monkeypatch.setattr(found_items, "_MOST_ROWS", most_rows)
    samples: list[Sample] = [
        (0, 0, 5, 1.0, 1.0, 1.0, 1.0),
        (1, 0, 6, 1.0, 3.0, 1.0, 1.0),
        (2, 0, 5, 1.0, 1.0, 1.0, 9.0),
        (3, 1, 7, 1.0, 2.0, 1.0, 2.0),
        (4, 1, 5, 1.0, 4.0, 0.0, 1.0),
        (5, 1, -1, 1.0, 9.0, 1.0, 1.0),
        (6, 1, 6, 1.0, 3.0, math.nan, 1.0),
    ]
    found = measure(samples, batch_size)
    # places: item 5 first; item 6 first, for item 5 was bought, too; item 7 third
    assert (found["num_positives"], found["num_items"]) == (3, 3)
    assert found["recall@1"] == found["recall@2"] == pytest.approx(2 / 3)
    assert measure(samples, batch_size, weight=1)["recall@1"] == pytest.approx(2 / 4)
    e = np.exp([4.0, 3.0, 2.0])
    losses = [math.log(e[0] + e[2]) - 4, math.log(e[1] + e[2]) - 3, math.log(e.sum()) - 2]
    assert found["loss"] == pytest.approx(np.mean(losses), rel=1e-6)


def test_a_split_without_positives_has_no_recall() -> None:
    found = measure([(0, 0, 5, 1.0, 1.0, 0.0, 1.0)], 1)
    assert math.isnan(found["recall@1"])
    assert found["num_positives"] == 0
