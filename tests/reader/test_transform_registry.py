"""Each transform on a column, in literals."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np

from recd_dist.reader import list_transforms, value_transforms
from recd_dist.table.column import Column

t = SimpleNamespace(**vars(value_transforms) | vars(list_transforms))


def lists(*rows, dtype=np.int64):
    return Column(np.array([i for r in rows for i in r], dtype), np.cumsum([0, *map(len, rows)]))


def rows(column):
    return [column.values[a:b].tolist() for a, b in zip(column.offsets, column.offsets[1:], strict=False)]


def dense(*values):
    return Column(np.array(values, np.float32))


def test_first_x():
    assert rows(t.first_x(lists([1, 2, 3], [], [4]), 2)) == [[1, 2], [], [4]]


def test_last_x():
    assert rows(t.last_x(lists([1, 2, 3], [], [4]), 2)) == [[2, 3], [], [4]]


def test_weights_are_cut_as_their_ids_are():
    column = replace(lists([1, 2, 3], [], [4]), weights=np.array([0.5, -1, 2, 3], np.float32))
    assert t.first_x(column, 2).weights.tolist() == [0.5, -1, 3]
    assert t.last_x(column, 1).weights.tolist() == [2, 3]
    for kept in (t.hash_ids(column, 9), t.clamp(column, max=2), t.bucketize(column, [2]), t.first_x(column, 9)):
        assert kept.weights.tolist() == [0.5, -1, 2, 3]


def test_first_x_of_short_lists_copies_nothing():
    column = lists([1], [2])
    assert t.first_x(column, 2) is column


def test_clamp():
    assert t.clamp(dense(-1, 5, 20), min=0, max=10).values.tolist() == [0, 5, 10]
    assert rows(t.clamp(lists([7, 99], dtype=np.int32), max=50)) == [[7, 50]]
    assert t.clamp(lists([7, 99], dtype=np.int32), max=50).values.dtype == np.int32


def test_log_keeps_the_sign():
    np.testing.assert_allclose(t.log(dense(0, np.e - 1, 1 - np.e)).values, [0, 1, -1], rtol=1e-6)


def test_bucketize():
    assert t.bucketize(dense(0.5, 1, 9), [1, 5]).values.tolist() == [0, 1, 2]
    assert rows(t.bucketize(lists([0, 5], [7]), [1, 5])) == [[0, 2], [2]]


def test_standardize():
    assert t.standardize(dense(1, 3), mean=2, std=0.5).values.tolist() == [-2, 2]
    assert t.standardize(dense(4, 4), mean=4, std=0).values.tolist() == [0, 0]


def test_hash_spreads_any_integer_over_all_rows():
    ids = np.array([-(2**63), -1, 0, 1, 2**63 - 1, *range(1000)])
    hashed = t.hash_ids(Column(ids), 100).values
    assert hashed.min() >= 0
    assert set(hashed.tolist()) == set(range(100))
    assert hashed[:5].tolist() == t.hash_ids(Column(ids[:5]), 100).values.tolist()


def test_hash_never_changes():
    assert t.hash_ids(Column(np.array([-1, 0, 1, 2**40])), 1000).values.tolist() == [936, 535, 465, 641]


def test_modulus_is_never_negative():
    assert rows(t.modulus(lists([-1, 7], [], [2**40]), 5)) == [[4, 2], [], [2**40 % 5]]


def test_fill():
    assert rows(t.fill(lists([1, 2], [], [3], []), 9)) == [[1, 2], [9], [3], [9]]
    assert t.fill(dense(1, np.nan, -np.inf), 5).values.tolist() == [1, 5, 5]
    weighted = replace(lists([1], []), weights=np.array([0.5], np.float32))
    assert t.fill(weighted, 9).weights.tolist() == [0.5, 1]
    whole = lists([1], [2])
    assert t.fill(whole, 9) is whole


def test_min_max():
    assert t.min_max(dense(2, 4, 6, 8), min=2, max=6).values.tolist() == [0, 0.5, 1, 1.5]
    assert t.min_max(dense(3, 3), min=3, max=3).values.tolist() == [0, 0]


def test_normalize_weights():
    column = replace(lists([1, 2], [], [3], [4, 5]), weights=np.array([3, -4, 2, 0, 0], np.float32))
    for by, wanted in (
        ("sum", [3 / 7, -4 / 7, 1, 0, 0]),
        ("l2", [0.6, -0.8, 1, 0, 0]),
        ("max", [0.75, -1, 1, 0, 0]),
    ):
        np.testing.assert_allclose(t.normalize_weights(column, by).weights, wanted, rtol=1e-6)
