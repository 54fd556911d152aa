"""How often rows repeat: row numbers in, counts out."""

import math

import numpy as np

from recd_dist.table.stats.row_repeats import RowRepeats, SampleKeys, Spread, run_lengths

NONE = np.empty(0, np.int64)


def test_a_row_that_two_batches_share_counts_in_both() -> None:
    repeats = RowRepeats(0, 0, {1: 0, 3: 0, 2048: 0})
    repeats = repeats.add(np.array([0, 0, 1, 1]), np.array([True, True, False]))  # sessions 5 5 5 9
    assert repeats == RowRepeats(2, 1, {1: 4, 3: 3, 2048: 2})
    repeats = repeats.add(np.array([7, 7]), np.array([True]))  # sessions 3 3, in a part of their own
    assert repeats == RowRepeats(3, 2, {1: 6, 3: 4, 2048: 3})
    assert repeats.stay_rate == 2 / 3


def test_without_neighbours_there_is_no_stay_rate() -> None:
    assert math.isnan(RowRepeats(0, 0, {}).stay_rate)


def test_run_lengths() -> None:
    sessions, requests = np.array([5, 5, 5, 9, 3, 3]), np.array([1, 1, 2, 3, 4, 4])
    assert run_lengths(sessions).tolist() == [3, 1, 2]
    assert run_lengths(sessions, requests).tolist() == [2, 1, 1, 2]
    assert run_lengths(NONE).tolist() == []


def test_spread() -> None:
    assert Spread.of(np.array([1, 2, 6])) == Spread(3.0, 2.0, 6)
    assert Spread.of(NONE) == Spread(0.0, 0.0, 0)


def test_samples_per_session_in_both_orders() -> None:
    sessions = np.repeat(np.arange(4096), 2)  # a batch of 4096 holds 2048 sessions; in time order it holds all of them
    keys = SampleKeys(sessions, sessions, np.tile([10, 20], 4096), {}, {})
    assert keys.samples_per_session(in_time_order=False) == 2.0
    assert keys.samples_per_session(in_time_order=True) == 1.0
    no_times = SampleKeys(sessions, sessions, np.zeros_like(sessions), {}, {})
    assert math.isnan(no_times.samples_per_session(in_time_order=True))
