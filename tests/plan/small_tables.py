"""Three small tables and a batch of 100 samples, which the tests of plans share."""

from torchrec.distributed.types import ShardingPlan

from recd_dist.embedding.tables import Embeddings
from recd_dist.embedding.vocabulary.placement import read_placement
from recd_dist.plan.step_rows import StepRows
from recd_dist.plan.world import World
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
TWO_HOSTS = World(4, 2)


def embeddings(dedup: bool = True, **options: object) -> Embeddings:
    """The tables on the meta device, ``article`` un-pooled."""
    return Embeddings(SCHEMA, TABLES, sequence_features=["clicks"], dedup=dedup, device="meta", **options)


def places(plan: ShardingPlan) -> dict[str, tuple[str, tuple[int, ...]]]:
    """For each table of a plan its sharding type and its ranks."""
    return {table: (place.sharding, place.ranks) for table, place in read_placement(plan).items()}
