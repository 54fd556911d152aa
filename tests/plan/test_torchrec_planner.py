"""TorchRec's planner: it places every table, and is told how few rows and ids travel."""

from dataclasses import replace

import pytest
from tests.plan.small_tables import STEP, TABLES, TWO, embeddings, places

from recd_dist.embedding.sharders import check_world
from recd_dist.plan.sharding import place_tables
from recd_dist.plan.step_rows import table_uses
from recd_dist.plan.torchrec_planner import table_constraints
from recd_dist.plan.world import World


@pytest.mark.parametrize("dedup", [True, False])
def test_planner_knows_every_table(dedup: bool) -> None:
    for world_size in (1, 2, 16):
        plan = place_tables(embeddings(dedup), World(world_size, min(8, world_size)), "planner", step=STEP)
        assert set(places(plan)) == set(TABLES)
        check_world(plan, world_size)


def test_planner_is_told_what_travels() -> None:
    """Distinct ids are rows of one id; unique rows have their mean length."""
    uses = {u.table: u for u in table_uses(embeddings(send={"item": "ids"}))}
    step = replace(STEP, distinct_ids={"item": 80, "article": 40})
    ids = table_constraints(embeddings(), uses["item"], step, TWO)
    assert (ids.batch_sizes, ids.pooling_factors, ids.num_poolings) == ([80], [1.0], [1.0])
    rows = table_constraints(embeddings(), uses["place"], step, TWO)
    assert (rows.batch_sizes, rows.pooling_factors) == ([100], [1.0])
    expanded = table_constraints(embeddings(dedup=False), uses["item"], step, TWO)
    assert (expanded.batch_sizes, expanded.pooling_factors) == ([100, 100], [10.5, 10.5])
