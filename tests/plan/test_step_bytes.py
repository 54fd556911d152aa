"""Bytes of a step by formula: those of the groups add up to those of the step."""

from dataclasses import replace

import pytest
from tests.plan.small_tables import SCHEMA, STEP, TWO_HOSTS, embeddings

from recd_dist.embedding.vocabulary.placement import read_placement
from recd_dist.plan.sharding import place_tables
from recd_dist.plan.step_bytes import group_bytes, step_bytes
from recd_dist.plan.step_rows import table_uses


def test_groups_share_what_is_sent() -> None:
    """A table of which ids travel is charged to its groups by the ids that each has in it."""
    tables = embeddings(send={"item": "ids"})
    uses, placement = table_uses(tables), read_placement(place_tables(tables, TWO_HOSTS, "TW"))
    step = replace(STEP, distinct_ids={"item": 90, "article": 50})
    for dedup in (True, False):
        total = step_bytes(uses, placement, step, 4, dedup=dedup)
        by_group = group_bytes(SCHEMA, uses, placement, step, 4, dedup=dedup)
        assert set(by_group) == {"user", "sample"}
        assert sum(sent.total for sent in by_group.values()) == pytest.approx(total.total)
    ids = group_bytes(SCHEMA, [u for u in uses if u.table == "item"], placement, step, 4, dedup=True)
    assert ids["user"].total == pytest.approx(2 * ids["sample"].total)  # 200 ids against 100
