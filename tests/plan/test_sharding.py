"""Plans as TorchRec takes them: every sharding type, with and without dedup, for any number of ranks."""

import pytest
from tests.plan.small_tables import FOUR, SCHEMA, TABLES, TWO, embeddings, places

from recd_dist.embedding.tables import Embeddings
from recd_dist.errors import ConfigError
from recd_dist.plan.sharding import place_tables, uses_planner
from recd_dist.table.schema import Table


def test_types_per_table_for_any_world() -> None:
    plan = place_tables(embeddings(), FOUR, {"default": "TW", "item": "RW", "article": "CW", "place": "data_parallel"})
    assert set(plan.plan) == {"embeddings"}
    assert places(plan) == {
        "item": ("RW", (0, 1, 2, 3)),
        "article": ("CW", (0, 1)),  # 8 columns: two shards of 4
        "place": ("DP", ()),
    }


def test_without_dedup_the_modules_are_torchrecs() -> None:
    plan = place_tables(embeddings(dedup=False), FOUR, {"default": "TW", "item": "RW"})
    assert {path: set(tables) for path, tables in plan.plan.items()} == {
        "embeddings.pooled.sample": {"item", "place"},
        "embeddings.sequences": {"article"},
    }
    assert places(plan)["item"] == ("RW", (0, 1, 2, 3))


def test_the_planner_is_used_on_cuda_or_where_it_is_asked_for() -> None:
    assert [uses_planner("auto", device) for device in ("cpu", "cuda")] == [False, True]
    assert uses_planner("planner", "cpu")
    assert not uses_planner({"item": "TW"}, "cuda")


def test_width_must_fit_the_kernels() -> None:
    tables = {**TABLES, "place": Table("place", 10, 6)}
    with pytest.raises(ConfigError, match=r"tables.place.dim=6: .* use 8"):
        place_tables(Embeddings(SCHEMA, tables, device="meta"), TWO, "TW")
