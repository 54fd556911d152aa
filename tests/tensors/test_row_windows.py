"""Rows as windows: the same lists in fewer ids, through everything that an IKJT does."""

import pickle
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.tensors.kjts import assert_same, batches, flat, kjt_of

from recd_dist.tensors.deduplicate import deduplicate
from recd_dist.tensors.expansion import expand_rows, expand_windows
from recd_dist.tensors.find_windows import find_windows
from recd_dist.tensors.ikjt import IKJT, GroupLayout
from recd_dist.tensors.jagged import slice_index
from recd_dist.tensors.row_windows import Stored, lay_out

SAMPLES = {
    "item": [[1, 2, 3], [1, 2, 3], [2, 3, 4], [9], []],
    "shop": [[5], [5], [6], [6], []],
    "cand": [[7], [8], [7], [7], [7]],
}


@pytest.fixture
def batch() -> IKJT:
    return find_windows(deduplicate(kjt_of(SAMPLES), {"history": ["item", "shop"]}), ["item", "cand"])


def test_rows_share_ids(batch: IKJT) -> None:
    assert batch.windows == ("item", "cand")
    assert batch.values_of("item").tolist() == [1, 2, 3, 4, 9]
    assert batch.starts_of("item").tolist() == [0, 1, 4, 4]  # type: ignore[union-attr]
    assert batch.lengths_of("item").tolist() == [3, 3, 1, 0]
    assert batch.starts_of("shop") is None
    assert batch.values_of("cand").tolist() == [7, 8, 7]
    assert (batch.num_values("item"), batch.num_list_values("item"), batch.num_list_values("shop")) == (5, 7, 3)
    assert batch.as_lists("item", batch.values_of("item")).tolist() == [1, 2, 3, 2, 3, 4, 9]
    assert batch.as_lists("shop", batch.values_of("shop")).data_ptr() == batch.values_of("shop").data_ptr()
    assert batch.count_expanded_values() == {"item": 10, "shop": 4, "cand": 5}


def test_lists_of_some_keys(batch: IKJT) -> None:
    lists = batch.lists(["item", "shop"])
    assert (lists.windows, lists.starts_of("cand").tolist()) == (("cand",), [0, 1, 2, 2, 2])  # type: ignore[union-attr]
    assert_same(lists.rows_as_kjt("history"), batch.rows_as_kjt("history"))
    assert lists.lists(["shop"]) is lists
    assert lists.lists().windows == ()
    assert lists.lists().starts is None


def test_picture(batch: IKJT) -> None:
    assert repr(batch).splitlines()[:4] == [
        "IKJT(5 samples, 11 int64 ids)",
        "  history: 4 rows, 1.25 samples a row",
        "    item: [1, 2, 3] [2, 3, 4] [9] .., windows of 5 ids",
        "    shop: [5] [6] [6] ..",
    ]


@given(batches(), st.data())
def test_windows_hold_the_same_lists(given_batch: tuple, data: st.DataObject) -> None:
    kjt, groups = given_batch
    lists = deduplicate(kjt, groups)
    chosen = data.draw(st.lists(st.sampled_from(lists.keys), unique=True))
    batch = find_windows(lists, chosen)
    assert set(batch.windows) <= set(chosen)
    assert len(batch.values) <= len(lists.values)
    for other in (batch, batch.to(device=torch.device("cpu")), pickle.loads(pickle.dumps(batch))):
        assert_same(other.to_kjt(kjt.keys()), kjt)
        assert_alike(other.lists(), lists)
        assert other.count_expanded_values() == lists.count_expanded_values()
    for group in (g.name for g in lists.groups if g.keys):
        assert_same(batch.rows_as_kjt(group), lists.rows_as_kjt(group))
    part = data.draw(st.lists(st.sampled_from(lists.keys), unique=True))
    assert_alike(batch.select(part).lists(), lists.select(part))
    moved = data.draw(st.lists(st.sampled_from(list(groups)), unique=True)) if groups else []
    assert_alike(batch.expand(moved).lists(), lists.expand(moved))
    batch.record_stream(None)  # type: ignore[arg-type]


def assert_alike(found: IKJT, wanted: IKJT) -> None:
    """The same layout and the same numbers, bit for bit."""
    assert (found.groups, found.value_offsets, found.windows) == (wanted.groups, wanted.value_offsets, wanted.windows)
    for name in ("values", "lengths", "inverse"):
        assert torch.equal(getattr(found, name), getattr(wanted, name))
    assert (found.weights is None) == (wanted.weights is None)
    if wanted.weights is not None and found.weights is not None:
        assert torch.equal(found.weights.view(torch.int32), wanted.weights.view(torch.int32))


def one_key(values: list[int], starts: list[int], lengths: list[int]) -> IKJT:
    size = len(lengths)
    return IKJT(
        (GroupLayout("sample", ("item",), size),),
        size,
        torch.tensor(values, dtype=torch.int64),
        torch.tensor(lengths, dtype=torch.int32),
        torch.empty(0, dtype=torch.int32),
        (0, len(values)),
        windows=("item",),
        starts=torch.tensor(starts, dtype=torch.int32),
    )


@pytest.mark.parametrize("reverse", [False, True])
def test_rows_in_any_order_may_share_ids(reverse: bool) -> None:
    starts, lengths = [0, 2, 1], [1, 2, 2]
    batch = one_key([7, 8, 9, 6], starts[:: -1 if reverse else 1], lengths[:: -1 if reverse else 1])
    wanted = [[7], [9, 6], [8, 9]]
    lists = batch.lists().values.split(batch.lengths.tolist())
    assert [row.tolist() for row in lists] == wanted[:: -1 if reverse else 1]


@pytest.mark.parametrize(
    ("starts", "lengths", "message"),
    [
        ([0, 2], [2, 3], r"row 1 of key 'item' is 3 ids from 2, wanted a window of 4 stored ids"),
        ([-1, 0], [2, 4], r"row 0 of key 'item' is 2 ids from -1"),
        ([0, 3], [4, -1], r"row 1 of key 'item' is -1 ids from 3"),
        ([0, 2**31 - 1], [4, 2], r"row 1 of key 'item' is 2 ids from 2147483647"),
        ([0, 3], [2, 1], r"stored id 2 of 4 of key 'item' lies in no row"),
        ([2, 0], [2, 1], r"stored id 1 of 4 of key 'item' lies in no row"),
        ([0, 1], [3, 1], r"stored id 3 of 4 of key 'item' lies in no row"),
        ([4, 4], [0, 0], r"stored id 0 of 4 of key 'item' lies in no row"),
    ],
)
def test_windows_that_do_not_fit(starts: list[int], lengths: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        one_key([1, 2, 3, 4], starts, lengths)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"starts": None}, r"starts has shape None, the layout .* wants \(2,\)"),
        ({"starts": torch.zeros(3, dtype=torch.int32)}, r"starts has shape \(3,\)"),
        ({"starts": torch.zeros(2, dtype=torch.int64)}, r"starts are torch.int64, wanted int32"),
        ({"windows": ()}, r"starts has shape \(2,\), the layout .* wants \(0,\)"),
        ({"windows": ("shop",)}, r"windows are \('shop',\), wanted some of the keys \('item',\)"),
        ({"windows": ("item", "item")}, r"windows are \('item', 'item'\)"),
    ],
)
def test_windows_that_do_not_fit_the_layout(change: dict, message: str) -> None:
    good = one_key([1, 2, 3], [0, 1], [2, 2])
    with pytest.raises(ValueError, match=message):
        replace(good, **change)


@given(st.lists(st.lists(st.integers(0, 2), max_size=4), min_size=1, max_size=6))
def test_an_index_of_a_device_gives_what_the_loop_gives(rows: list[list[int]]) -> None:
    """On a device rows are taken by an index, on the host by a loop."""
    values, lengths = flat(rows)
    batch = find_windows(one_key(values.tolist(), (torch.cumsum(lengths, 0) - lengths).tolist(), lengths.tolist()))
    column = Stored(batch.values, batch.starts_of("item"), batch.lengths, int(lengths.sum()))
    if column.starts is not None:
        index = slice_index(column.starts, lengths, column.num_list_values)
        assert torch.equal(batch.values[index], lay_out([column]))
    assert torch.equal(lay_out([column]), values)


@given(st.lists(st.lists(st.integers(0, 2), max_size=4), min_size=1, max_size=6), st.integers(0, 9))
def test_vectors_of_windows_and_their_gradients_are_those_of_lists(rows: list[list[int]], seed: int) -> None:
    """Bit for bit: gradients are summed in the order of the rows."""
    values, lengths = flat(rows)
    starts = (torch.cumsum(lengths, 0) - lengths).tolist()
    batch = find_windows(one_key(values.tolist(), starts, lengths.tolist()))
    random = torch.Generator().manual_seed(seed)
    index = torch.randint(0, 3, (len(batch.values),), generator=random)
    vectors = torch.randn(3, 5, generator=random, requires_grad=True)
    column = batch.column("item", index)
    gradient = torch.randn(len(values), 5, generator=random)
    found, wanted = expand_windows(vectors, index, column), expand_rows(vectors, lay_out([column]))
    assert torch.equal(found, wanted)
    assert torch.equal(*(torch.autograd.grad(x, vectors, gradient)[0] for x in (found, wanted)))
