"""Tensors on huge pages keep their numbers; small ones and systems without huge pages are left as they are."""

import mmap

import pytest
import torch

from recd_dist.embedding.lookup.huge_pages import HUGE, use_huge_pages


def test_numbers_stay() -> None:
    numbers = torch.arange(3 * HUGE // 4)
    use_huge_pages(numbers)
    assert torch.equal(numbers, torch.arange(3 * HUGE // 4))


def test_a_small_tensor_and_another_system_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not use_huge_pages(torch.zeros(10))
    assert not use_huge_pages(torch.zeros(0))
    monkeypatch.delattr(mmap, "MADV_HUGEPAGE")
    assert not use_huge_pages(torch.zeros(HUGE))
