"""IKJT in literals: unique rows and the inverse, views of them, and their expansion."""

import pickle

import pytest
import torch
from hypothesis import given
from tests.tensors.kjts import assert_same, batches, kjt_of

from recd_dist.tensors.deduplicate import deduplicate
from recd_dist.tensors.ikjt import IKJT, GroupLayout

SAMPLES = {
    "item": [[7, 8], [7, 8], [9], [7, 8]],
    "shop": [[1], [1], [], [1]],
    "cand": [[5], [6], [5], [5]],
}


@pytest.fixture
def batch() -> IKJT:
    return deduplicate(kjt_of(SAMPLES), {"history": ["item", "shop"]})


def test_unique_rows_and_inverse(batch: IKJT) -> None:
    assert batch.groups == (GroupLayout("history", ("item", "shop"), 2), GroupLayout("sample", ("cand",), 4))
    assert batch.values.tolist() == [7, 8, 9, 1, 5, 6, 5, 5]
    assert batch.lengths.tolist() == [2, 1, 1, 0, 1, 1, 1, 1]
    assert batch.inverse.tolist() == [0, 0, 1, 0]
    assert batch.value_offsets == (0, 3, 4, 8)


def test_parts(batch: IKJT) -> None:
    assert batch.keys == ("item", "shop", "cand")
    assert batch.dedup_groups == ("history",)
    assert (batch.group_of("shop"), batch.num_rows("history"), batch.num_values("item")) == ("history", 2, 3)
    assert batch.values_of("shop").tolist() == [1]
    assert batch.lengths_of("shop").tolist() == [1, 0]
    assert batch.weights_of("shop") is None
    assert batch.inverse_of("sample") is None
    assert batch.count_expanded_values() == {"item": 7, "shop": 3, "cand": 4}


def test_expansion(batch: IKJT) -> None:
    assert_same(batch.to_kjt(SAMPLES), kjt_of(SAMPLES))
    assert_same(batch.to_kjt(["cand", "item"]), kjt_of({"cand": SAMPLES["cand"], "item": SAMPLES["item"]}))
    full = batch.expand()
    assert full.groups == (GroupLayout("sample", ("item", "shop", "cand"), 4),)
    assert full.dedup_groups == ()


def test_unique_rows_are_views(batch: IKJT) -> None:
    rows = batch.rows_as_kjt("history")
    assert_same(rows, kjt_of({"item": [[7, 8], [9]], "shop": [[1], []]}))
    assert rows.values().data_ptr() == batch.values.data_ptr()
    assert rows.lengths().data_ptr() == batch.lengths.data_ptr()


def test_select_of_no_key_keeps_the_groups_and_weights_of_none() -> None:
    lengths, none = torch.tensor([1, 2], dtype=torch.int32), torch.empty(0, dtype=torch.int32)
    groups = (GroupLayout("sample", ("item",), 2),)
    part = IKJT(groups, 2, torch.tensor([1, 2, 3]), lengths, none, (0, 3), torch.ones(3)).select([])

    assert part.groups == (GroupLayout("sample", (), 2),)
    assert part.weights is not None
    assert part.weights.shape == (0,)


def test_select_keeps_every_group(batch: IKJT) -> None:
    part = batch.select(["cand", "shop"])
    assert part.groups == (GroupLayout("history", ("shop",), 2), GroupLayout("sample", ("cand",), 4))
    assert_same(part.to_kjt(), kjt_of({"shop": SAMPLES["shop"], "cand": SAMPLES["cand"]}))


@given(batches())
def test_pickle_and_moves(given_batch: tuple) -> None:
    kjt, groups = given_batch
    ikjt = deduplicate(kjt, groups)
    for other in (pickle.loads(pickle.dumps(ikjt)), ikjt.to(device=torch.device("cpu"))):
        assert other.groups == ikjt.groups
        assert_same(other.to_kjt(kjt.keys()), kjt)
    ikjt.record_stream(None)  # type: ignore[arg-type]


def test_group_without_keys_has_an_inverse() -> None:
    batch = IKJT(
        (GroupLayout("g", (), 2), GroupLayout("sample", ("c",), 3)),
        3,
        torch.tensor([1, 2, 3]),
        torch.ones(3, dtype=torch.int32),
        torch.tensor([0, 1, 1], dtype=torch.int32),
        (0, 3),
    )
    assert batch.inverse_of("g").tolist() == [0, 1, 1]  # type: ignore[union-attr]
    assert_same(batch.to_kjt(), kjt_of({"c": [[1], [2], [3]]}))
    with pytest.raises(ValueError, match=r"group 'g' has no id features"):
        batch.rows_as_kjt("g")


def ints(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"values": torch.tensor([1, 2])}, r"values has shape \(2,\), the layout .* wants \(3,\)"),
        ({"lengths": ints(1, 1)}, r"lengths has shape \(2,\)"),
        ({"inverse": ints(0)}, r"inverse has shape \(1,\)"),
        ({"value_offsets": (0, 3)}, r"value_offsets has shape 2"),
        ({"weights": torch.ones(2)}, r"weights has shape \(2,\)"),
        ({"values": torch.ones(3)}, r"values are torch.float32, wanted int32 or int64"),
        ({"lengths": torch.ones(3, dtype=torch.int64)}, r"lengths are torch.int64, wanted int32"),
        ({"inverse": torch.zeros(2, dtype=torch.int64)}, r"inverse are torch.int64, wanted int32"),
        (
            {"groups": (GroupLayout("g", ("a",), 1), GroupLayout("sample", ("a",), 2))},
            r"keys must differ, found \('a', 'a'\)",
        ),
        (
            {"groups": (GroupLayout("g", ("a",), 2), GroupLayout("sample", ("c",), 1))},
            r"group 'sample' has 1 rows, wanted one per sample: 2",
        ),
        (
            {
                "groups": (GroupLayout("g", ("a",), 0), GroupLayout("sample", ("c",), 2)),
                "lengths": ints(1, 1),
            },
            r"group 'g' has no rows for 2 samples",
        ),
    ],
)
def test_shapes_that_do_not_fit(change: dict, message: str) -> None:
    good = {
        "groups": (GroupLayout("g", ("a",), 1), GroupLayout("sample", ("c",), 2)),
        "batch_size": 2,
        "values": torch.tensor([1, 2, 3]),
        "lengths": ints(1, 1, 1),
        "inverse": ints(0, 0),
        "value_offsets": (0, 1, 3),
    }
    IKJT(**good)
    with pytest.raises(ValueError, match=message):
        IKJT(**{**good, **change})


def test_names_that_do_not_exist(batch: IKJT) -> None:
    with pytest.raises(KeyError, match=r"no key 'x', there are \('item', 'shop', 'cand'\)"):
        batch.values_of("x")
    with pytest.raises(KeyError, match=r"no group 'x', there are \('history', 'sample'\)"):
        batch.num_rows("x")


def test_picture(batch: IKJT) -> None:
    assert repr(batch).splitlines() == [
        "IKJT(4 samples, 8 int64 ids)",
        "  history: 2 rows, 2.00 samples a row",
        "    item: [7, 8] [9]",
        "    shop: [1] []",
        "    inverse: [0, 0, 1, 0]",
        "  sample: 4 rows",
        "    cand: [5] [6] [5] ..",
    ]
