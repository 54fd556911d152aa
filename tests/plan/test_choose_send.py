"""What travels of each table: the cheaper of rows and ids, or what the config says; and the reason in words."""

from dataclasses import replace

import pytest

from recd_dist.embedding.vocabulary.placement import Shard, TablePlace
from recd_dist.plan.assign_shards import cut_rows
from recd_dist.plan.choose_send import choose_send
from recd_dist.plan.machines import PRESETS
from recd_dist.plan.step_rows import StepRows, TableUse

LINK = replace(PRESETS["cpu_1gbit"], call_ms=0.0)
LISTS = TableUse("item", 100_000, 16, ("history",), is_sequence=False)
UNPOOLED = TableUse("click", 100_000, 16, ("clicks",), is_sequence=True, send="ids")
WHOLE = TablePlace("TW", (Shard(0, 0, 100_000, 0, 16),))
SPLIT = TablePlace("RW", tuple(cut_rows(LISTS, range(4), 0, 16)))


def step(ids: float, distinct: float, rows: float = 100) -> StepRows:
    """1,000 samples on 100 rows, for both tables."""
    features = ("history", "clicks")
    return StepRows(
        batch_size=1000,
        rows=dict.fromkeys(features, rows),
        unique_ids=dict.fromkeys(features, ids),
        expanded_ids=dict.fromkeys(features, 10 * ids),
        distinct_ids={"item": distinct, "click": distinct},
        length_bytes=1,
    )


@pytest.mark.parametrize(
    ("place", "ids", "distinct", "send"),
    [
        (WHOLE, 20_000, 20_000, "rows"),  # 200 ids a row, none repeats: 100 pooled rows come back, or 20,000 vectors
        (WHOLE, 20_000, 50, "ids"),  # every id 400 times
        (SPLIT, 100, 100, "ids"),  # every rank would send a partial sum of each row
    ],
)
def test_what_is_cheaper_travels(place: TablePlace, ids: float, distinct: float, send: str) -> None:
    choice = choose_send([LISTS], {"item": place}, step(ids, distinct), 4, LINK)["item"]
    assert choice.send == send
    assert (choice.ids_ms < choice.rows_ms) == (send == "ids")
    assert f"ids repeat {ids / distinct:.1f}x in a batch; ids cost {choice.ids_ms:.2f} ms, rows" in choice.reason


def test_what_usually_travels_stays_where_costs_are_close() -> None:
    """With one id a row, ids cost a pooled table one more kernel call, which an un-pooled table needs in any case."""
    near = step(1000, 1000, rows=1000)
    choices = choose_send([LISTS, UNPOOLED], {"item": WHOLE, "click": WHOLE}, near, 2, PRESETS["cpu"])
    assert {t: c.send for t, c in choices.items()} == {"item": "rows", "click": "ids"}


def test_the_config_decides_and_copies_send_nothing() -> None:
    choice = choose_send([LISTS], {"item": WHOLE}, step(20_000, 50), 4, LINK, pinned={"item": "rows"})["item"]
    assert choice.send == "rows"
    assert choice.reason.startswith("plan.send says so; ids cost")
    copied = choose_send([LISTS], {"item": TablePlace("DP")}, step(20_000, 50), 4, LINK)["item"]
    assert (copied.send, copied.reason) == ("rows", "every rank holds a copy: nothing travels")


def test_ids_that_are_not_counted_count_as_distinct() -> None:
    unknown = replace(step(20_000, 50), distinct_ids={})
    choice = choose_send([LISTS], {"item": WHOLE}, unknown, 4, LINK)["item"]
    assert choice.send == "rows"
    assert choice.reason.startswith("how often ids repeat was not counted")


def test_the_choice_does_not_depend_on_the_order_of_the_places() -> None:
    busy = step(60_000, 20_000)
    first = choose_send([LISTS, UNPOOLED], {"item": WHOLE, "click": WHOLE}, busy, 4, LINK)
    assert first == choose_send([LISTS, UNPOOLED], {"click": WHOLE, "item": WHOLE}, busy, 4, LINK)
