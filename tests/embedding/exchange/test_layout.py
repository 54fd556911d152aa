"""What travels where, of a plan with every kind of sharding."""

import pytest
import torch

from recd_dist.embedding.exchange.classes import table_classes
from recd_dist.embedding.exchange.inputs import message_on_device, message_on_host
from recd_dist.embedding.exchange.layout import Layout, Part, layout_of
from recd_dist.embedding.placement import Shard, TablePlace
from recd_dist.table.schema import Feature, Kind, Schema

SCHEMA = Schema(
    (
        Feature("item", Kind.ids, "user", "item"),
        Feature("shop", Kind.ids, "user", "shop"),
        Feature("city", Kind.id, "user", "city"),
        Feature("clicks", Kind.ids, "user", "article"),
    )
)
PLACES = {
    "item": TablePlace("TW", (Shard(1, 0, 10, 0, 8),)),
    "shop": TablePlace("CW", (Shard(0, 0, 10, 0, 4), Shard(1, 0, 10, 4, 4))),
    "city": TablePlace("RW", (Shard(0, 0, 5, 0, 8), Shard(1, 5, 4, 0, 8))),
    "article": TablePlace("RW", (Shard(0, 0, 6, 0, 8), Shard(1, 6, 6, 0, 8))),
}


def layout(rank: int) -> Layout:
    send = {"item": "rows", "shop": "rows", "city": "rows", "article": "ids"}
    return layout_of(table_classes(SCHEMA, send, {"article": ("clicks",)}), PLACES, rank, 2)


def test_units_and_segments() -> None:
    found = layout(0)
    assert [(u.module, u.sharding, u.keys, u.num_segments) for u in found.units] == [
        ("user", "TW", ("item",), 1),
        ("user", "CW", ("shop",), 1),
        ("user", "RW", ("city",), 2),
        ("article:ids", "RW", ("article",), 3),  # one more, for what fills up a list of distinct ids
    ]
    assert found.first_segment == (0, 1, 2, 4)
    assert found.sent_segments == (
        1,
        2,
        4,
        0,
        1,
        3,
        5,
    )  # rank 0: shop, city below 5, articles below 6
    assert (found.local, layout(1).local) == ((1, 2, 3), (0, 1, 2, 3))
    assert found.units[1].parts[1] == (Part("shop", 0, 4, 4),)
    assert [found.units[2].segments(r) for r in (0, 1)] == [(0,), (1,)]


def test_received_segments_are_sorted_by_key() -> None:
    """From each of two ranks come shop and city; the lookups want shop of both, then city of both."""
    assert layout(0).received_rows == (0, 2, 1, 3)
    assert layout(1).received_rows == (0, 3, 1, 4, 2, 5)
    assert layout(0).received_ids == (0, 1)


@pytest.mark.parametrize("longest", [0, 255, 256, 40_000])
def test_sizes_are_the_same_by_loop_and_by_operators(longest: int) -> None:
    """The loop runs on CPU, the operators on CUDA."""
    counts = torch.tensor([10, 20, 3, 4, 50, 60, 7])
    lengths = torch.tensor([1, longest], dtype=torch.int32) if longest else torch.empty(0, dtype=torch.int32)
    rows = [5, 5, 5, 0]
    found = message_on_host(layout(0), rows, counts, lengths)
    assert torch.equal(found, message_on_device(layout(0), rows, counts, lengths))
    code = int(longest > 255) + int(longest > 32767)
    assert found.tolist() == [[code, 5, 0, 5, 20, 5, 3, 0, 50], [code, 5, 10, 5, 20, 5, 4, 0, 60]]


def test_blocks_of_different_sizes_are_refused() -> None:
    places = {**PLACES, "city": TablePlace("RW", (Shard(0, 0, 4, 0, 8), Shard(1, 5, 4, 0, 8)))}
    send = dict.fromkeys(PLACES, "rows")
    with pytest.raises(ValueError, match="not of one size"):
        layout_of(table_classes(SCHEMA, send, {}), places, 0, 2)
