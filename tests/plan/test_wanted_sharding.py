"""What the config asks for each table: mistakes are named, tables of few rows are not divided."""

import logging

import pytest
from tests.plan.small_tables import SCHEMA, TABLES, TWO_HOSTS, embeddings, places

from recd_dist.embedding.tables import Embeddings
from recd_dist.errors import ConfigError
from recd_dist.plan.sharding import place_tables
from recd_dist.plan.step_rows import TableUse
from recd_dist.plan.wanted_sharding import WantedSharding, parse_sharding
from recd_dist.plan.world import World
from recd_dist.table.schema import Feature, Kind, Schema, Table

ITEM = TableUse("item", 1000, 16, ("history",), is_sequence=False)


@pytest.mark.parametrize("value", ["RW", "rw", "row_wise", {"type": "RW"}])
def test_a_type_has_a_short_name_and_a_long_one(value: object) -> None:
    assert parse_sharding([ITEM], TWO_HOSTS, {"item": value}, dedup=True) == {"item": WantedSharding("RW")}


def test_one_rank_or_host_needs_no_list() -> None:
    asked = {"item": {"type": "TW", "ranks": 3}}
    assert parse_sharding([ITEM], TWO_HOSTS, asked, dedup=True) == {"item": WantedSharding("TW", (3,))}


@pytest.mark.parametrize(
    ("num_rows", "world_size", "sharding"), [(10, 2, "RW"), (10, 4, "RW"), (5, 4, "TW"), (1, 2, "TW")]
)
def test_too_few_rows_are_not_split(
    num_rows: int, world_size: int, sharding: str, caplog: pytest.LogCaptureFixture
) -> None:
    """5 rows over 4 ranks are blocks of 2, 2, 1 and 0."""
    few = TableUse("place", num_rows, 4, ("place",), is_sequence=False)
    with caplog.at_level(logging.WARNING):
        wanted = parse_sharding([few], World.of_one_host(world_size), "RW", dedup=True)
    assert wanted["place"].type == sharding
    assert ("too few to reach all" in caplog.text) == (sharding == "TW")


@pytest.mark.parametrize(
    ("sharding", "message"),
    [
        ({"itm": "TW"}, "no table 'itm'; did you mean 'item'"),
        ("ROW", "plan.item=ROW: unknown sharding type"),
        ({"item": "rowwise"}, "unknown sharding type; did you mean 'row_wise'"),
        ("DP", "plan.article=DP: TorchRec cannot replicate un-pooled tables"),
        ({"article": "GRID"}, "plan.article=GRID: TorchRec has no grid_shard sharding of un-pooled tables"),
        ({"item": {"type": "TW", "ranks": [5]}}, r"rank 5 is named, this job has 4 ranks .* wrong world size"),
        ({"item": {"type": "TWRW", "host": 2}}, r"host 2 is named, this job has 2 hosts .* wrong world size"),
        ({"item": {"type": "TWRW", "ranks": [0]}}, r"ranks=\[0\] does not fit table_row_wise; name host"),
        ({"item": {"type": "TWCW", "ranks": [1, 2]}}, "are of several hosts of 2 ranks, table_column_wise keeps"),
        ({"item": {"type": "GRID", "hosts": [0, 1, 0, 1, 0]}}, "16 columns cannot be split over 5 hosts"),
        ({"item": {"type": "GRID", "hosts": [0, 1, 0]}}, "over 3 hosts evenly.*name each host once"),
        ({"item": {"type": "TW", "rank": 0}}, "unknown option 'rank'; did you mean 'ranks'"),
        ({"place": {"type": "CW", "ranks": [0, 1]}}, "4 columns cannot be split over 2 ranks; .* name 1 or fewer"),
        ({"item": {"type": "RW", "ranks": [0]}}, "does not fit row_wise; its shards lie on all ranks"),
        ({"flag": "RW"}, "table 'flag' has 1 rows, too few to reach all 4 ranks"),
    ],
)
def test_mistakes_are_named(sharding: object, message: str) -> None:
    schema = Schema((*SCHEMA.features, Feature("flag", Kind.id, "sample", "flag")))
    tables = Embeddings(schema, {**TABLES, "flag": Table("flag", 1, 4)}, sequence_features=["clicks"], device="meta")
    with pytest.raises(ConfigError, match=message):
        place_tables(tables, TWO_HOSTS, sharding)


def test_what_plain_torchrec_cannot_do_on_gloo_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"plan\.item=TWRW: with dedup=off .* fails on gloo"):
        place_tables(embeddings(dedup=False), TWO_HOSTS, {"item": "TWRW"})
    assert places(place_tables(embeddings(dedup=False), World(4, 2, "cuda"), {"item": "TWRW"}))


def test_hosts_must_be_of_one_size() -> None:
    with pytest.raises(ConfigError, match=r"plan\.item=GRID: wants hosts of equal size, 3 ranks are 2 hosts of 2"):
        place_tables(embeddings(), World(3, 2), {"item": "GRID"})


def test_columns_that_cannot_be_split_evenly_are_for_our_exchange_only() -> None:
    wanted = {"item": {"type": "CW", "ranks": [0, 1, 2]}}
    assert places(place_tables(embeddings(), TWO_HOSTS, wanted))["item"] == ("CW", (0, 1, 2))
    with pytest.raises(ConfigError, match=r"16 columns cannot be split over 3 ranks evenly.*dedup=off"):
        place_tables(embeddings(dedup=False), TWO_HOSTS, wanted)
