"""Batches that are filled with whole sessions, and up to a number of ids."""

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.reader.conftest import batches, loader
from tests.reader.test_cuts import Written, batches_of

from recd_dist.reader.fill import Filler, halve_largest
from recd_dist.reader.intervals import Deal
from recd_dist.reader.order import Shuffle
from recd_dist.reader.sample_work import WorkReader
from recd_dist.reader.work import CountedList, Work
from recd_dist.table.schema import Kind


def sizes_of(deal: Deal) -> list[int]:
    return np.diff(deal.cuts).tolist()


def test_picture():
    reader = Written([[[0] * n for n in (4, 5, 2, 1, 5, 3)]])
    assert sizes_of(Filler(reader, keeps_sessions=True).cut(0, Deal(((0, 20),), batch_size=8))) == [4, 8, 8]
    assert sizes_of(Filler(reader).cut(0, Deal(((0, 20),), batch_size=8))) == [8, 8, 4]


def test_ids_bound_a_batch_and_rows_count_once_more_where_a_session_is_cut():
    """The first sample of a session bears its row of 5 or 9 ids, the others none."""
    reader = Written([[[5, 0, 0], [9, 0], [5, 0, 0]]])
    assert sizes_of(Filler(reader, max_ids=10).cut(0, Deal(((0, 8),), batch_size=100))) == [3, 2, 3]
    assert sizes_of(Filler(reader, max_ids=14).cut(0, Deal(((0, 8),), batch_size=100))) == [5, 3]
    assert sizes_of(Filler(reader, max_ids=14).cut(0, Deal(((0, 8),), batch_size=4))) == [4, 4]
    assert sizes_of(Filler(reader, max_ids=1).cut(0, Deal(((0, 8),), batch_size=4))) == [1] * 8


def test_only_a_session_that_is_larger_than_a_batch_is_cut():
    reader = Written([[[0] * 3, [0] * 10, [0] * 2]])
    assert sizes_of(Filler(reader, keeps_sessions=True).cut(0, Deal(((0, 15),), batch_size=4))) == [3, 4, 4, 4]


def test_where_ranks_would_have_fewer_batches_the_largest_are_cut_where_sessions_begin():
    reader = Written([[[0] * n for n in (4, 5, 2, 1, 5, 3)]])
    deal = Filler(reader, keeps_sessions=True).cut(0, Deal(((0, 20),), world_size=2, batch_size=8))
    assert sizes_of(deal) == [4, 5, 3, 8]
    assert batches_of(deal)[1] == [[9, 10, 11], [12, 13, 14, 15, 16, 17, 18, 19]]


def test_the_largest_are_halved_first():
    assert halve_largest(np.array([0, 4, 12]), {}, 2).tolist() == [0, 2, 4, 8, 12]
    assert halve_largest(np.array([0, 4, 12]), {0: np.array([1, 3])}, 2).tolist() == [0, 1, 3, 4, 12]
    assert halve_largest(np.array([0, 4, 12]), {0: np.array([3])}, 2).tolist() == [0, 3, 4, 8, 12]


def test_fewer_samples_than_batches_that_ranks_could_share():
    deal = Filler(Written([[[9.0]] * 5]), max_ids=1).cut(0, Deal(((0, 5),), world_size=4, batch_size=8))
    assert sizes_of(deal) == [1, 1, 1, 2]
    assert Filler(Written([])).cut(0, Deal(())).num_batches == 0


sessions = st.lists(st.lists(st.integers(0, 9).map(float), min_size=1, max_size=9), min_size=1, max_size=12)
runs = st.lists(st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(2, 20), st.floats(0, 1)), max_size=4)


@settings(max_examples=100, deadline=None)
@given(st.lists(sessions, min_size=1, max_size=5), runs, st.none() | st.integers(10, 60), st.booleans(), st.booleans())
def test_every_sample_exactly_once_whatever_the_sequence_of_runs(windows, stops, max_ids, keeps_sessions, in_turn):
    """World size, workers and batch size change at every stop; the last run goes to the end."""
    reader, seen = Written(windows), []
    work, remaining = reader.all_samples, ((0, len(reader.all_samples)),)
    filler = Filler(reader, max_ids=max_ids, keeps_sessions=keeps_sessions)
    for world_size, num_workers, batch_size, share in [*stops, (1, 2, 16, 1.0)]:
        left = sum(end - start for start, end in remaining)
        deal = filler.cut(0, Deal(remaining, min(world_size, max(left, 1)), num_workers, batch_size, in_turn))
        trained = deal.num_batches if share == 1.0 else int(share * deal.num_batches)
        for rank in range(deal.world_size):
            for number in range(trained):
                samples = [s for start, end in deal.batch(rank, number) for s in range(start, end)]
                assert 1 <= len(samples) <= batch_size
                if max_ids is not None and len(samples) > 2:
                    assert sum(work[s] for s in samples) <= max_ids
                seen += samples
        remaining = deal.remaining_after(trained)
    assert remaining == ()
    assert sorted(seen) == list(range(len(work)))


@settings(max_examples=100, deadline=None)
@given(st.lists(sessions, min_size=1, max_size=5), st.integers(9, 30), st.integers(1, 3))
def test_no_session_is_cut_that_fits(windows, batch_size, world_size):
    """But for the few cuts that give every rank as many batches, where there are fewer sessions than batches."""
    reader = Written(windows)
    lengths = [len(session) for sessions in windows for session in sessions]
    if sum(lengths) < world_size:
        return
    deal = Filler(reader, keeps_sessions=True).cut(0, Deal(((0, sum(lengths)),), world_size, 1, batch_size))
    borders = {0, *np.cumsum(lengths).tolist()}
    cut_inside = [cut for cut in deal.cuts.tolist() if cut not in borders]
    assert len(cut_inside) < world_size
    if len(lengths) >= deal.num_all_batches:
        assert cut_inside == []


@settings(max_examples=50, deadline=None)
@given(st.lists(sessions, min_size=1, max_size=7), st.integers(2, 4), st.booleans())
def test_ranks_that_read_a_part_each_agree(windows, world_size, keeps_sessions):
    reader = Written(windows)
    num = len(reader.all_samples)
    if num < world_size:
        return
    found, shown, barrier = [None] * world_size, [None] * world_size, threading.Barrier(world_size)

    def cut(rank: int) -> None:
        def gather(mine):
            shown[rank] = mine
            barrier.wait(10)
            everyone = list(shown)
            barrier.wait(10)
            return everyone

        filler = Filler(reader, rank, world_size, gather, max_ids=20, keeps_sessions=keeps_sessions)
        found[rank] = filler.cut(0, Deal(((0, num),), world_size, 1, 10)).cuts.tolist()

    threads = [threading.Thread(target=cut, args=(rank,)) for rank in range(world_size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert found == [found[0]] * world_size
    assert (found[0][0], found[0][-1]) == (0, num)
    assert len(found[0]) % world_size == 1 or num < 2 * world_size


@pytest.mark.parametrize(("order", "expand"), [("sessions", False), ("table", False), ("time", False), ("table", True)])
def test_batches_of_a_table_store_at_most_so_many_ids(dated, order, expand):
    schema = dated.schema.expand(dated.schema.dedup_groups) if expand else dated.schema
    lists = [CountedList(f.name) for f in dated.schema.sparse]
    shuffle = Shuffle(seed=3, order=order, window_size=3)
    filler = Filler(WorkReader(dated.clustered, schema, lists, Work(id=1.0), shuffle), max_ids=150)
    found = batches(dated, order=order, seed=3, batch_size=64, cutter=filler, expand=expand)
    assert sum(batch.batch_size for batch in found) == len(dated.samples)
    ids = [len(batch.sparse.values) for batch in found]
    assert max(ids) <= 150
    if order == "table" and not expand:  # full: another sample would have been too many
        assert min(ids[:-1]) > 150 - max(len(s.history) + len(s.tags) + 2 for s in dated.samples)
    assert any(f.kind is Kind.id for f in dated.schema.sparse)


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_sessions_of_a_table_are_whole_in_a_batch(dated, world_size):
    reader = WorkReader(dated.clustered, dated.schema, (), Work(id=1.0), Shuffle(seed=3, window_size=3))
    cutter = Filler(reader, keeps_sessions=True)
    found = [
        batch
        for rank in range(world_size)
        for batch in batches(dated, seed=3, batch_size=30, cutter=cutter, rank=rank, world_size=world_size)
    ]
    of_batch = [set(batch.session_ids.tolist()) for batch in found]
    assert sum(map(len, of_batch)) == 60
    assert sum(batch.batch_size for batch in found) == len(dated.samples)


def test_a_run_goes_on_with_the_batches_that_it_had(dated):
    reader = WorkReader(dated.clustered, dated.schema, (), Work(id=1.0), Shuffle(window_size=3))
    options = {"batch_size": 30, "cutter": Filler(reader, keeps_sessions=True)}
    whole = loader(dated, **options)
    rest = loader(dated, **options, state=whole.state(3))
    assert list(rest.tasks()) == list(whole.tasks())[3:]
    other = loader(dated, batch_size=30, state=whole.state(3))
    assert len(other) == -(-sum(end - start for start, end in other._position.remaining) // 30)
