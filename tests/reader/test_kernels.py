"""Loops over addresses against plain numpy, on rows that lie in several row groups."""

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from recd_dist.reader import kernels
from recd_dist.table.addresses import address_of

# Three row groups of 5 samples, with the stored row of each: in any order, as in files that nobody has sorted.
stored_rows = st.lists(st.lists(st.integers(0, 3), min_size=5, max_size=5), min_size=3, max_size=3)
orders = st.permutations(range(15)).flatmap(lambda order: st.integers(1, 15).map(lambda size: order[:size]))


def runs_of(order: list[int]) -> np.ndarray:
    runs = np.empty((3, len(order)), np.int32)
    size = kernels.split_into_runs(np.array(order), np.array([5, 10, 15]), runs)
    return runs[:, :size].copy()


@given(orders)
def test_runs_are_the_samples_in_their_order(order) -> None:
    runs = runs_of(order)
    assert [5 * g + first + i for g, first, size in runs.T for i in range(size)] == list(order)
    together = pairwise(order)
    assert runs.shape[1] == 1 + sum(b != a + 1 or b % 5 == 0 for a, b in together)


@settings(max_examples=50)
@given(stored_rows, orders)
def test_unique_rows_in_order_of_first_appearance(stored, order) -> None:
    rows = [np.array(r, np.int32) for r in stored]
    seen = [np.full(4, -1, np.int32) for _ in rows]
    inverse, chosen = np.empty((1, len(order)), np.int32), np.empty((1, 3, len(order)), np.int32)
    num_runs, num_rows = np.empty(1, np.int64), np.empty(1, np.int64)
    addresses = [np.array([[address_of(a)] for a in arrays]) for arrays in (rows, seen)]
    kernels.find_unique_rows(runs_of(order), *addresses, inverse, chosen, num_runs, num_rows)
    wanted = [(i // 5, stored[i // 5][i % 5]) for i in order]
    found = [(g, first + i) for g, first, size in chosen[0, :, : num_runs[0]].T for i in range(size)]
    assert found == list(dict.fromkeys(wanted))
    assert len(found) == num_rows[0]
    assert [found[i] for i in inverse[0]] == wanted
    assert all((s == -1).all() for s in seen)


@settings(max_examples=50)
@given(stored_rows, orders)
def test_single_values_lists_and_windows_are_copied(stored, order) -> None:
    rng = np.random.default_rng(0)
    lists = [[rng.integers(0, 9, n).tolist() for n in rows] for rows in stored]  # 5 rows of each row group
    flat = [np.array([i for row in rows for i in row], np.int32) for rows in lists]
    offsets = [np.cumsum([0, *map(len, rows)], dtype=np.int32) for rows in lists]
    shared = [np.arange(100 * g, 100 * g + 9, dtype=np.int32) for g in range(3)]
    starts, lengths = [np.array(r, np.int32) for r in stored], [np.array(r[::-1], np.int32) for r in stored]
    places = np.zeros((3, 3, 6), np.int64)
    for g in range(3):
        places[g, 0, kernels.VALUES] = address_of(shared[g])
        places[g, 1, [kernels.VALUES, kernels.OFFSETS]] = address_of(flat[g]), address_of(offsets[g])
        places[g, 2, [kernels.VALUES, kernels.STARTS, kernels.LENGTHS]] = (
            address_of(shared[g]), address_of(starts[g]), address_of(lengths[g])
        )  # fmt: skip
    runs = runs_of(order)
    rows = (np.zeros(3, np.int64), runs[None], np.array([runs.shape[1]]))
    found_lengths, counts = np.empty(3 * len(order), np.int32), np.empty(3, np.int64)
    kernels.gather_lengths(places, *rows, address_of(found_lengths), counts)
    ends = np.concatenate([[0], np.cumsum(counts)])
    values = np.empty(ends[-1], np.int32)
    kernels.gather_values(places, kernels.VALUES, np.zeros(3, bool), *rows, 4, address_of(values), ends)
    wanted = [
        [[int(shared[i // 5][i % 5])] for i in order],
        [lists[i // 5][i % 5] for i in order],
        [shared[i // 5][starts[i // 5][i % 5] :][: lengths[i // 5][i % 5]].tolist() for i in order],
    ]
    assert found_lengths.tolist() == [len(row) for feature in wanted for row in feature]
    assert values.tolist() == [i for feature in wanted for row in feature for i in row]
    assert counts.tolist() == [sum(map(len, feature)) for feature in wanted]


def test_an_id_outside_its_table_is_found_in_its_feature() -> None:
    values, offsets = np.array([9, 0, 3, -1, 2], np.int32), np.array([1, 3, 3], np.int32)
    place = [[address_of(values), address_of(offsets), 0, 0, 0, 0]]
    assert kernels.find_outside(np.array(place), np.array([2]), np.array([4])) == -1  # 0 and 3 are in the two lists
    assert kernels.find_outside(np.array(place), np.array([2]), np.array([3])) == 0
    assert kernels.find_outside(np.array([[place[0][0], 0, 0, 0, 0, 0]]), np.array([4]), np.array([10])) == 0  # the -1
    assert kernels.find_outside(np.array(place), np.array([2]), np.array([-1])) == -1  # not looked at
