from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recd_dist.errors import ConfigError
from recd_dist.reader.intervals import Deal, merge_intervals
from recd_dist.reader.order import Shuffle
from recd_dist.reader.position import Position


def test_deal_picture():
    deal = Deal(((0, 10),), world_size=2, num_workers=2, batch_size=2)
    assert [deal.batch(0, k) for k in range(4)] == [((0, 1),), ((2, 3),), ((1, 2),), ((3, 5),)]
    assert [deal.batch(1, k) for k in range(4)] == [((5, 6),), ((7, 8),), ((6, 7),), ((8, 10),)]


def test_after_some_batches_the_rest_of_every_share_remains():
    deal = Deal(((0, 10),), world_size=2, num_workers=2, batch_size=2)
    assert deal.remaining_after(0) == ((0, 10),)
    assert deal.remaining_after(1) == ((1, 5), (6, 10))
    assert deal.remaining_after(3) == ((3, 5), (8, 10))
    assert deal.remaining_after(4) == ()


def test_batches_cross_gaps():
    deal = Deal(((0, 2), (5, 7)), batch_size=4)
    assert deal.batch(0, 0) == ((0, 2), (5, 7))
    assert deal.gapless_end(0, 0) == 7


def test_the_gapless_end_is_where_the_worker_stops_or_a_gap_begins():
    deal = Deal(((0, 4), (10, 14)), world_size=2, batch_size=1)
    assert [deal.gapless_end(0, k) for k in (0, 3)] == [4, 4]
    assert [deal.gapless_end(1, k) for k in (0, 3)] == [14, 14]


def test_neighbours_are_merged():
    assert merge_intervals([(0, 2), (2, 3), (3, 3), (5, 6)]) == ((0, 3), (5, 6))


def test_workers_beyond_the_samples_have_no_share():
    deal = Deal(((0, 5),), world_size=2, num_workers=8, batch_size=4)
    assert deal.num_workers == 2
    assert deal.num_batches == 2


def test_fewer_samples_than_ranks():
    with pytest.raises(ConfigError, match=r"3 samples are left for 4 ranks.*start at most 3 ranks"):
        Deal(((0, 3),), world_size=4, batch_size=8)


@pytest.mark.parametrize("name", ["world_size", "num_workers", "batch_size"])
def test_counts_are_at_least_one(name):
    with pytest.raises(ConfigError, match=f"{name}=0, wanted at least 1"):
        Deal(((0, 3),), **{name: 0})


runs = st.lists(st.tuples(st.integers(1, 7), st.integers(1, 4), st.integers(1, 40), st.floats(0, 1)), max_size=6)


@given(st.integers(1, 400), runs)
def test_every_sample_exactly_once_whatever_the_sequence_of_runs(num_samples, stops):
    """World size, workers and batch size change at every stop; the last run goes to the end."""
    remaining, seen = ((0, num_samples),), []
    for world_size, num_workers, batch_size, share in [*stops, (1, 2, 16, 1.0)]:
        left = sum(end - start for start, end in remaining)
        deal = Deal(remaining, min(world_size, max(left, 1)), num_workers, batch_size)
        trained = deal.num_batches if share == 1.0 else int(share * deal.num_batches)
        for rank in range(deal.world_size):
            for number in range(trained):
                batch = deal.batch(rank, number)
                samples = [s for start, end in batch for s in range(start, end)]
                assert 1 <= len(samples) <= max(batch_size, 2)
                assert batch_size == 1 or len(samples) <= batch_size
                assert deal.gapless_end(rank, number) >= batch[-1][1]
                seen += samples
        remaining = deal.remaining_after(trained)
    assert remaining == ()
    assert sorted(seen) == list(range(num_samples))


@given(st.integers(1, 10**12), st.integers(1, 64), st.integers(1, 16), st.integers(1, 65536))
def test_shares_are_nearly_equal(num_samples, world_size, num_workers, batch_size):
    if num_samples < world_size:
        return
    deal = Deal(((0, num_samples),), world_size, num_workers, batch_size)
    shares = [deal._batch_start(i + 1, 0) - deal._batch_start(i, 0) for i in range(world_size * deal.num_workers)]
    assert sum(shares) == num_samples
    assert max(shares) - min(shares) <= 1


def test_position_survives_json(small):
    shuffle = Shuffle(seed=3)
    position = replace(Position.at_start(small.manifest, shuffle, 2), remaining=((3, 5), (8, 10)))
    assert Position.from_json(position.to_json(), small.manifest, shuffle) == position


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"table": "0000"}, "another table than 'small/train'.*start a new run directory"),
        ({"seed": 4}, "has seed=4, this run seed=3.*Set seed=4"),
        ({"order": "table"}, "has order=table, this run order=sessions.*Set reader.order=table"),
        ({"window": 2}, "has window=2, this run window=8"),
        ({"remaining": [[0, 5], [4, 6]]}, "damaged reader position"),
        ({"remaining": [[0, 10**6]]}, "damaged reader position"),
    ],
)
def test_position_of_something_else_is_refused(small, changed, message):
    value = Position.at_start(small.manifest, Shuffle(seed=3)).to_json() | changed
    with pytest.raises(ConfigError, match=message):
        Position.from_json(value, small.manifest, Shuffle(seed=3))
