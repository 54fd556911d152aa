"""What travels where, for a plan with several sharding types."""

import pytest
from tests.embedding.exchange.small_layout import PLACES, SCHEMA, layout

from recd_dist.embedding.exchange.classes import table_classes
from recd_dist.embedding.exchange.layout import Part, build_layout
from recd_dist.embedding.vocabulary.placement import Shard, TablePlace


def test_units_and_segments() -> None:
    first, second = layout(0), layout(1)
    assert [(u.module, u.sharding, u.keys, u.num_segments) for u in first.units] == [
        ("user", "TW", ("item",), 1),
        ("user", "CW", ("shop",), 1),
        ("user", "RW", ("city",), 2),
        ("article:ids", "RW", ("article",), 3),  # one more, for what fills up a list of distinct ids
    ]
    assert first.first_segment == (0, 1, 2, 4)
    to_first = (1, 2, 4)  # shop, city below 5, articles below 6
    to_second = (0, 1, 3, 5)  # item, shop, city from 5, articles from 6
    assert first.sent_segments == second.sent_segments == to_first + to_second
    assert (first.row_units, first.id_units) == ((0, 1, 2), (3,))
    assert (first.local_units, second.local_units) == ((1, 2, 3), (0, 1, 2, 3))
    assert first.units[1].parts[1] == (Part("shop", 0, 4, 4),)
    assert [first.units[2].segments(rank) for rank in (0, 1)] == [(0,), (1,)]


def test_received_segments_are_sorted_by_key() -> None:
    """From each of two ranks come shop and city; the lookups want shop of both, then city of both."""
    assert layout(0).received_rows == (0, 2, 1, 3)
    assert layout(1).received_rows == (0, 3, 1, 4, 2, 5)
    assert layout(0).received_ids == (0, 1)


def test_blocks_of_different_sizes_are_refused() -> None:
    places = {**PLACES, "city": TablePlace("RW", (Shard(0, 0, 4, 0, 8), Shard(1, 5, 4, 0, 8)))}
    send = dict.fromkeys(PLACES, "rows")
    with pytest.raises(ValueError, match="not of one size"):
        build_layout(table_classes(SCHEMA, send, {}), places, 0, 2)
