"""Jagged rows: gather, distinct rows, newest values."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recd_dist.tensors import jagged
from recd_dist.tensors.jagged import find_unique_rows, gather_rows, last_values

rows_of_ids = st.lists(st.lists(st.integers(-2, 2), max_size=3), max_size=8)


def flat(rows: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    values = torch.tensor([x for row in rows for x in row], dtype=torch.int64)
    return values, torch.tensor([len(row) for row in rows], dtype=torch.int32)


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


def test_last_values() -> None:
    values, lengths = flat([[1, 2, 3], [], [4], [5, 6]])
    index, kept = last_values(lengths, 2)
    assert values[index].tolist() == [2, 3, 4, 5, 6]
    assert kept.tolist() == [2, 0, 1, 2]
    assert kept.dtype == torch.int32


@given(rows_of_ids, st.integers(1, 4))
def test_last_values_is_slicing(rows: list[list[int]], size: int) -> None:
    values, lengths = flat(rows)
    index, kept = last_values(lengths, size)
    assert [v.tolist() for v in values[index].split(kept.tolist())] == [row[-size:] for row in rows]


def unique_rows(*columns: list[list[int]]) -> tuple[list[int], list[int]]:
    first, inverse = find_unique_rows([(*flat(c), None) for c in columns], len(columns[0]), torch.device("cpu"))
    assert inverse.dtype == torch.int32
    return first.tolist(), inverse.tolist()


def test_unique_rows() -> None:
    assert unique_rows([[7, 8], [9], [7, 8], []]) == ([0, 1, 3], [0, 1, 0, 2])
    assert unique_rows([[1], [1], [1]], [[2], [3], [2]]) == ([0, 1], [0, 1, 0])
    assert unique_rows([[1, 1], [1]]) == ([0, 1], [0, 1])
    assert unique_rows([[]] * 3) == ([0], [0, 0, 0])


def test_no_columns_are_one_row() -> None:
    first, inverse = find_unique_rows([], 3, torch.device("cpu"))
    assert (first.tolist(), inverse.tolist()) == ([0], [0, 0, 0])


@given(rows_of_ids)
def test_unique_rows_of_anything(rows: list[list[int]]) -> None:
    first, inverse = unique_rows(rows)
    distinct = list(dict.fromkeys(map(tuple, rows)))
    assert [tuple(rows[n]) for n in first] == distinct
    assert [distinct[n] for n in inverse] == [tuple(row) for row in rows]


@pytest.mark.parametrize("bits", [0, 1])
@given(rows=rows_of_ids)
def test_a_hash_never_decides(bits: int, rows: list[list[int]]) -> None:
    """With a hash of 0 or 1 bits nearly all rows collide: repeats may stay, but no row becomes another."""
    true_hash = jagged._row_hash
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jagged, "_row_hash", lambda v, n: true_hash(v, n) & bits)
        patch.setattr(jagged, "_mix", lambda x: x & bits)
        first, inverse = unique_rows(rows)
    assert [rows[first[n]] for n in inverse] == rows
