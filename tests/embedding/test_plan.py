import pytest

from recd_dist.embedding.floor import StepRows, all_reduce_bytes, step_bytes, table_uses
from recd_dist.embedding.plan import check_world, describe, placement, plan
from recd_dist.embedding.shard import TableOptimizer
from recd_dist.embedding.tables import Embeddings
from recd_dist.errors import ConfigError
from recd_dist.manifest import FeatureStats, IdStats, Manifest
from recd_dist.schema import Feature, Kind, Schema, Table

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
)


def embeddings(dedup: bool = True) -> Embeddings:
    return Embeddings(SCHEMA, TABLES, sequence_features=["clicks"], dedup=dedup, device="meta")


def test_types_per_table_for_any_world() -> None:
    found = plan(embeddings(), 4, {"default": "TW", "item": "RW", "article": "CW", "place": "data_parallel"})
    assert set(found.plan) == {
        "embeddings.pooled.user-sample",
        "embeddings.pooled.sample",
        "embeddings.sequences",
    }
    assert placement(found, 4) == {
        "item": ("RW", (0, 1, 2, 3)),
        "article": ("CW", (0, 1)),  # 8 columns: two shards of 4
        "place": ("DP", (0, 1, 2, 3)),
    }


@pytest.mark.parametrize(("rows", "world_size", "kind"), [(10, 2, "RW"), (10, 4, "RW"), (5, 4, "TW"), (1, 2, "TW")])
def test_too_few_rows_are_not_split(rows: int, world_size: int, kind: str) -> None:
    """5 rows over 4 ranks are blocks of 2, 2, 1 and 0."""
    tables = {**TABLES, "place": Table("place", rows, 4)}
    found = plan(Embeddings(SCHEMA, tables, device="meta"), world_size, "RW")
    assert placement(found, world_size)["place"][0] == kind


def test_table_wise_fills_the_idlest_rank() -> None:
    assert {t: r for t, (_, r) in placement(plan(embeddings(), 2, "TW", step=STEP), 2).items()} == {
        "item": (0,),  # (300 ids + 2 * 110 rows) * 16
        "place": (1,),  # (100 + 2 * 100) * 4
        "article": (1,),  # (50 + 2 * 50) * 8: the same, later
    }
    chosen = plan(embeddings(), 2, {"item": {"type": "TW", "ranks": 1}})
    assert placement(chosen, 2)["item"] == ("TW", (1,))


def test_planner_knows_every_table() -> None:
    for world_size in (1, 2, 16):
        found = plan(embeddings(), world_size, "planner", step=STEP, local_world_size=min(8, world_size))
        assert set(placement(found, world_size)) == set(TABLES)
        check_world(found, world_size)


@pytest.mark.parametrize(
    ("sharding", "message"),
    [
        ({"itm": "TW"}, "no table 'itm'; did you mean 'item'"),
        ("ROW", "plan.item=ROW: unknown sharding type"),
        ({"item": "rowwise"}, "unknown sharding type; did you mean 'row_wise'"),
        ("DP", "plan.article=DP: TorchRec cannot replicate un-pooled tables"),
        ({"item": {"type": "TW", "ranks": [5]}}, r"rank 5 is named, this job has 2 ranks .* wrong world size"),
        ({"item": {"type": "TW", "rank": 0}}, "unknown option 'rank'; did you mean 'ranks'"),
        ({"place": {"type": "CW", "ranks": [0, 1]}}, "4 columns cannot be split over 2 ranks"),
        ({"item": {"type": "RW", "ranks": [0]}}, "does not fit row_wise"),
        ({"flag": "RW"}, "table 'flag' has 1 rows, too few to reach all 2 ranks"),
    ],
)
def test_mistakes_are_named(sharding: object, message: str) -> None:
    schema = Schema((*SCHEMA.features, Feature("flag", Kind.id, "sample", "flag")))
    tables = Embeddings(schema, {**TABLES, "flag": Table("flag", 1, 4)}, sequence_features=["clicks"], device="meta")
    with pytest.raises(ConfigError, match=message):
        plan(tables, 2, sharding)


def test_width_must_fit_the_kernels() -> None:
    tables = {**TABLES, "place": Table("place", 10, 6)}
    with pytest.raises(ConfigError, match=r"tables.place.dim=6: .* use 8"):
        plan(Embeddings(SCHEMA, tables, device="meta"), 2, "TW")


def test_a_plan_for_more_ranks_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"lies on rank 3, this job has 2 ranks .* wrong world size"):
        check_world(plan(embeddings(), 4, "RW"), 2)


def test_rows_of_a_plan() -> None:
    rows = {r.table: r for r in describe(plan(embeddings(), 2, "TW", step=STEP), embeddings(), 2, STEP)}
    item = rows["item"]
    assert (item.features, item.groups, item.sharding, item.ranks) == ("history, candidate", "user, sample", "TW", (0,))
    assert item.memory_bytes == 1000 * (16 + 1) * 4
    # half of: 300 ids and 110 lengths, 110 rows of 16 there and back
    assert item.unique_bytes == (300 * 4 + 110 * 4 + 2 * 110 * 16 * 4) / 2
    assert item.expanded_bytes == (2100 * 4 + 200 * 4 + 2 * 200 * 16 * 4) / 2
    # un-pooled: the vectors of all 50 (500) ids of `clicks`; one length, or one a sample
    assert rows["article"].unique_bytes == (50 * 4 + 4 + 2 * 50 * 8 * 4) / 2
    assert rows["article"].expanded_bytes == (500 * 4 + 100 * 4 + 2 * 500 * 8 * 4) / 2


def test_bytes_by_sharding() -> None:
    uses = [u for u in table_uses(embeddings()) if u.table == "item"]
    ids, lengths, rows = 300 * 4, 110 * 4, 110 * 16 * 4

    def sent(sharding: str, ranks: tuple[int, ...], rank: int | None = None) -> tuple[float, float]:
        found = step_bytes(uses, {"item": (sharding, ranks)}, STEP, 4, dedup=True, rank=rank)
        assert found.backward == found.output
        return found.input, found.output

    assert sent("TW", (1,), rank=0) == (ids + lengths, rows)
    assert sent("TW", (1,), rank=1) == (0, 0)
    assert sent("CW", (1, 2), rank=0) == (2 * (ids + lengths), rows)
    assert sent("CW", (1, 2), rank=1) == (ids + lengths, rows / 2)
    assert sent("RW", (0, 1, 2, 3)) == (ids * 3 / 4 + lengths * 3, rows * 3)
    assert sent("DP", (0, 1, 2, 3)) == (0, 0)
    assert all_reduce_bytes(1000, 4) == 6000


def test_statistics_of_a_table() -> None:
    stats = {
        "history": FeatureStats(2000, 20000, 30, 0.9),
        "clicks": FeatureStats(500, 5000, 9, 0.9),
        "candidate": FeatureStats(1000, 1000, 1, 0.0),
        "place": FeatureStats(1000, 1000, 1, 0.0),
    }
    ids = {t: IdStats(0, 9, 10) for t in TABLES}
    manifest = Manifest("t", "train", SCHEMA, 1000, 100, 100, {"user": 100}, stats, ids, ())
    assert StepRows.of_table(manifest, 100) == STEP


def test_optimizers_without_a_cpu_kernel_are_refused() -> None:
    TableOptimizer("adam").check("cuda")
    with pytest.raises(ConfigError, match="'adam' has no CPU kernel in fbgemm; use sgd, adagrad, rowwise_adagrad"):
        TableOptimizer("adam").check("cpu")
    with pytest.raises(ConfigError, match="'adagrd' is unknown; did you mean 'adagrad'"):
        TableOptimizer("adagrd").check("cpu")
