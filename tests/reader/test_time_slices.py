"""A table read in order of time: slices of it, sorted."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.reader.conftest import SmallTable, batches, ids_of, samples_of, write_table

from recd_dist.errors import ConfigError
from recd_dist.reader.order import TIME, Shuffle, shuffle_windows
from recd_dist.reader.time_slices import order_of, slice_bounds, tell_cost


def in_time(table):
    return sorted(range(len(table.samples)), key=lambda n: (table.samples[n].time, n))


@pytest.mark.parametrize("window", [1, 3, 100])
def test_samples_come_in_order_of_time_whatever_the_window(dated, window):
    assert ids_of(batches(dated, order=TIME, window=window)) == in_time(dated)


def test_all_ranks_of_a_step_train_neighbours(dated):
    ranks = [batches(dated, order=TIME, rank=rank, world_size=3, batch_size=8, num_workers=0) for rank in range(3)]
    steps = [ids for step in zip(*ranks, strict=True) for ids in ids_of(step)]
    assert steps == in_time(dated)


def test_slices_end_where_a_row_group_begins_that_would_be_too_many():
    lows, highs = np.array([0, 10, 50, 30]), np.array([20, 35, 90, 70])
    assert slice_bounds(lows, highs, 3).tolist() == [0, 50, 91]
    assert slice_bounds(lows, highs, 9).tolist() == [0, 91]
    assert slice_bounds(lows, highs, 1).tolist() == [0, 10, 30, 50, 91]


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), min_size=1, max_size=30), st.integers(1, 9))
def test_slices_cover_all_times_and_hold_few_row_groups(spans, window):
    lows = np.array([min(span) for span in spans])
    highs = np.array([max(span) for span in spans])
    bounds = slice_bounds(lows, highs, window)
    assert (np.diff(bounds) > 0).all()
    assert bounds[0] == lows.min()
    assert bounds[-1] == highs.max() + 1
    for first, end in pairwise(bounds):
        held, across = ((lows < end) & (highs >= first)).sum(), ((lows < first) & (highs >= first)).sum()
        together = max(np.bincount(lows))
        assert held <= max(window, 2 * across) + together - 1


def test_each_epoch_has_the_same_slices(dated):
    shuffle = order_of(dated.clustered, Shuffle(seed=1, order=TIME, window_size=2))
    windows = shuffle_windows(dated.manifest, shuffle, epoch=4)
    assert windows == shuffle.slices
    assert windows[-1].end == len(dated.samples)
    assert [w.start for w in windows] == [0, *(w.end for w in windows[:-1])]


def test_what_it_costs_is_said(dated, caplog):
    caplog.set_level("INFO")
    tell_cost(order_of(dated.clustered, Shuffle(order=TIME, window_size=2)))
    assert "every rank and worker reads all" in caplog.text
    assert "not reader.window=2: sessions of a partition lie in no order of time" in caplog.text
    caplog.clear()
    tell_cost(Shuffle())
    assert caplog.text == ""


def test_a_table_without_times_is_refused(tmp_path):
    samples = [replace(s, time=0) for s in samples_of(5)]
    table = SmallTable(tmp_path, samples, write_table(tmp_path, samples))
    with pytest.raises(ConfigError, match=r"reader.order=time: all samples of table small/train have the time 0"):
        batches(table, order=TIME)
