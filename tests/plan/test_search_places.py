"""Places and what travels, searched together: where the model says it is cheap, and where memory allows."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from recd_dist.embedding.vocabulary.placement import TablePlace
from recd_dist.errors import ConfigError
from recd_dist.plan.cost import rank_ms
from recd_dist.plan.machines import PRESETS, find_machine
from recd_dist.plan.search_places import SearchPlaces
from recd_dist.plan.step_rows import StepRows, TableUse
from recd_dist.plan.world import World

LISTS = TableUse("item", 100_000, 16, ("history",), is_sequence=False)
LINK = replace(PRESETS["cpu_1gbit"], call_ms=0.0)
H100 = find_machine("h100x8")


def step(ids: float, distinct: float, rows: float = 100, tables: tuple[str, ...] = ("item",)) -> StepRows:
    """1,000 samples on some rows, with as many ids for each table."""
    features = {"item": "history"}
    names = [features.get(t, f"f_{t}") for t in tables]
    return StepRows(
        batch_size=1000,
        rows=dict.fromkeys(names, rows),
        unique_ids=dict.fromkeys(names, ids),
        expanded_ids=dict.fromkeys(names, 10 * ids),
        distinct_ids=dict.fromkeys(tables, distinct),
        length_bytes=1,
    )


def many(num_tables: int, num_embeddings: int, dim: int = 128) -> list[TableUse]:
    return [TableUse(f"t{n}", num_embeddings, dim, (f"f_t{n}",), is_sequence=False) for n in range(num_tables)]


def covered(use: TableUse, place: TablePlace) -> bool:
    """Whether each cell of the table is in one shard."""
    cells = np.zeros((use.num_embeddings, use.dim), dtype=np.int32)
    for shard in place.shards:
        cells[shard.row : shard.row + shard.num_rows, shard.column : shard.column + shard.num_columns] += 1
    return bool((cells == 1).all())


def test_a_busy_table_is_divided_over_all_ranks() -> None:
    """64 hosts look up 20,000 distinct ids each. Divided, each rank answers 312 ids a batch; else one answers all."""
    search = SearchPlaces([LISTS], World(64, 1), PRESETS["cpu_1gbit"], step(60_000, 20_000, rows=1000))
    (found,) = search.run().values()
    assert (found.send, found.place.sharding) == ("ids", "RW")
    assert covered(LISTS, found.place)
    assert "would cost" in search.reason("item")


def test_a_small_pooled_table_is_copied() -> None:
    """Either 64 ranks ask one rank for a table of 100 rows, or each has a copy and all sum up 1,600 gradients."""
    small, busy = replace(LISTS, num_embeddings=100), step(60_000, 50, rows=1000)
    (found,) = SearchPlaces([small], World(64, 1), PRESETS["cpu_1gbit"], busy, pinned={"item": "rows"}).run().values()
    assert (found.place.sharding, found.send) == ("DP", "rows")
    (other,) = SearchPlaces([small], World(64, 1), PRESETS["cpu_1gbit"], busy, optimizer="adam").run().values()
    assert other.place.sharding != "DP"  # there is no optimizer for copies


def test_the_expanded_side_gets_the_places_that_suit_it() -> None:
    """A small table is copied to all ranks, a large one is divided over them."""
    small = TableUse("shop", 100, 16, ("f_shop",), is_sequence=False)
    large = replace(LISTS, num_embeddings=2_000_000)
    rows = step(20_000, 50, tables=("item", "shop"))
    found = SearchPlaces([small, large], World(4, 1, "cuda"), LINK, rows, dedup=False).run()
    assert {t: a.place.sharding for t, a in found.items()} == {"shop": "DP", "item": "RW"}


def test_every_rank_is_used_and_as_busy_as_the_others() -> None:
    """20 tables of 10 million rows on 1,000 ranks; ids repeat four times in a batch."""
    uses = many(20, 10_000_000)
    rows = step(10_240, 2_560, rows=512, tables=tuple(u.table for u in uses))
    search = SearchPlaces(uses, World(1000, 8, "cuda"), H100, rows)
    search.run()
    assert (search.used > 0).all()
    assert search.used.max() < 1.05 * search.used.mean()
    loads = rank_ms(search.ledger.total, H100)
    assert loads.max() < 1.05 * loads.mean()


def test_columns_are_cut_unevenly_where_that_reaches_more_hosts() -> None:
    """No id repeats: columns lie on hosts. In 4 or 8 equal shards, 20 tables fill 80 hosts of 125, or some twice."""
    uses = many(20, 10_000_000)
    rows = step(10_240, 10_240, rows=512, tables=tuple(u.table for u in uses))
    search = SearchPlaces(uses, World(1000, 8, "cuda"), H100, rows)
    found = search.run()
    assert (search.used > 0).all()
    assert search.used.max() < 1.2 * search.used.mean()
    widths = {s.num_columns for a in found.values() for s in a.place.shards}
    assert max(widths) == 24  # of six shards
    for alternative in found.values():
        assert alternative.place.sharding == "GRID"
        columns = sorted({(s.column, s.num_columns) for s in alternative.place.shards})
        assert sum(width for _, width in columns) == 128
        assert all(first + width == after for (first, width), (after, _) in pairwise(columns))


def test_plain_torchrec_is_offered_equal_shards_only() -> None:
    uses = many(20, 10_000_000)
    rows = step(10_240, 10_240, rows=512, tables=tuple(u.table for u in uses))
    found = SearchPlaces(uses, World(1000, 8, "cuda"), H100, rows, dedup=False).run()
    assert all(len({s.num_columns for s in a.place.shards}) == 1 for a in found.values())


def test_a_table_that_no_rank_can_hold_is_split() -> None:
    tight = replace(H100, memory_bytes=2**30)
    uses = many(2, 10_000_000)  # 5 GiB each
    rows = step(100, 100, tables=("t0", "t1"))
    search = SearchPlaces(uses, World(16, 8, "cuda"), tight, rows)
    search.run()
    assert search.used.max() <= tight.memory_bytes
    assert search.used.sum() == pytest.approx(2 * 4 * (10_000_000 * 129), rel=0.02)


def test_where_nothing_fits_the_error_says_how_many_ranks_would_do() -> None:
    tight = replace(H100, memory_bytes=2**30)
    with pytest.raises(ConfigError, match=r"table 't\d'.*fits nowhere.*start at least 15 ranks"):
        SearchPlaces(many(3, 10_000_000), World(8, 8, "cuda"), tight, step(100, 100, tables=("t0", "t1", "t2"))).run()


def test_what_the_config_pins_travels() -> None:
    busy = step(60_000, 20_000, rows=1000)
    for send in ("rows", "ids"):
        (found,) = SearchPlaces([LISTS], World(4, 1), LINK, busy, pinned={"item": send}).run().values()
        assert found.send == send
