"""Layouts of the two steps, and what a relay asks for, on two hosts of two ranks."""

import numpy as np
import torch

from recd_dist.embedding.exchange.by_host import relay_rows, relay_vectors, split_layout
from recd_dist.embedding.exchange.classes import table_classes
from recd_dist.embedding.exchange.context import LookupInput
from recd_dist.embedding.exchange.layout import Layout, build_layout
from recd_dist.embedding.exchange.return_index import Bundle
from recd_dist.embedding.vocabulary.placement import Shard, TablePlace
from recd_dist.table.schema import Feature, Kind, Schema

SCHEMA = Schema((Feature("item", Kind.ids, "user", "item"), Feature("shop", Kind.ids, "user", "shop")))
PLACES = {
    "item": TablePlace("RW", tuple(Shard(r, 10 * r, 10, 0, 8) for r in range(4))),
    "shop": TablePlace("TWRW", (Shard(2, 0, 5, 0, 8), Shard(3, 5, 5, 0, 8))),
}


def layout(rank: int, **send: str) -> Layout:
    classes = table_classes(SCHEMA, {"item": "ids", "shop": "rows", **send}, {})
    return build_layout(classes, PLACES, rank, 4, 2)


def test_a_relay_takes_what_lies_on_ranks_of_its_number() -> None:
    direct, layouts = split_layout(layout(3))
    assert [u.module for u in direct.units] == ["user"]  # partial sums of shop are added up on its host
    assert layouts is not None
    (inner,), (outer,) = layouts.inner.units, layouts.outer.units
    assert [inner.segments(local) for local in (0, 1)] == [(0, 2), (1, 3)]
    assert (layouts.inner.rank, layouts.outer.rank) == (1, 1)
    # Rank 3 is the relay for ranks 1 and 3, whose segments are numbered anew: 0 and 1, and 2 for what fills up.
    assert ([outer.segments(host) for host in (0, 1)], outer.num_segments) == ([(0,), (1,)], 3)
    (order,) = layouts.returned
    assert order is not None
    assert order.numbers.tolist() == [0, 2, 1, 3, 4]  # first from relay 0, then from relay 1, then what fills up
    both, _ = split_layout(layout(0, shop="ids"))
    assert not both.units


def test_a_relay_asks_for_each_id_once() -> None:
    """Host-mate 0 wants rows 7 and 9 of rank 1's block and row 4 of rank 3's, host-mate 1 wants 9, and 4 and 5."""
    _, layouts = split_layout(layout(3))
    assert layouts is not None
    (inner,), (outer,) = layouts.inner.units, layouts.outer.units
    counts = np.array([[2, 1], [1, 2]])
    ids = torch.tensor([7, 9, 4, 9, 4, 5], dtype=torch.int32)
    given = LookupInput(counts.sum(1), ids, torch.ones(6, dtype=torch.int32), counts=counts)
    rows = relay_rows(outer, inner, given, 1)
    assert rows.counts.tolist() == [2, 2, 0]
    asked = [*zip([1, 1, 3, 3], rows.values.tolist(), strict=True)]
    assert sorted(asked) == [(1, 7), (1, 9), (3, 4), (3, 5)]
    vectors = torch.tensor([[10.0 * rank + value] for rank, value in asked], requires_grad=True)
    handed = relay_vectors(rows, [(Bundle(0, (("item", 0, 1),), 2), vectors)], by_rows=False)
    assert handed.flatten().tolist() == [17, 19, 34, 19, 34, 35]
    handed.sum().backward()
    summed = dict(zip(asked, vectors.grad.flatten().tolist(), strict=True))
    assert summed == {(1, 7): 1, (1, 9): 2, (3, 4): 2, (3, 5): 1}  # gradients are added up before they leave the host
