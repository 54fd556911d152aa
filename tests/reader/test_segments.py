"""Segments of an epoch, such as days: all ranks train one before any trains the next."""

from hypothesis import given
from hypothesis import strategies as st

from recd_dist.reader.intervals import Deal
from recd_dist.reader.segments import SegmentedDeal


def test_picture():
    deal = SegmentedDeal.of(Deal(((0, 22),), world_size=2, batch_size=5), [10, 22])
    assert [deal.batch(0, n) for n in range(deal.num_batches)] == [((0, 5),), ((10, 13),), ((13, 16),)]
    assert [deal.batch(1, n) for n in range(deal.num_batches)] == [((5, 10),), ((16, 19),), ((19, 22),)]
    assert deal.remaining_after(1) == ((10, 22),)
    assert deal.remaining_after(2) == ((13, 16), (19, 22))
    assert [deal.gapless_end(0, n) for n in range(3)] == [5, 16, 16]


def test_a_segment_with_fewer_samples_than_ranks_goes_with_its_neighbour():
    deal = SegmentedDeal.of(Deal(((0, 13),), world_size=3, batch_size=4), [2, 8, 12, 13])
    assert [d.remaining for d in deal.deals] == [((0, 8),), ((8, 13),)]
    assert SegmentedDeal.of(Deal(((0, 2),), batch_size=4, world_size=2), [1, 2]).num_batches == 1
    assert SegmentedDeal.of(Deal((), batch_size=4), [7]).num_batches == 0


def test_a_stored_deal_is_gone_on_with():
    deal = SegmentedDeal.of(Deal(((0, 22),), world_size=2, batch_size=5), [10, 22])
    assert deal.is_continued(deal.to_json(2), deal.remaining_after(2))
    other = SegmentedDeal.of(Deal(((0, 22),), world_size=1, batch_size=5), [10, 22])
    assert not other.is_continued(deal.to_json(2), deal.remaining_after(2))


runs = st.lists(st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(1, 20), st.floats(0, 1)), max_size=5)


@given(st.lists(st.integers(0, 60), min_size=1, max_size=6), runs)
def test_every_sample_once_and_segments_in_order_whatever_the_sequence_of_runs(sizes, stops):
    """World size, workers and batch size change at every stop; the last run goes to the end."""
    ends = [sum(sizes[: n + 1]) for n in range(len(sizes))]
    remaining, seen = ((0, ends[-1]),) if ends[-1] else (), []
    for world_size, num_workers, batch_size, share in [*stops, (1, 2, 16, 1.0)]:
        left = sum(end - start for start, end in remaining)
        world_size = min(world_size, max(left, 1))  # noqa: PLW2901
        deal = SegmentedDeal.of(Deal(remaining, world_size, num_workers, batch_size), ends)
        trained = deal.num_batches if share == 1.0 else int(share * deal.num_batches)
        for number in range(trained):
            step = [s for r in range(world_size) for start, end in deal.batch(r, number) for s in range(start, end)]
            segments = {next(n for n, end in enumerate(ends) if s < end) for s in step}
            small = [n for n, end in enumerate(ends) if end - (ends[n - 1] if n else 0) < world_size]
            assert len(segments) == 1 or small or stops
            seen += step
        remaining = deal.remaining_after(trained)
    assert remaining == ()
    assert sorted(seen) == list(range(ends[-1]))
