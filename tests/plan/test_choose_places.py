"""The choice among several searches. On several hosts ours never sends more to others than expanded batches would."""

from dataclasses import replace

import pytest

from recd_dist.plan.choose_places import choose_places
from recd_dist.plan.cost import split_bytes
from recd_dist.plan.machines import find_machine
from recd_dist.plan.step_rows import StepRows, TableUse
from recd_dist.plan.world import World

H100 = find_machine("h100x8")
TABLES = {"item": 200_000, "creator": 100_000, "topic": 20_000, "place": 5_000, "profile": 300, "device": 30}
"""Rows of tables like those of rm1, whose histories are long."""
SAMPLES_A_ROW = {"item": 5.0, "creator": 14.0, "topic": 11.0, "place": 12.0, "profile": 15.0, "device": 6.0}
IDS_A_LIST = {"item": 188.0, "creator": 100.0, "topic": 60.0, "place": 20.0, "profile": 1.0, "device": 1.0}


def uses(times: int) -> list[TableUse]:
    return [TableUse(t, rows * times, 16, (f"f_{t}",), is_sequence=False) for t, rows in TABLES.items()]


def step() -> StepRows:
    rows = {f"f_{t}": 1000 / n for t, n in SAMPLES_A_ROW.items()}
    ids = {f: n * IDS_A_LIST[f[2:]] for f, n in rows.items()}
    return StepRows(
        batch_size=1000,
        rows=rows,
        unique_ids=ids,
        expanded_ids={f: n * SAMPLES_A_ROW[f[2:]] for f, n in ids.items()},
        distinct_ids={t: min(ids[f"f_{t}"] / 2, TABLES[t]) for t in TABLES},
        length_bytes=1,
    )


@pytest.mark.parametrize("times", [1, 1000])
@pytest.mark.parametrize("world_size", [16, 64, 1024])
@pytest.mark.parametrize("optimizer", ["rowwise_adagrad", "adam"])
def test_ours_never_sends_more_to_other_hosts_than_expanded_batches(
    times: int, world_size: int, optimizer: str
) -> None:
    """Small tables may be copied on either side; where they are too large, or adam cannot, something is exchanged."""
    world, tables = World(world_size, 8, "cuda"), uses(times)
    ways = [tables, [replace(use, host_size=8) for use in tables]]
    expanded = choose_places([tables], world, H100, step(), optimizer=optimizer, dedup=False)
    ours = choose_places(ways, world, H100, step(), optimizer=optimizer, expanded=expanded)
    sent = ours.bytes_to_other_hosts(), expanded.bytes_to_other_hosts()
    assert sent[0] <= sent[1] * (1 + 1e-9)
    if any(split_bytes(search.ledger.total, H100)[1] for search in (ours, expanded)):
        assert sent[0] < sent[1]
    else:
        assert (times, optimizer) == (1, "rowwise_adagrad")  # every rank holds a copy of every table, on either side
