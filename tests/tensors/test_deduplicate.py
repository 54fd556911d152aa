"""Rows are deduplicated by value: equal only if all keys of a group are, and exact there and back."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.tensors.kjts import assert_same, batches, flat, kjt_of

from recd_dist.tensors import deduplicate as deduplicate_module
from recd_dist.tensors.deduplicate import deduplicate, find_unique_rows

rows_of_ids = st.lists(st.lists(st.integers(-2, 2), max_size=3), max_size=8)


def test_rows_are_equal_only_if_all_keys_are() -> None:
    rows = {"a": [[1], [1]], "b": [[2], [3]]}
    assert deduplicate(kjt_of(rows), {"g": ["a", "b"]}).num_rows("g") == 2
    apart = deduplicate(kjt_of(rows), {"g": ["a"], "h": ["b"]})
    assert (apart.num_rows("g"), apart.num_rows("h")) == (1, 2)


def test_where_a_list_ends_matters() -> None:
    rows = {"a": [[1, 2], [1]], "b": [[3], [2, 3]]}
    assert deduplicate(kjt_of(rows), {"g": ["a", "b"]}).num_rows("g") == 2
    prefix = {"a": [[10], [10, 11], [10, 11, 12], [10]]}
    assert deduplicate(kjt_of(prefix), {"g": ["a"]}).inverse.tolist() == [0, 1, 2, 0]


def test_weights_decide_too() -> None:
    rows, nan = {"a": [[1], [1], [1], [1], [1]]}, float("nan")
    batch = deduplicate(kjt_of(rows, {"a": [[0.5], [2.0], [nan], [0.5], [nan]]}), {"g": ["a"]})
    assert batch.inverse.tolist() == [0, 1, 2, 0, 2]
    zero = deduplicate(kjt_of(rows, {"a": [[0.0], [-0.0], [0.0], [-0.0], [0.0]]}), {"g": ["a"]})
    assert zero.inverse.tolist() == [0, 1, 0, 1, 0]


@given(batches())
def test_deduplicate_and_to_kjt_are_inverses(given_batch: tuple) -> None:
    kjt, groups = given_batch
    ikjt = deduplicate(kjt, groups)
    assert_same(ikjt.to_kjt(kjt.keys()), kjt)
    for group in ikjt.dedup_groups:
        inverse = ikjt.inverse_of(group)
        assert inverse is not None
        assert sorted(set(inverse.tolist())) == list(range(ikjt.num_rows(group)))
    again = deduplicate(ikjt.to_kjt(kjt.keys()), groups)
    assert repr(again) == repr(ikjt)


def test_keys_that_cannot_be_grouped() -> None:
    kjt = kjt_of({"item": [[1]], "shop": [[2]]})
    with pytest.raises(ValueError, match=r"groups name keys \['x'\], the KJT has \['item', 'shop'\]"):
        deduplicate(kjt, {"g": ["x"]})
    with pytest.raises(ValueError, match=r"a key may be in one group only"):
        deduplicate(kjt, {"g": ["item"], "h": ["item"]})


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
    """With a hash of 0 or 1 bits nearly all rows collide: rows may be left twice, but no row becomes another."""
    true_hash = deduplicate_module._hash_rows
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deduplicate_module, "_hash_rows", lambda v, n: true_hash(v, n) & bits)
        patch.setattr(deduplicate_module, "_mix", lambda x: x & bits)
        first, inverse = unique_rows(rows)
    assert [rows[first[n]] for n in inverse] == rows
