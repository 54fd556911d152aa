"""The order of an epoch: row groups and sessions move, samples of a session stay together."""

import numpy as np

from recd_dist.reader.order import Shuffle, permutation, sample_order, shuffle_windows


def test_permutations_never_change():
    assert permutation(8, 0, 0).tolist() == [4, 2, 0, 7, 5, 6, 1, 3]
    assert sorted(permutation(1000, 3, 1).tolist()) == list(range(1000))
    assert permutation(1000, 3, 1).tolist() != permutation(1000, 3, 2).tolist()


def test_sessions_stay_whole_and_move():
    sessions = [np.array([1, 1, 1, 2, 3, 3]), np.array([3, 4, 4])]
    order = sample_order(sessions, Shuffle(seed=1), epoch=0, number=0)
    runs = {(0, 1, 2), (3,), (4, 5), (6,), (7, 8)}  # session 3 of the second row group is another one
    found, rest = [], order.tolist()
    while rest:
        run = next(r for r in runs if r[0] == rest[0])
        assert tuple(rest[: len(run)]) == run
        found.append(run)
        rest = rest[len(run) :]
    assert set(found) == runs
    orders = {tuple(sample_order(sessions, Shuffle(seed=s), 0, 0).tolist()) for s in range(20)}
    assert len(orders) > 10


def test_samples_of_a_session_come_together_from_rows_in_order_of_time():
    """As files that are read directly may have them; within a row group, whose samples alone are compared."""
    sessions = [np.array([7, 8, 7, 8, 9, 7]), np.array([9, 7]), np.array([], np.int64)]
    orders = [tuple(sample_order(sessions, Shuffle(seed=s), 0, 0).tolist()) for s in range(30)]
    runs = [(0, 2, 5), (1, 3), (4,), (6,), (7,)]
    for order in orders:
        assert sorted(order) == list(range(8))
        assert all(order[order.index(run[0]) :][: len(run)] == run for run in runs)
    assert len(set(orders)) > 10
    assert sample_order([np.array([7, 8, 7])], Shuffle(order="table"), 0, 0).tolist() == [0, 1, 2]


def test_without_shuffle_the_table_keeps_its_order(small):
    windows = shuffle_windows(small.manifest, Shuffle(order="table", window_size=4), epoch=3)
    places = [(g.part, g.index) for w in windows for g in w.row_groups]
    assert places == sorted(places)
    assert sample_order([np.array([5, 4, 5])], Shuffle(order="table"), 0, 0).tolist() == [0, 1, 2]


def test_shuffle_windows_cover_the_table_once(small):
    windows = shuffle_windows(small.manifest, Shuffle(seed=7, window_size=4), epoch=1)
    places = [(g.part, g.index) for w in windows for g in w.row_groups]
    there = [(p, i) for p, part in enumerate(small.manifest.parts) for i in range(len(part.samples.row_groups))]
    assert sorted(places) == there
    assert places != there
    assert [w.start for w in windows] == [0, *(w.end for w in windows[:-1])]
    assert windows[-1].end == small.manifest.num_samples
