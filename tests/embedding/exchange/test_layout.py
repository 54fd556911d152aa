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
    assert first.sizes.first_segment == (0, 1, 2, 4, 7)
    to_first = [1, 2, 4]  # shop, city below 5, articles below 6
    to_second = [0, 1, 3, 5]  # item, shop, city from 5, articles from 6
    assert first.sizes.sent.numbers.tolist() == second.sizes.sent.numbers.tolist() == to_first + to_second
    assert (first.row_units, first.id_units) == ((0, 1, 2), (3,))
    assert (first.local_units, second.local_units) == ((1, 2, 3), (0, 1, 2, 3))
    assert first.units[1].parts[1] == (Part("shop", 0, 4, 4),)
    assert [first.units[2].segments(rank) for rank in (0, 1)] == [(0,), (1,)]


def test_received_segments_are_sorted_by_key() -> None:
    """From each of two ranks come shop, city and article; the lookups want shop of both, then city of both."""
    assert layout(0).sizes.received.numbers.tolist() == [0, 3, 1, 4, 2, 5]
    assert layout(1).sizes.received.numbers.tolist() == [0, 4, 1, 5, 2, 6, 3, 7]
    # Lengths have a piece of padding behind those of each source, which no lookup takes.
    assert layout(0).sizes.received_lengths.numbers.tolist() == [0, 3, 1, 4]


def test_matrices_with_the_same_columns_come_together() -> None:
    """Row shards of city and of article are one bundle each; the halves of shop are two."""
    returns = layout(0).returns
    assert [(b.unit, b.columns[0][0], b.num_matrices) for b in returns.bundles] == [
        (0, "item", 1),
        (1, "shop", 1),
        (1, "shop", 1),
        (2, "city", 2),
        (3, "article", 2),
    ]
    # On the wire rank 0 sends shop, city, article, and rank 1 item, shop, city, article.
    assert returns.order.numbers.tolist() == [3, 0, 4, 1, 5, 2, 6]


def test_blocks_of_different_sizes_are_refused() -> None:
    places = {**PLACES, "city": TablePlace("RW", (Shard(0, 0, 4, 0, 8), Shard(1, 5, 4, 0, 8)))}
    send = dict.fromkeys(PLACES, "rows")
    with pytest.raises(ValueError, match="not of one size"):
        build_layout(table_classes(SCHEMA, send, {}), places, 0, 2)


def test_how_often_an_id_is_looked_up() -> None:
    """Once a column shard of its table on the rank; tables of a unit may differ in that."""
    assert layout(0).times_looked_up == {1: 1, 2: 1, 3: 1}
    twice = {
        "item": (Shard(0, 0, 10, 0, 4), Shard(0, 0, 10, 4, 4)),
        "shop": (Shard(0, 0, 10, 0, 4), Shard(1, 0, 10, 4, 4)),
    }
    places = {**PLACES, **{table: TablePlace("CW", shards) for table, shards in twice.items()}}
    classes = table_classes(SCHEMA, dict.fromkeys(PLACES, "rows"), {"article": ("clicks",)})
    assert build_layout(classes, places, 0, 2).times_looked_up[0] is None
    assert build_layout(classes, places, 1, 2).times_looked_up[0] == 1
    places["shop"] = TablePlace("CW", (Shard(0, 0, 10, 0, 4), Shard(0, 0, 10, 4, 4)))
    assert build_layout(classes, places, 0, 2).times_looked_up[0] == 2
