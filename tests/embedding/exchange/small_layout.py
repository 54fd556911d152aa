"""A layout of four tables on two ranks, one for each way of sending, which tests share."""

from recd_dist.embedding.exchange.classes import table_classes
from recd_dist.embedding.exchange.layout import Layout, build_layout
from recd_dist.embedding.vocabulary.placement import Shard, TablePlace
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
    return build_layout(table_classes(SCHEMA, send, {"article": ("clicks",)}), PLACES, rank, 2)
