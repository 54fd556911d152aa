"""What travels of each table: the cheaper way, the usual one where they are near, what is pinned, and why."""

from dataclasses import replace

import pytest

from recd_dist.embedding.placement import Placed, Shard
from recd_dist.plan.choose import choose_send, expanded_places
from recd_dist.plan.machines import PRESETS
from recd_dist.plan.placing import World, row_wise
from recd_dist.plan.step_rows import StepRows, TableUse

LINK = replace(PRESETS["cpu_1gbit"], call_ms=0.0)
LISTS = TableUse("item", 100_000, 16, ("history",), is_sequence=False)
KEPT = TableUse("click", 100_000, 16, ("clicks",), is_sequence=True, send="ids")
WHOLE = Placed("TW", (Shard(0, 0, 100_000, 0, 16),))
SPLIT = row_wise(LISTS, World(4, 1))


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
def test_the_cheaper_way(place: Placed, ids: float, distinct: float, send: str) -> None:
    choice = choose_send([LISTS], {"item": place}, step(ids, distinct), 4, LINK)["item"]
    assert choice.send == send
    assert (choice.ids_ms < choice.rows_ms) == (send == "ids")
    assert f"ids repeat {ids / distinct:.1f}x in a batch; ids cost {choice.ids_ms:.2f} ms, rows" in choice.reason


def test_near_costs_keep_the_usual_way() -> None:
    """A call for itself is what one table of one id a row costs more; un-pooled tables have that call in any case."""
    near = step(1000, 1000, rows=1000)
    found = choose_send([LISTS, KEPT], {"item": WHOLE, "click": WHOLE}, near, 2, PRESETS["cpu"])
    assert {t: c.send for t, c in found.items()} == {"item": "rows", "click": "ids"}


def test_pins_and_copies() -> None:
    found = choose_send([LISTS], {"item": WHOLE}, step(20_000, 50), 4, LINK, pinned={"item": "rows"})["item"]
    assert found.send == "rows"
    assert found.reason.startswith("plan.send says so; ids cost")
    copied = choose_send([LISTS], {"item": Placed("DP")}, step(20_000, 50), 4, LINK)["item"]
    assert (copied.send, copied.reason) == ("rows", "every rank holds a copy: nothing travels")


def test_ids_not_counted_are_taken_to_differ() -> None:
    unknown = replace(step(20_000, 50), distinct_ids={})
    found = choose_send([LISTS], {"item": WHOLE}, unknown, 4, LINK)["item"]
    assert found.send == "rows"
    assert found.reason.startswith("repeats of ids not counted")


def test_a_table_that_all_ranks_ask_one_for_is_divided() -> None:
    """64 hosts look up 20,000 distinct ids each: 64 ranks answer 312 ids a batch, instead of one all of them."""
    world = World(64, 1)
    busy, others = step(60_000, 20_000, rows=1000), {"item": [row_wise(LISTS, world)]}
    found = choose_send([LISTS], {"item": WHOLE}, busy, 64, PRESETS["cpu_1gbit"], others=others)["item"]
    assert (found.send, found.place.sharding) == ("ids", "RW")
    assert found.reason.endswith("RW instead of TW: no rank is asked by all")


def test_the_choice_does_not_depend_on_the_rank_order_of_calls() -> None:
    busy = step(60_000, 20_000)
    first = choose_send([LISTS, KEPT], {"item": WHOLE, "click": WHOLE}, busy, 4, LINK)
    assert first == choose_send([LISTS, KEPT], {"click": WHOLE, "item": WHOLE}, busy, 4, LINK)


def test_the_expanded_yardstick_gets_the_place_that_suits_it() -> None:
    """A small table that all ranks ask of one is copied to all of them; a large one is divided over them."""
    small = replace(LISTS, table="shop", num_embeddings=100)
    large = replace(LISTS, num_embeddings=2_000_000)
    places = {
        "shop": Placed("TW", (Shard(0, 0, 100, 0, 16),)),
        "item": Placed("TW", (Shard(0, 0, 2_000_000, 0, 16),)),
    }
    found = expanded_places([small, large], places, {"item": row_wise(large, World(4, 1))}, step(20_000, 50), LINK)
    assert (found["shop"].sharding, found["item"].sharding) == ("DP", "RW")
    assert places["shop"].sharding == "TW"


def test_a_small_pooled_table_may_be_copied() -> None:
    """64 ranks ask one rank for a table of 100 rows, or each has a copy and sums 1,600 gradients."""
    small = replace(LISTS, num_embeddings=100)
    place = Placed("TW", (Shard(0, 0, 100, 0, 16),))
    options = {"pinned": {"item": "rows"}, "others": {"item": [Placed("DP")]}}
    busy = step(60_000, 50, rows=1000)
    found = choose_send([small], {"item": place}, busy, 64, PRESETS["cpu_1gbit"], **options)["item"]
    assert (found.place.sharding, found.send) == ("DP", "rows")
    assert "nothing travels" in found.reason
