"""Where tables lie: explicit sharding of every type, free places by load, TorchRec's planner, mistakes."""

from dataclasses import replace

import pytest
from torchrec.distributed.types import ShardingPlan

from recd_dist.embedding.distribute import TableOptimizer
from recd_dist.embedding.placement import Shard, placement
from recd_dist.embedding.sharders import check_world
from recd_dist.embedding.tables import Embeddings
from recd_dist.errors import ConfigError
from recd_dist.plan.placing import World
from recd_dist.plan.sharding import place_tables
from recd_dist.plan.step_bytes import group_bytes, step_bytes
from recd_dist.plan.step_rows import StepRows, table_uses
from recd_dist.plan.torchrec_planner import _constraints
from recd_dist.table.manifest import FeatureStats, IdStats, Manifest
from recd_dist.table.schema import Feature, Kind, Schema, Table

SCHEMA = Schema(
    (
        Feature("history", Kind.ids, "user", "item"),
        Feature("clicks", Kind.ids, "user", "article"),
        Feature("candidate", Kind.id, "sample", "item"),
        Feature("place", Kind.id, "sample", "place"),
    )
)
TABLES = {"item": Table("item", 1000, 16), "article": Table("article", 500, 8), "place": Table("place", 10, 4)}
# 100 samples on 10 users; 20 items and 5 clicks each
STEP = StepRows(
    batch_size=100,
    rows={"history": 10, "clicks": 10, "candidate": 100, "place": 100},
    unique_ids={"history": 200, "clicks": 50, "candidate": 100, "place": 100},
    expanded_ids={"history": 2000, "clicks": 500, "candidate": 100, "place": 100},
    length_bytes=1,
)
TWO, FOUR = World.of_one_host(2), World.of_one_host(4)


def embeddings(dedup: bool = True, **options: object) -> Embeddings:
    return Embeddings(SCHEMA, TABLES, sequence_features=["clicks"], dedup=dedup, device="meta", **options)


def places(found: ShardingPlan) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {t: (p.sharding, p.ranks) for t, p in placement(found).items()}


def test_types_per_table_for_any_world() -> None:
    found = place_tables(embeddings(), FOUR, {"default": "TW", "item": "RW", "article": "CW", "place": "data_parallel"})
    assert set(found.plan) == {"embeddings"}
    assert places(found) == {
        "item": ("RW", (0, 1, 2, 3)),
        "article": ("CW", (0, 1)),  # 8 columns: two shards of 4
        "place": ("DP", ()),
    }


def test_without_dedup_the_modules_are_torchrecs() -> None:
    found = place_tables(embeddings(dedup=False), World.of_one_host(4), {"default": "TW", "item": "RW"})
    assert {path: set(part) for path, part in found.plan.items()} == {
        "embeddings.pooled.sample": {"item", "place"},
        "embeddings.sequences": {"article"},
    }
    assert places(found)["item"] == ("RW", (0, 1, 2, 3))


def test_hosts_of_ranks() -> None:
    """Two hosts of two ranks; 1,000 rows and 16 columns."""

    def shards(choice: object) -> list[Shard]:
        return list(placement(place_tables(embeddings(), World(4, 2), {"item": choice}))["item"].shards)

    assert shards({"type": "TWRW", "host": 1}) == [Shard(2, 0, 500, 0, 16), Shard(3, 500, 500, 0, 16)]
    assert shards({"type": "GRID", "hosts": [1, 0]}) == [
        Shard(2, 0, 500, 0, 8), Shard(3, 500, 500, 0, 8), Shard(0, 0, 500, 8, 8), Shard(1, 500, 500, 8, 8),
    ]  # fmt: skip
    assert shards({"type": "TWCW", "ranks": [2, 3]}) == [Shard(2, 0, 1000, 0, 8), Shard(3, 0, 1000, 8, 8)]
    assert shards("TWRW") == [Shard(0, 0, 500, 0, 16), Shard(1, 500, 500, 0, 16)]
    assert {s.rank // 2 for s in shards("TWCW")} == {0}
    assert len(shards("GRID")) == 4


@pytest.mark.parametrize(("rows", "world_size", "kind"), [(10, 2, "RW"), (10, 4, "RW"), (5, 4, "TW"), (1, 2, "TW")])
def test_too_few_rows_are_not_split(rows: int, world_size: int, kind: str) -> None:
    """5 rows over 4 ranks are blocks of 2, 2, 1 and 0."""
    tables = {**TABLES, "place": Table("place", rows, 4)}
    found = place_tables(Embeddings(SCHEMA, tables, device="meta"), World.of_one_host(world_size), "RW")
    assert places(found)["place"][0] == kind


def test_table_wise_fills_the_idlest_rank() -> None:
    assert {t: r for t, (_, r) in places(place_tables(embeddings(), TWO, "TW", step=STEP)).items()} == {
        "item": (0,),  # (300 ids + 2 * 110 rows) * 16
        "place": (1,),  # (100 + 2 * 100) * 4
        "article": (1,),  # (50 + 2 * 50) * 8: the same, later
    }
    chosen = place_tables(embeddings(), TWO, {"item": {"type": "TW", "ranks": 1}})
    assert places(chosen)["item"] == ("TW", (1,))


@pytest.mark.parametrize("dedup", [True, False])
def test_planner_knows_every_table(dedup: bool) -> None:
    for world_size in (1, 2, 16):
        found = place_tables(embeddings(dedup), World(world_size, min(8, world_size)), "planner", step=STEP)
        assert set(places(found)) == set(TABLES)
        check_world(found, world_size)


def test_planner_is_told_what_travels() -> None:
    """Distinct ids are rows of one id; unique rows have their mean length."""
    world = World(2, 2)
    uses = {u.table: u for u in table_uses(embeddings(send={"item": "ids"}))}
    step = replace(STEP, distinct_ids={"item": 80, "article": 40})
    ids = _constraints(embeddings(), uses["item"], step, world)
    assert (ids.batch_sizes, ids.pooling_factors, ids.num_poolings) == ([80], [1.0], [1.0])
    rows = _constraints(embeddings(), uses["place"], step, world)
    assert (rows.batch_sizes, rows.pooling_factors) == ([100], [1.0])
    expanded = _constraints(embeddings(dedup=False), uses["item"], step, world)
    assert (expanded.batch_sizes, expanded.pooling_factors) == ([100, 100], [10.5, 10.5])


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
        ({"item": {"type": "TW", "rank": 0}}, "unknown option 'rank'; did you mean 'ranks'"),
        ({"place": {"type": "CW", "ranks": [0, 1]}}, "4 columns cannot be split over 2 ranks"),
        ({"item": {"type": "RW", "ranks": [0]}}, "does not fit row_wise; its shards lie on all ranks"),
        ({"flag": "RW"}, "table 'flag' has 1 rows, too few to reach all 4 ranks"),
    ],
)
def test_mistakes_are_named(sharding: object, message: str) -> None:
    schema = Schema((*SCHEMA.features, Feature("flag", Kind.id, "sample", "flag")))
    tables = Embeddings(schema, {**TABLES, "flag": Table("flag", 1, 4)}, sequence_features=["clicks"], device="meta")
    with pytest.raises(ConfigError, match=message):
        place_tables(tables, World(4, 2), sharding)


def test_what_plain_torchrec_cannot_do_on_gloo_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"plan\.item=TWRW: with dedup=off .* fails on gloo"):
        place_tables(embeddings(dedup=False), World(4, 2), {"item": "TWRW"})
    assert places(place_tables(embeddings(dedup=False), World(4, 2, "cuda"), {"item": "TWRW"}))


def test_hosts_must_be_of_one_size() -> None:
    with pytest.raises(ConfigError, match=r"plan\.item=GRID: wants hosts of equal size, 3 ranks are 2 hosts of 2"):
        place_tables(embeddings(), World(3, 2), {"item": "GRID"})


def test_width_must_fit_the_kernels() -> None:
    tables = {**TABLES, "place": Table("place", 10, 6)}
    with pytest.raises(ConfigError, match=r"tables.place.dim=6: .* use 8"):
        place_tables(Embeddings(SCHEMA, tables, device="meta"), World.of_one_host(2), "TW")


def test_a_plan_for_more_ranks_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"lies on rank 3, this job has 2 ranks .* wrong world size"):
        check_world(place_tables(embeddings(), FOUR, "RW"), 2)


def test_statistics_of_a_table() -> None:
    stats = {
        "history": FeatureStats(2000, 20000, 30, 0.9),
        "clicks": FeatureStats(500, 5000, 9, 0.9),
        "candidate": FeatureStats(1000, 1000, 1, 0.0),
        "place": FeatureStats(1000, 1000, 1, 0.0),
    }
    ids = {t: IdStats(0, 9, 10) for t in TABLES}
    manifest = Manifest("t", "train", SCHEMA, 1000, 100, 100, {"user": 100}, stats, ids, ())
    assert StepRows.of_table(manifest, SCHEMA, 100) == STEP


def test_optimizers_without_a_cpu_kernel_are_refused() -> None:
    TableOptimizer("adam").check("cuda")
    with pytest.raises(ConfigError, match="'adam' has no CPU kernel in fbgemm; use sgd, adagrad, rowwise_adagrad"):
        TableOptimizer("adam").check("cpu")
    with pytest.raises(ConfigError, match="'adagrd' is unknown; did you mean 'adagrad'"):
        TableOptimizer("adagrd").check("cpu")


def test_groups_share_what_is_sent() -> None:
    """The groups' bytes add up to the step's; a table by ids is charged by the ids that each group has in it."""
    tables = embeddings(send={"item": "ids"})
    uses, placed = table_uses(tables), placement(place_tables(tables, World(4, 2), "TW"))
    step = replace(STEP, distinct_ids={"item": 90, "article": 50})
    for dedup in (True, False):
        whole = step_bytes(uses, placed, step, 4, dedup=dedup)
        parts = group_bytes(SCHEMA, uses, placed, step, 4, dedup=dedup)
        assert set(parts) == {"user", "sample"}
        assert sum(p.total for p in parts.values()) == pytest.approx(whole.total)
    ids = group_bytes(SCHEMA, [u for u in uses if u.table == "item"], placed, step, 4, dedup=True)
    assert ids["user"].total == pytest.approx(2 * ids["sample"].total)  # 200 ids against 100
