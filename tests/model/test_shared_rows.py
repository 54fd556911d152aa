"""Shared rows and slots, in literals and for any batch."""

from itertools import pairwise

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from recd_dist.model.shared_rows import Slots, find_shared_rows, slot_width
from recd_dist.tensors.grouped import Grouped


def group(*inverse: int) -> Grouped:
    return Grouped(torch.arange(max(inverse) + 1.0)[:, None], torch.tensor(inverse, dtype=torch.int32))


def test_two_groups() -> None:
    user, page = group(0, 0, 0, 0, 1, 1), group(0, 0, 1, 1, 1, 1)
    rows = find_shared_rows({"user": user, "page": page, "sample": Grouped(torch.zeros(6, 1))})
    assert rows is not None
    assert rows.num_rows == 3
    assert rows.inverse.tolist() == [0, 0, 1, 1, 2, 2]
    assert rows.gather_group("user", user.values).squeeze(1).tolist() == [0, 0, 1]
    assert rows.gather_group("page", page.values).squeeze(1).tolist() == [0, 1, 1]
    assert rows.expand(rows.gather_group("page", page.values)).tolist() == page.expand().tolist()


def test_one_group_is_taken_as_it_is() -> None:
    user = group(1, 0, 1, 1)
    rows = find_shared_rows({"user": user})
    assert rows is not None
    assert rows.gather_group("user", user.values) is user.values
    assert rows.inverse is user.inverse


def test_nothing_shared() -> None:
    assert find_shared_rows({"sample": Grouped(torch.zeros(4, 1))}) is None
    assert find_shared_rows({}) is None
    assert find_shared_rows({"user": group(0, 1, 2, 3)}) is None
    assert find_shared_rows({"user": group(0, 0, 0, 1), "page": group(0, 1, 2, 3)}) is None


def test_slots() -> None:
    slots = Slots.of(torch.tensor([0, 0, 0, 1, 1]), 2, 2)
    assert slots.row.tolist() == [0, 0, 1]
    assert slots.cell.tolist() == [0, 1, 2, 4, 5]
    assert slots.fill(torch.tensor([1, 2, 3, 4, 5])).tolist() == [1, 2, 3, 0, 4, 5]
    assert slots.take(torch.tensor([10, 20, 30, 99, 40, 50])).tolist() == [10, 20, 30, 40, 50]
    assert slots.gather_rows(torch.tensor([[7.0], [8.0]])).squeeze(1).tolist() == [7, 7, 8]


@given(st.lists(st.integers(0, 5), max_size=30), st.integers(1, 4))
def test_slots_of_any_batch(inverse: list[int], width: int) -> None:
    index = torch.tensor(inverse, dtype=torch.int32)
    slots = Slots.of(index, 6, width)
    assert len(set(slots.cell.tolist())) == len(inverse)
    assert slots.row.repeat_interleave(width)[slots.cell].tolist() == inverse
    values = torch.arange(1.0, len(inverse) + 1, requires_grad=True)
    filled = slots.fill(values)
    assert slots.take(filled).tolist() == values.tolist()
    (slots.take(filled * 2) * values.detach()).sum().backward()
    assert values.grad is not None
    assert values.grad.tolist() == (2 * values).tolist()
    assert len(slots.row) <= len(inverse) // width + min(6, len(inverse))


def test_slot_width() -> None:
    assert [slot_width(b, 10) for b in (0, 10, 19, 20, 45, 80, 1000)] == [1, 1, 1, 2, 4, 8, 8]


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=20))
def test_neighbours_that_are_equal_share_a_row(pairs: list[tuple[int, int]]) -> None:
    pairs = [pair for pair in pairs for _ in range(2)]
    user, page = (group(*numbers) for numbers in zip(*pairs, strict=True))
    rows = find_shared_rows({"user": user, "page": page})
    assert rows is not None
    changes = [0] + [int(a != b) for a, b in pairwise(pairs)]
    assert rows.inverse.tolist() == rows.known_inverse.tolist() == list(np.cumsum(changes))
    assert rows.num_rows == sum(changes) + 1
    assert rows.rows_of["user"][rows.inverse].tolist() == [a for a, _ in pairs]
    assert rows.rows_of["page"][rows.inverse].tolist() == [b for _, b in pairs]
