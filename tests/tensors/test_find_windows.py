"""Windows found by comparing lists: histories that shift at either end, weights, and rows that share nothing."""

import pytest
import torch
from tests.tensors.kjts import assert_same, kjt_of

from recd_dist.tensors.deduplicate import deduplicate
from recd_dist.tensors.find_windows import find_windows


@pytest.mark.parametrize(
    ("rows", "stored"),
    [
        ([[1, 2, 3], [2, 3, 4], [3, 4, 5]], [1, 2, 3, 4, 5]),  # drops the oldest, gains the newest
        ([[3, 2, 1], [4, 3, 2], [5, 4, 3]], [5, 4, 3, 2, 1]),  # newest first
        ([[1], [1, 2], [1, 2, 3]], [1, 2, 3]),  # grows at its end
        ([[1], [2, 1], [3, 2, 1]], [3, 2, 1]),  # grows at its front
        ([[1, 2], [1, 2], [9], [9, 9]], [1, 2, 9, 9]),
        ([[1, 2, 1], [1, 2, 1, 3]], [1, 2, 1, 3]),
        ([[1, 2, 1, 2], [1, 2, 3]], [1, 2, 1, 2, 3]),
        ([[], [1], [], [1]], [1]),
    ],
)
def test_stored_ids(rows: list[list[int]], stored: list[int]) -> None:
    lists = deduplicate(kjt_of({"item": rows}), {})
    batch = find_windows(lists)
    assert batch.windows == ("item",)
    assert batch.values.tolist() == stored
    assert_same(batch.to_kjt(), kjt_of({"item": rows}))


def test_ids_are_shared_where_weights_are() -> None:
    rows, weights = {"item": [[1, 2], [2, 3], [3, 4]]}, {"item": [[0.5, 1.0], [1.0, -0.0], [0.0, 2.0]]}
    kjt = kjt_of(rows, weights)
    batch = find_windows(deduplicate(kjt, {}))
    assert batch.values.tolist() == [1, 2, 3, 3, 4]  # -0.0 and 0.0 differ
    assert_same(batch.to_kjt(), kjt)


def test_rows_that_share_nothing_stay_lists() -> None:
    lists = deduplicate(kjt_of({"item": [[1, 2], [3, 4]], "shop": [[1], [2]]}), {})
    assert find_windows(lists) is lists
    assert find_windows(deduplicate(kjt_of({"item": []}), {})).windows == ()


def test_of_some_keys() -> None:
    lists = deduplicate(kjt_of({"item": [[1, 2], [2, 3]], "shop": [[1, 2], [2, 3]]}), {"g": ["item"], "h": ["shop"]})
    batch = find_windows(lists, ["shop"])
    assert (batch.windows, batch.value_offsets) == (("shop",), (0, 4, 7))
    assert find_windows(batch, ["item"]).windows == ("item",)
    assert torch.equal(batch.lists().values, lists.values)
