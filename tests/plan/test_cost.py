"""Milliseconds by formula: what each part is made of, on which rank, and over which link."""

from dataclasses import replace

import numpy as np
import pytest

from recd_dist.embedding.vocabulary.placement import Shard, TablePlace
from recd_dist.plan.cost import mean_ms, no_work, split_bytes, step_time, table_work
from recd_dist.plan.link_time import exchange_ms
from recd_dist.plan.machines import Machine
from recd_dist.plan.step_bytes import step_bytes
from recd_dist.plan.step_rows import StepRows, TableUse

USE = TableUse("item", 1000, 16, ("history", "candidate"), is_sequence=False)
# 100 samples on 10 users; 20 items each; 80 distinct ones in the batch
STEP = StepRows(
    batch_size=100,
    rows={"history": 10, "candidate": 100},
    unique_ids={"history": 200, "candidate": 100},
    expanded_ids={"history": 2000, "candidate": 100},
    distinct_ids={"item": 80},
    length_bytes=1,
)
# a byte or an id a millisecond
SLOW = Machine(
    "slow", "cpu", 2, 2**30, gather_bytes_per_s=1e18, call_ms=0.0, lookup_ns_per_id=1e6, lookup_ns_per_row=0.0,
    distinct_ns_per_id=1e6, expand_bytes_per_s=1e3, latency_ms=0.0, latency_ms_per_rank=0.0, inside_bytes_per_s=1e3,
    between_bytes_per_s=1e2, dense_flops_per_s=1e3, source="",
)  # fmt: skip
PLACES = {
    "TW": TablePlace("TW", (Shard(1, 0, 1000, 0, 16),)),
    "CW": TablePlace("CW", (Shard(0, 0, 1000, 0, 8), Shard(3, 0, 1000, 8, 8))),
    "RW": TablePlace("RW", tuple(Shard(r, 250 * r, 250, 0, 16) for r in range(4))),
    "TWRW": TablePlace("TWRW", (Shard(2, 0, 500, 0, 16), Shard(3, 500, 500, 0, 16))),
}


@pytest.mark.parametrize("sharding", ["TW", "CW", "RW"])
@pytest.mark.parametrize("send", ["rows", "ids"])
@pytest.mark.parametrize("dedup", [True, False])
def test_bytes_are_those_of_step_bytes(sharding: str, send: str, dedup: bool) -> None:
    use = replace(USE, send=send)
    work = table_work(use, PLACES[sharding], STEP, 4, SLOW, dedup=dedup)
    due = step_bytes([use], {"item": PLACES[sharding]}, STEP, 4, dedup=dedup)
    assert sum(split_bytes(work, SLOW)) == pytest.approx(due.total)


@pytest.mark.parametrize("sharding", ["TW", "CW", "RW", "TWRW"])
@pytest.mark.parametrize("send", ["rows", "ids"])
def test_bytes_are_those_of_step_bytes_inside_the_host_first(sharding: str, send: str) -> None:
    use, step = replace(USE, send=send, host_size=2), replace(STEP, distinct_of={"item": (80.0, 120.0)})
    work = table_work(use, PLACES[sharding], step, 4, SLOW, dedup=True)
    due = step_bytes([use], {"item": PLACES[sharding]}, step, 4, dedup=True)
    if sharding == "TWRW" and send == "rows":  # these travel directly, and are summed where they are made
        assert not work.inner_input.any()
        return
    assert sum(split_bytes(work, SLOW)) == pytest.approx(due.total)
    by_rank = [step_bytes([use], {"item": PLACES[sharding]}, step, 4, dedup=True, rank=q).total for q in range(4)]
    assert sum(by_rank) / 4 == pytest.approx(due.total)


def test_an_id_leaves_its_host_once() -> None:
    """80 ids a rank, 120 a host of two: 3/4 as many vectors cross between hosts as directly."""
    step = replace(STEP, distinct_of={"item": (80.0, 120.0)})
    ids = replace(USE, send="ids")
    direct = table_work(ids, PLACES["RW"], step, 4, SLOW, dedup=True)
    by_host = table_work(replace(ids, host_size=2), PLACES["RW"], step, 4, SLOW, dedup=True)
    assert split_bytes(by_host, SLOW)[1] == pytest.approx(3 / 4 * split_bytes(direct, SLOW)[1])
    assert by_host.lookup_ms.sum() == pytest.approx(3 / 4 * direct.lookup_ms.sum())
    unknown = table_work(replace(ids, host_size=2), PLACES["RW"], STEP, 4, SLOW, dedup=True)
    assert split_bytes(unknown, SLOW)[1] == pytest.approx(split_bytes(direct, SLOW)[1])


@pytest.mark.parametrize("sharding", ["TW", "CW", "RW"])
@pytest.mark.parametrize("dedup", [True, False])
def test_weights_are_4_bytes_an_id_where_they_travel(sharding: str, dedup: bool) -> None:
    def input_bytes(**options: object) -> float:
        return step_bytes([replace(USE, **options)], {"item": PLACES[sharding]}, STEP, 4, dedup=dedup).input

    # Of column shards each rank needs every id.
    ids = (300 if dedup else 2100) * (2 if sharding == "CW" else 1)
    assert input_bytes(weighted=True) - input_bytes() == pytest.approx(ids * 4 * 3 / 4)
    assert input_bytes(weighted=True, is_sequence=True) == input_bytes(is_sequence=True)
    assert (input_bytes(weighted=True, send="ids") == input_bytes(send="ids")) is dedup


def test_inside_and_between_hosts() -> None:
    """A table on rank 1 of hosts (0, 1) and (2, 3): rank 0 asks inside the host, ranks 2 and 3 from outside."""
    work = table_work(USE, PLACES["TW"], STEP, 4, SLOW, dedup=True)
    one_batch = 300 * 4 + 110 + 2 * 110 * 16 * 4
    assert split_bytes(work, SLOW) == (one_batch / 4, 2 * one_batch / 4)


def test_the_slowest_rank_counts() -> None:
    """Rank 1 is sent 10 bytes by each of the others: 10 from its host at 1 a ms, 20 from the other at 0.1 a ms."""
    assert exchange_ms(np.array([0.0, 10.0, 0.0, 0.0]), SLOW) == pytest.approx(200)
    assert exchange_ms(np.array([0.0, 10.0]), SLOW) == pytest.approx(10)
    assert exchange_ms(np.array([10.0]), SLOW) == 0


def test_the_holder_of_a_table_does_the_lookups_of_all_ranks() -> None:
    rows, ids = (table_work(replace(USE, send=s), PLACES["TW"], STEP, 4, SLOW, dedup=True) for s in ("rows", "ids"))
    assert rows.lookup_ms.tolist() == pytest.approx([0, 4 * 300, 0, 0])
    assert ids.lookup_ms.tolist() == pytest.approx([0, 4 * 80, 0, 0])
    spread = table_work(USE, PLACES["RW"], STEP, 4, SLOW, dedup=True)
    assert spread.lookup_ms.tolist() == pytest.approx([300] * 4)
    copied = table_work(USE, TablePlace("DP"), STEP, 4, SLOW, dedup=True)
    assert copied.lookup_ms.tolist() == pytest.approx(
        [300] * 4
    )  # and 12 times through the copy, at 1e18 bytes a second
    assert copied.replicated == 16000


def test_arrival_and_expansion_are_of_the_own_batch() -> None:
    rows, ids, off = (
        table_work(replace(USE, send=send), PLACES["TW"], STEP, 4, SLOW, dedup=dedup)
        for send, dedup in (("rows", True), ("ids", True), ("rows", False))
    )
    assert (rows.arrival_ms, off.arrival_ms, off.expansion_ms) == (0, 0, 0)
    assert ids.arrival_ms == pytest.approx(300 + 300 * 16 * 4)
    assert (
        rows.expansion_ms == ids.expansion_ms == pytest.approx(100 * 16 * 4)
    )  # of `history`; `candidate` has a row each


def test_partial_sums_stay_inside_the_host() -> None:
    """TWRW: every batch's 110 rows are summed over ranks 2 and 3; each sends the sums of half of the batches."""
    work = table_work(USE, PLACES["TWRW"], STEP, 4, SLOW, dedup=True)
    rows = 110 * 16 * 4
    assert work.output.tolist() == [0, 0, rows / 2, rows / 2]
    assert work.summed.tolist() == [0, 0, 4 * rows / 2, 4 * rows / 2]
    assert table_work(replace(USE, send="ids"), PLACES["TWRW"], STEP, 4, SLOW, dedup=True).summed.tolist() == [0] * 4


def test_a_step_is_the_sum_of_its_parts() -> None:
    works = {"item": table_work(USE, PLACES["TW"], STEP, 4, SLOW, dedup=True)}
    time = step_time([USE], {"item": PLACES["TW"]}, works, 4, SLOW, dedup=True, num_dense=100)
    assert (time.lookup, time.output) == (pytest.approx(1200), pytest.approx(2 * 110 * 64 / 0.1))
    assert time.backward == time.output
    # 400 bytes once around the two ranks of a host, then half of them once around the two hosts.
    assert time.all_reduce == pytest.approx(400 / 1 + 200 / 0.1)
    rest = time.lookup + time.output + time.backward + time.expansion + time.all_reduce
    assert time.input < rest  # the ids of the next batch travel meanwhile
    assert time.total == pytest.approx(rest)
    assert replace(time, input=2 * rest).total == pytest.approx(2 * rest)
    assert mean_ms(no_work(4), SLOW) == 0
