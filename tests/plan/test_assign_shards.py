"""Shards of tables: cut by every sharding type, on the ranks that the config names or on those with the least load."""

from tests.plan.small_tables import STEP, TWO, TWO_HOSTS, embeddings, places

from recd_dist.embedding.vocabulary.placement import Shard, read_placement
from recd_dist.plan.sharding import place_tables


def test_hosts_of_ranks() -> None:
    """Two hosts of two ranks; 1,000 rows and 16 columns."""

    def shards(wanted: object) -> list[Shard]:
        return list(read_placement(place_tables(embeddings(), TWO_HOSTS, {"item": wanted}))["item"].shards)

    assert shards({"type": "TWRW", "host": 1}) == [Shard(2, 0, 500, 0, 16), Shard(3, 500, 500, 0, 16)]
    assert shards({"type": "GRID", "hosts": [1, 0]}) == [
        Shard(2, 0, 500, 0, 8), Shard(3, 500, 500, 0, 8), Shard(0, 0, 500, 8, 8), Shard(1, 500, 500, 8, 8),
    ]  # fmt: skip
    assert shards({"type": "TWCW", "ranks": [2, 3]}) == [Shard(2, 0, 1000, 0, 8), Shard(3, 0, 1000, 8, 8)]
    assert shards("TWRW") == [Shard(0, 0, 500, 0, 16), Shard(1, 500, 500, 0, 16)]
    assert shards({"type": "CW", "ranks": [3, 0, 1]}) == [
        Shard(3, 0, 1000, 0, 8), Shard(0, 0, 1000, 8, 4), Shard(1, 0, 1000, 12, 4),
    ]  # fmt: skip
    assert {s.rank // 2 for s in shards("TWCW")} == {0}
    assert len(shards("GRID")) == 4


def test_a_table_goes_to_the_rank_with_the_least_load() -> None:
    assert {t: r for t, (_, r) in places(place_tables(embeddings(), TWO, "TW", step=STEP)).items()} == {
        "item": (0,),  # (300 ids + 2 * 110 rows) * 16
        "place": (1,),  # (100 + 2 * 100) * 4
        "article": (1,),  # (50 + 2 * 50) * 8: as much as place, and later
    }
    named = place_tables(embeddings(), TWO, {"item": {"type": "TW", "ranks": 1}})
    assert places(named)["item"] == ("TW", (1,))
