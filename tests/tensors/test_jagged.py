"""Rows of a jagged column: taken by number, and cut to their last values."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.tensors.kjts import flat

from recd_dist.tensors.jagged import find_last_values, gather_rows

rows_of_ids = st.lists(st.lists(st.integers(-2, 2), max_size=3), max_size=8)


def test_gather() -> None:
    values, lengths, weights = gather_rows(
        *flat([[1, 2], [], [3]]), torch.tensor([2, 0, 0, 1]), torch.tensor([0.1, 0.2, 0.3])
    )
    assert values.tolist() == [3, 1, 2, 1, 2]
    assert lengths.tolist() == [1, 2, 2, 0]
    assert weights is not None
    assert weights.tolist() == pytest.approx([0.3, 0.1, 0.2, 0.1, 0.2])


@given(rows_of_ids, st.data())
def test_gather_is_list_indexing(rows: list[list[int]], data: st.DataObject) -> None:
    picked = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=8)) if rows else []
    values, lengths, weights = gather_rows(*flat(rows), torch.tensor(picked, dtype=torch.int64))
    assert weights is None
    assert [v.tolist() for v in values.split(lengths.tolist())] == [rows[n] for n in picked]


def test_find_last_values() -> None:
    values, lengths = flat([[1, 2, 3], [], [4], [5, 6]])
    index, kept = find_last_values(lengths, 2, 5)
    assert values[index].tolist() == [2, 3, 4, 5, 6]
    assert kept.tolist() == [2, 0, 1, 2]
    assert kept.dtype == torch.int32


@given(rows_of_ids, st.integers(1, 4))
def test_find_last_values_is_slicing(rows: list[list[int]], size: int) -> None:
    values, lengths = flat(rows)
    index, kept = find_last_values(lengths, size, sum(min(len(row), size) for row in rows))
    assert [v.tolist() for v in values[index].split(kept.tolist())] == [row[-size:] for row in rows]
