"""Every transform gives what a plain slow version gives, row by row, on any lists."""

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from recd_dist.reader.transform_registry import REGISTRY
from recd_dist.table.column import Column, Windows
from recd_dist.table.hash import GOLDEN, splitmix64

IDS = st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 9)
ROWS = st.lists(st.lists(IDS, max_size=5), max_size=8)
WEIGHTED = st.lists(st.lists(st.tuples(IDS, st.floats(-4, 4, width=32)), max_size=5), max_size=8)
NUMBERS = st.lists(st.floats(-1e6, 1e6, width=32), max_size=12)


def to_column(rows, weights=None):
    flat = [value for row in rows for value in row]
    offsets = np.cumsum([0, *map(len, rows)])
    return Column(np.array(flat, np.int64), offsets, None if weights is None else np.array(weights, np.float32))


def to_rows(column, of=None):
    of = column.values if of is None else of
    return [of[a:b].tolist() for a, b in zip(column.offsets, column.offsets[1:], strict=False)]


def hashed(value, n):
    return int(splitmix64(np.array([value], np.int64).view(np.uint64))[0] % np.uint64(n))


SLOW = {
    "hash": (lambda row, n: [hashed(v, n) for v in row], st.fixed_dictionaries({"n": st.integers(1, 1000)})),
    "modulus": (lambda row, n: [v % n for v in row], st.fixed_dictionaries({"n": st.integers(1, 1000)})),
    "first_x": (lambda row, x: row[:x], st.fixed_dictionaries({"x": st.integers(1, 6)})),
    "last_x": (lambda row, x: row[-x:], st.fixed_dictionaries({"x": st.integers(1, 6)})),
    "fill": (lambda row, value: row or [value], st.fixed_dictionaries({"value": st.integers(0, 9)})),
    "clamp": (
        lambda row, min, max: [sorted((min, v, max))[1] for v in row],
        st.fixed_dictionaries({"min": st.integers(-5, 0), "max": st.integers(1, 9)}),
    ),
    "bucketize": (
        lambda row, boundaries: [sum(v >= b for b in boundaries) for v in row],
        st.fixed_dictionaries({"boundaries": st.sets(st.integers(-9, 9), min_size=1).map(sorted)}),
    ),
}
"""For each transform of ids what it does to a row, and its arguments."""


@settings(max_examples=60, deadline=None)
@given(ROWS, st.data())
def test_transforms_of_ids(rows, data):
    for name, (slow, arguments) in SLOW.items():
        chosen = data.draw(arguments)
        if name == "bucketize":  # boundaries are numbers: int64 beyond 2^53 is compared as float64
            rows = [[v for v in row if abs(v) < 2**53] for row in rows]
        assert to_rows(REGISTRY[name].apply(to_column(rows), **chosen)) == [slow(row, **chosen) for row in rows], name


@settings(max_examples=60, deadline=None)
@given(WEIGHTED, st.integers(1, 4), st.sampled_from(["sum", "l2", "max"]))
def test_weights_go_where_their_ids_go(pairs, x, by):
    column = to_column([[v for v, _ in row] for row in pairs], [w for row in pairs for _, w in row])
    for name, wanted in (("first_x", [r[:x] for r in pairs]), ("last_x", [r[-x:] for r in pairs])):
        cut = REGISTRY[name].apply(column, x=x)
        assert [list(zip(*p, strict=True)) for p in zip(to_rows(cut), to_rows(cut, cut.weights), strict=True)] == wanted
    filled = REGISTRY["fill"].apply(column, value=7)
    assert to_rows(filled, filled.weights) == [[w for _, w in row] or [1.0] for row in pairs]
    norms = {"sum": lambda w: sum(map(abs, w)), "l2": lambda w: math.hypot(*w), "max": lambda w: max(map(abs, w))}
    scaled = to_rows(column, REGISTRY["normalize_weights"].apply(column, by=by).weights)
    for row, found in zip(pairs, scaled, strict=True):
        weights = [w for _, w in row]
        size = (norms[by](weights) if weights else 0) or 1.0
        np.testing.assert_allclose(found, [w / size for w in weights], rtol=1e-5, atol=1e-30)


@settings(max_examples=60, deadline=None)
@given(NUMBERS)
def test_transforms_of_numbers(numbers):
    slow = {
        "log": ({}, lambda v: math.copysign(math.log1p(abs(v)), v)),
        "standardize": ({"mean": 3.0, "std": 2.0}, lambda v: (v - 3) / 2),
        "min_max": ({"min": -1.0, "max": 3.0}, lambda v: (v + 1) / 4),
        "clamp": ({"min": -2.0, "max": 5.0}, lambda v: min(max(v, -2.0), 5.0)),
        "bucketize": ({"boundaries": [-1.0, 0.5]}, lambda v: float((v >= -1) + (v >= 0.5))),
    }
    for name, (arguments, one) in slow.items():
        found = REGISTRY[name].apply(Column(np.array(numbers, np.float32)), **arguments).values
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, [one(v) for v in numbers], rtol=1e-5, atol=1e-6, err_msg=name)


def slow_cross(values, n):
    """One combination after the other, with the numbers of splitmix64 written out."""
    mask = 2**64 - 1

    def scramble(x):
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
        return x ^ (x >> 31)

    state = int(GOLDEN)
    for value in values:
        state = (scramble(state ^ (value & mask)) + int(GOLDEN)) & mask
    return scramble(state) % n


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(IDS, st.lists(IDS, max_size=3), st.lists(IDS, max_size=3)), max_size=6), st.integers(1, 50))
def test_cross_and_one_hot(rows, n):
    single = Column(np.array([a for a, _, _ in rows], np.int64))
    lists = [to_column([row[place] for row in rows]) for place in (1, 2)]
    crossed = REGISTRY["cross"].apply([single, *lists], n=n)
    assert to_rows(crossed) == [[slow_cross((a, x, y), n) for x in b for y in c] for a, b, c in rows]
    alone = REGISTRY["cross"].apply([single, single], n=n)
    assert (alone.offsets, alone.values.tolist()) == (None, [slow_cross((a, a), n) for a, _, _ in rows])
    assert REGISTRY["one_hot"].apply([single], value=2).values.tolist() == [float(a == 2) for a, _, _ in rows]
    assert REGISTRY["one_hot"].apply([lists[0]], value=2).values.tolist() == [float(2 in b) for _, b, _ in rows]


@st.composite
def windows(draw):
    """Windows over shared values, some of which are in no window; with weights or without."""
    values = np.array(draw(st.lists(st.integers(-3, 9), min_size=1, max_size=9)), np.int64)
    bounds = st.tuples(st.integers(0, len(values)), st.integers(0, len(values))).map(sorted)
    chosen = np.array(draw(st.lists(bounds, max_size=6)), np.int32).reshape(-1, 2)
    weights = np.linspace(-1, 2, len(values), dtype=np.float32) if draw(st.booleans()) else None
    return Windows(values, chosen[:, 0], chosen[:, 1] - chosen[:, 0], weights)


def as_lists(rows):
    column = rows.to_lists() if isinstance(rows, Windows) else rows
    return to_rows(column), None if column.weights is None else to_rows(column, column.weights)


@settings(max_examples=60, deadline=None)
@given(windows(), st.data())
def test_windows_give_what_their_lists_give(rows, data):
    arguments = {name: data.draw(chosen) for name, (_, chosen) in SLOW.items()} | {"normalize_weights": {"by": "sum"}}
    for name, chosen in arguments.items():
        found = REGISTRY[name].apply(rows, **chosen)
        assert as_lists(found) == as_lists(REGISTRY[name].apply(rows.to_lists(), **chosen)), name
        assert isinstance(found, Windows) == (name != "normalize_weights"), name
    single = Column(np.arange(len(rows)))
    for name, inputs, chosen in (
        ("copy", lambda r: [r], {}),
        ("cross", lambda r: [single, r, r], {"n": 99}),
    ):
        lists = REGISTRY[name].apply(inputs(rows.to_lists()), **chosen)
        assert as_lists(REGISTRY[name].apply(inputs(rows), **chosen)) == as_lists(lists), name
    hot = [REGISTRY["one_hot"].apply([r], value=2).values.tolist() for r in (rows, rows.to_lists())]
    assert hot[0] == hot[1]
