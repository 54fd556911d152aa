"""Batches of nearly equal work: no sample is lost, and every rank has as many."""

import threading
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recd_dist.reader.cuts import LARGEST, Cutter, bound_cuts
from recd_dist.reader.intervals import Deal
from recd_dist.reader.order import ShuffleWindow
from recd_dist.reader.sample_work import SampleWork
from recd_dist.reader.work import Work


@dataclass
class Written:
    """Work written down in place of a table: of each shuffle window, of each session, of each sample.

    The first sample of a session bears the session's row; each of the others would bear it, if a batch began there.
    """

    windows: list[list[list[float]]]
    work: Work = field(default_factory=lambda: Work(id=1.0))

    def shuffle_windows(self, epoch: int) -> tuple[ShuffleWindow, ...]:
        del epoch
        sizes = [sum(map(len, sessions)) for sessions in self.windows]
        ends = np.cumsum(sizes).tolist()
        bounds = enumerate(zip(sizes, ends, strict=True))
        return tuple(ShuffleWindow(number, (), end - size, end) for number, (size, end) in bounds)

    def read(self, epoch: int, window: ShuffleWindow) -> SampleWork:
        del epoch
        sessions = self.windows[window.number]
        work = [value for session in sessions for value in session]
        repeated = [0.0 if n == 0 else session[0] for session in sessions for n in range(len(session))]
        starts = np.cumsum([0, *map(len, sessions)])
        return SampleWork(np.cumsum([0.0, *work]), np.array([*repeated, 0.0]), starts)

    @property
    def all_samples(self) -> list[float]:
        return [value for sessions in self.windows for session in sessions for value in session]


def batches_of(deal: Deal) -> list[list[list[int]]]:
    """The samples of each batch of each rank."""
    return [
        [[s for start, end in deal.batch(r, n) for s in range(start, end)] for n in range(deal.num_batches)]
        for r in range(deal.world_size)
    ]


def test_picture():
    reader = Written([[[9, 1, 1, 1], [5, 1, 1], [30, 1, 1], [2, 2]]])
    deal = Cutter(reader).cut(0, Deal(((0, 12),), batch_size=3))
    assert deal.cuts.tolist() == [0, 4, 7, 10, 12]


def test_ranks_and_workers_have_the_same_work():
    reader = Written([[[8], [1], [1], [1], [1], [1], [1], [1], [1]]])
    by_samples = Deal(((0, 9),), world_size=2, batch_size=5)
    deal = Cutter(reader).cut(0, by_samples)
    assert batches_of(by_samples) == [[[0, 1, 2, 3]], [[4, 5, 6, 7, 8]]]
    assert batches_of(deal) == [[[0]], [[1, 2, 3, 4, 5, 6, 7, 8]]]


def test_a_cut_moves_to_where_a_session_begins_unless_that_costs_more():
    cheap_rows = Written([[[2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]]])
    assert Cutter(cheap_rows).cut(0, Deal(((0, 12),), batch_size=6)).cuts.tolist() == [0, 5, 12]
    dear_rows = Written([[[90, 1, 1, 1], [40, 1, 1, 1]]])
    assert Cutter(dear_rows).cut(0, Deal(((0, 8),), batch_size=4)).cuts.tolist() == [0, 4, 8]


def test_where_samples_are_cheap_a_batch_has_at_most_twice_as_many():
    """Read in order of time: histories are short at first."""
    reader = Written([[[1.0]] * 1000, [[19.0]] * 1000])
    deal = Cutter(reader).cut(0, Deal(((0, 2000),), batch_size=100))
    sizes = np.diff(deal.cuts)
    assert sizes.max() <= 200
    assert sizes[0] == pytest.approx(150, abs=2)
    assert np.ptp(sizes[:5]) <= 2
    assert np.ptp(sizes[-10:]) <= 2


def test_no_samples_and_no_lists():
    assert Cutter(Written([])).cut(0, Deal(())).num_batches == 0
    deal = Cutter(Written([[[0.0]] * 10])).cut(0, Deal(((0, 10),), world_size=2, batch_size=3))
    assert np.diff(deal.cuts).tolist() == [2, 3, 2, 3]


def test_a_deal_that_was_cut_is_known_again_by_its_costs():
    reader = Written([[[9, 1, 1, 1], [5, 1, 1], [30, 1, 1], [2, 2]]])
    by_samples = Deal(((0, 12),), batch_size=3)
    deal = Cutter(reader).cut(0, by_samples)
    stored = deal.to_json(2)
    assert deal.is_continued(stored, ((7, 12),))
    assert not by_samples.is_stored_as(stored)
    assert not deal.is_stored_as(by_samples.to_json(2))


sessions = st.lists(st.lists(st.integers(0, 50).map(float), min_size=1, max_size=9), min_size=1, max_size=12)
runs = st.lists(st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(1, 20), st.floats(0, 1)), max_size=4)


@settings(max_examples=200, deadline=None)
@given(st.lists(sessions, min_size=1, max_size=5), runs)
def test_every_sample_exactly_once_whatever_the_sequence_of_runs(windows, stops):
    """World size, workers and batch size change at every stop; the last run goes to the end."""
    reader, seen = Written(windows), []
    remaining = ((0, len(reader.all_samples)),)
    for world_size, num_workers, batch_size, share in [*stops, (1, 2, 16, 1.0)]:
        left = sum(end - start for start, end in remaining)
        by_samples = Deal(remaining, min(world_size, max(left, 1)), num_workers, batch_size)
        deal = Cutter(reader).cut(0, by_samples)
        assert deal.num_batches == by_samples.num_batches
        trained = deal.num_batches if share == 1.0 else int(share * deal.num_batches)
        for rank in range(deal.world_size):
            for number in range(trained):
                batch = deal.batch(rank, number)
                samples = [s for start, end in batch for s in range(start, end)]
                assert 1 <= len(samples) <= LARGEST * batch_size
                assert deal.gapless_end(rank, number) >= batch[-1][1]
                seen += samples
        remaining = deal.remaining_after(trained)
    assert remaining == ()
    assert sorted(seen) == list(range(len(reader.all_samples)))


@settings(max_examples=200, deadline=None)
@given(st.lists(sessions, min_size=1, max_size=5), st.integers(1, 4), st.integers(2, 20))
def test_the_work_of_batches_differs_by_sessions_only(windows, world_size, batch_size):
    """Unless a batch would be too large: each cut lies within a session of its exact place."""
    reader = Written(windows)
    work = np.array(reader.all_samples)
    if len(work) < world_size:
        return
    deal = Cutter(reader).cut(0, Deal(((0, len(work)),), world_size, 1, batch_size))
    sizes = np.diff(deal.cuts)
    if sizes.max() >= LARGEST * batch_size or sizes.min() <= 1 or len(windows) > 1:
        return
    largest_session = max(sum(session) for sessions in windows for session in sessions)
    of_batches = [work[start:end].sum() for start, end in pairwise(deal.cuts)]
    assert max(of_batches) <= work.sum() / deal.num_all_batches + 2 * largest_session + 1e-9


@settings(max_examples=50, deadline=None)
@given(st.lists(sessions, min_size=1, max_size=7), st.integers(2, 4))
def test_ranks_that_read_a_part_each_cut_as_one_that_reads_all(windows, world_size):
    reader = Written(windows)
    whole = Deal(((0, len(reader.all_samples)),), 1, 1, 4)
    found, shown, barrier = [None] * world_size, [None] * world_size, threading.Barrier(world_size)

    def cut(rank: int) -> None:
        def gather(mine):
            shown[rank] = mine
            barrier.wait(10)
            everyone = list(shown)
            barrier.wait(10)
            return everyone

        found[rank] = Cutter(reader, rank, world_size, gather).cut(0, whole).cuts.tolist()

    threads = [threading.Thread(target=cut, args=(rank,)) for rank in range(world_size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert found == [Cutter(reader).cut(0, whole).cuts.tolist()] * world_size


@given(st.lists(st.integers(0, 60), max_size=20), st.integers(0, 30), st.integers(1, 9))
def test_bounds_hold_whatever_is_given(inner, more, largest):
    num_batches = len(inner) + 1
    num_samples = min(num_batches * largest, num_batches + more)
    sizes = np.diff(bound_cuts(np.sort(np.array(inner, np.int64)), num_samples, largest))
    assert sizes.sum() == num_samples
    assert sizes.min() >= 1
    assert sizes.max() <= largest
