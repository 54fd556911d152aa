"""Jagged rows and KeyedJaggedTensors from lists of lists, and their comparison."""

import torch
from hypothesis import strategies as st
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

Rows = dict[str, list[list[int]]]
"""For each key a list of ids per sample."""


def flat(rows: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Values and lengths of a jagged column."""
    values = torch.tensor([x for row in rows for x in row], dtype=torch.int64)
    return values, torch.tensor([len(row) for row in rows], dtype=torch.int32)


def kjt_of(
    rows: Rows, weights: dict[str, list[list[float]]] | None = None, dtype: torch.dtype = torch.int64
) -> KeyedJaggedTensor:
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


def assert_same(kjt: KeyedJaggedTensor, expected: KeyedJaggedTensor) -> None:
    """Equal keys, stride, values, lengths and weights, bit for bit."""
    assert kjt.keys() == expected.keys()
    assert kjt.stride() == expected.stride()
    assert kjt.values().dtype == expected.values().dtype
    assert kjt.values().tolist() == expected.values().tolist()
    assert kjt.lengths().tolist() == expected.lengths().tolist()
    assert (kjt.weights_or_none() is None) == (expected.weights_or_none() is None)
    if (weights := expected.weights_or_none()) is not None:
        assert kjt.weights().view(torch.int32).tolist() == weights.view(torch.int32).tolist()


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
    groups = {g: members for g, members in groups.items() if members or draw(st.booleans())}
    dtype = torch.int64 if big or draw(st.booleans()) else torch.int32
    return kjt_of(rows, weights, dtype), groups
