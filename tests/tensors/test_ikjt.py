"""IKJT: rows, unique rows, inverse, in literals; then any input there and back."""

import pickle

import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from recd_dist.tensors.ikjt import IKJT, GroupLayout

Rows = dict[str, list[list[int]]]


def kjt_of(rows: Rows, weights: dict[str, list[list[float]]] | None = None, dtype: torch.dtype = torch.int64):
    size = len(next(iter(rows.values()), []))
    return KeyedJaggedTensor(
        keys=list(rows),
        values=torch.tensor([x for lists in rows.values() for row in lists for x in row], dtype=dtype),
        lengths=torch.tensor([len(row) for lists in rows.values() for row in lists], dtype=torch.int32),
        weights=None
        if weights is None
        else torch.tensor([x for lists in weights.values() for row in lists for x in row], dtype=torch.float32),
        stride=size,
    )


def assert_same(found: KeyedJaggedTensor, wanted: KeyedJaggedTensor) -> None:
    """Equal keys, stride, values, lengths and weights, bit for bit."""
    assert found.keys() == wanted.keys()
    assert found.stride() == wanted.stride()
    assert found.values().dtype == wanted.values().dtype
    assert found.values().tolist() == wanted.values().tolist()
    assert found.lengths().tolist() == wanted.lengths().tolist()
    assert (found.weights_or_none() is None) == (wanted.weights_or_none() is None)
    if (weights := wanted.weights_or_none()) is not None:
        assert found.weights().view(torch.int32).tolist() == weights.view(torch.int32).tolist()


SAMPLES = {
    "item": [[7, 8], [7, 8], [9], [7, 8]],
    "shop": [[1], [1], [], [1]],
    "cand": [[5], [6], [5], [5]],
}


@pytest.fixture
def batch() -> IKJT:
    return IKJT.from_kjt(kjt_of(SAMPLES), {"history": ["item", "shop"]})


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
    assert batch.expanded_num_values() == {"item": 7, "shop": 3, "cand": 4}


def test_expansion(batch: IKJT) -> None:
    assert_same(batch.to_kjt(SAMPLES), kjt_of(SAMPLES))
    assert_same(batch.to_kjt(["cand", "item"]), kjt_of({"cand": SAMPLES["cand"], "item": SAMPLES["item"]}))
    full = batch.expanded()
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


def test_rows_are_equal_only_if_all_keys_are() -> None:
    rows = {"a": [[1], [1]], "b": [[2], [3]]}
    assert IKJT.from_kjt(kjt_of(rows), {"g": ["a", "b"]}).num_rows("g") == 2
    apart = IKJT.from_kjt(kjt_of(rows), {"g": ["a"], "h": ["b"]})
    assert (apart.num_rows("g"), apart.num_rows("h")) == (1, 2)


def test_where_a_list_ends_matters() -> None:
    rows = {"a": [[1, 2], [1]], "b": [[3], [2, 3]]}
    assert IKJT.from_kjt(kjt_of(rows), {"g": ["a", "b"]}).num_rows("g") == 2
    prefix = {"a": [[10], [10, 11], [10, 11, 12], [10]]}
    assert IKJT.from_kjt(kjt_of(prefix), {"g": ["a"]}).inverse.tolist() == [0, 1, 2, 0]


def test_weights_decide_too() -> None:
    rows, nan = {"a": [[1], [1], [1], [1], [1]]}, float("nan")
    batch = IKJT.from_kjt(kjt_of(rows, {"a": [[0.5], [2.0], [nan], [0.5], [nan]]}), {"g": ["a"]})
    assert batch.inverse.tolist() == [0, 1, 2, 0, 2]
    zero = IKJT.from_kjt(kjt_of(rows, {"a": [[0.0], [-0.0], [0.0], [-0.0], [0.0]]}), {"g": ["a"]})
    assert zero.inverse.tolist() == [0, 1, 0, 1, 0]


@st.composite
def batches(draw: st.DrawFn) -> tuple[KeyedJaggedTensor, dict[str, list[str]]]:
    """Few distinct lists, many repeats; 0 to 3 groups over 1 to 4 keys; ids small, large or negative."""
    size = draw(st.integers(0, 8))
    keys = [f"k{n}" for n in range(draw(st.integers(1, 4)))]
    big = draw(st.booleans())
    ids = st.sampled_from([0, 1, -1, 2**62, -(2**63)] if big else [0, 1, 2])
    lists = draw(st.lists(st.lists(ids, max_size=3), min_size=1, max_size=3))
    rows = {k: [draw(st.sampled_from(lists)) for _ in range(size)] for k in keys}
    weights = None
    if draw(st.booleans()):
        floats = st.sampled_from([0.0, -0.0, 1.5, float("nan")])
        weights = {k: [[draw(floats) for _ in row] for row in rows[k]] for k in keys}
    place = {k: draw(st.sampled_from(["sample", "g", "h", "i"])) for k in keys}
    groups = {g: [k for k in keys if place[k] == g] for g in ("g", "h", "i")}
    groups = {g: named for g, named in groups.items() if named or draw(st.booleans())}
    dtype = torch.int64 if big or draw(st.booleans()) else torch.int32
    return kjt_of(rows, weights, dtype), groups


@given(batches())
def test_from_kjt_and_to_kjt_are_inverses(given_batch: tuple) -> None:
    kjt, groups = given_batch
    ikjt = IKJT.from_kjt(kjt, groups)
    assert_same(ikjt.to_kjt(kjt.keys()), kjt)
    for group in ikjt.dedup_groups:
        inverse = ikjt.inverse_of(group)
        assert inverse is not None
        assert sorted(set(inverse.tolist())) == list(range(ikjt.num_rows(group)))
    again = IKJT.from_kjt(ikjt.to_kjt(kjt.keys()), groups)
    assert repr(again) == repr(ikjt)


@given(batches())
def test_arrow_and_back(given_batch: tuple) -> None:
    kjt, groups = given_batch
    ikjt = IKJT.from_kjt(kjt, groups)
    back = IKJT.from_arrow(ikjt.to_arrow())
    assert repr(back) == repr(ikjt)
    assert_same(back.to_kjt(kjt.keys()), kjt)


@given(batches())
def test_pickle_and_moves(given_batch: tuple) -> None:
    kjt, groups = given_batch
    ikjt = IKJT.from_kjt(kjt, groups)
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
    assert repr(IKJT.from_arrow(batch.to_arrow())) == repr(batch)
    with pytest.raises(ValueError, match=r"group 'g' has no id features"):
        batch.rows_as_kjt("g")


def test_ids_reach_arrow_without_a_copy(batch: IKJT) -> None:
    column = batch.to_arrow()["history"].column("item")
    assert column.type == pa.list_(pa.field("item", pa.int64(), nullable=False))
    assert column.values.buffers()[1].address == batch.values.data_ptr()
    assert batch.to_arrow()["sample"].column("history_row").to_pylist() == [0, 0, 1, 0]


def test_arrow_scalar_columns_are_lists_of_one() -> None:
    sample = pa.record_batch({"c": pa.array([4, 5], pa.int32())})
    assert_same(IKJT.from_arrow({"sample": sample}).to_kjt(), kjt_of({"c": [[4], [5]]}, dtype=torch.int32))


def test_ids_may_be_called_weights() -> None:
    rows = {"x": [[1]], "x_weights": [[2, 3]]}
    ikjt = IKJT.from_kjt(kjt_of(rows), {})
    assert_same(IKJT.from_arrow(ikjt.to_arrow()).to_kjt(), kjt_of(rows))


def test_sliced_arrow_columns() -> None:
    column = pa.array([[9], [1, 2], [], [3], [9]], pa.list_(pa.field("item", pa.int64(), nullable=False)))
    sample = pa.RecordBatch.from_arrays([column], names=["x"]).slice(1, 3)
    assert_same(IKJT.from_arrow({"sample": sample}).to_kjt(), kjt_of({"x": [[1, 2], [], [3]]}))


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({}, r"no record batch 'sample'"),
        ({"sample": pa.record_batch({"c": pa.array([1, None])})}, r"column 'c' of group 'sample' has 1 nulls"),
        ({"sample": pa.record_batch({"c": pa.array([[1, None]])})}, r"lists of 'c' in group 'sample' hold 1 nulls"),
        (
            {"g": pa.record_batch({"a": pa.array([1])}), "sample": pa.record_batch({"c": pa.array([1])})},
            r"has no column 'g_row'",
        ),
        (
            {"g": pa.record_batch({"a": pa.array([1])}), "sample": pa.record_batch({"g_row": pa.array([0, 1])})},
            r"'g_row' goes from 0 to 1, group has 1 rows",
        ),
    ],
)
def test_arrow_errors(groups: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        IKJT.from_arrow(groups)


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
    with pytest.raises(ValueError, match=r"groups name keys \['x'\]"):
        IKJT.from_kjt(kjt_of(SAMPLES), {"g": ["x"]})
    with pytest.raises(ValueError, match=r"a key may be in one group only"):
        IKJT.from_kjt(kjt_of(SAMPLES), {"g": ["item"], "h": ["item"]})


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
