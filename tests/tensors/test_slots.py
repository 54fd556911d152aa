"""Slots, in literals and for any batch."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from recd_dist.tensors.slots import Slots, slot_width


def test_slots() -> None:
    slots = Slots.of(torch.tensor([0, 0, 0, 1, 1]), 2, 2)
    assert slots.row.tolist() == [0, 0, 1]
    assert slots.cell.tolist() == [0, 1, 2, 4, 5]
    assert slots.fill(torch.tensor([1, 2, 3, 4, 5])).tolist() == [[1, 2], [3, 0], [4, 5]]
    assert slots.take(torch.tensor([[10, 20], [30, 99], [40, 50]])).tolist() == [10, 20, 30, 40, 50]
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
