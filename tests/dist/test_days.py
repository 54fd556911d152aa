"""Day by day on two ranks: the same days, rows and lookups as on one, whatever the sharding; tables grow on the way."""

import json
from pathlib import Path
from typing import Any

import pytest

from recd_dist.job.config import load
from recd_dist.ranks.process_group import Ranks
from recd_dist.train.evaluation import count_seen
from recd_dist.train.training import train

SHARDINGS = ("row_wise", "column_wise", "data_parallel")


def _train(ranks: Ranks, overrides: list[str]) -> dict[str, Any]:
    return train(load("train", overrides), ranks)


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> list[list[str]]:
    """The options of three tables: of one day, of two, of three; each day has ten items that are new."""
    from tests.train.two_labels import add_day, described  # ranks, which import this file, do not find it

    found = []
    for num_days in (1, 2, 3):
        root = tmp_path_factory.mktemp("table")
        for number in range(num_days):
            add_day(root, f"2026-11-{24 + number}", 10 * number, "data.groups={user: [history]}")
        found.append(described(root))
    return found


@pytest.mark.parametrize("sharding", SHARDINGS)
def test_rows_and_lookups_are_counted_over_ranks_as_tables_grow(
    two_ranks, tables: list[list[str]], tmp_path: Path, sharding: str
) -> None:
    options = ["data.label=clicked", "batch_size=32", "model.dim=8", "evaluate.split=null", "progressive=true"]
    options += [f"plan.sharding={sharding}", f"run_dir={tmp_path / 'run'}", "record_samples=true"]
    for table in tables:
        summary = two_ranks(_train, [*table, *options])[0]

    days = json.loads((tmp_path / "run/days.json").read_text())["days"]
    assert [day["name"] for day in days] == ["2026-11-24", "2026-11-25", "2026-11-26"]
    assert [day["new_rows"] for day in days] == [{"item": 50, "history": 50}, *[{"item": 10, "history": 10}] * 2]
    assert [day["unknown"]["item"] for day in days] == pytest.approx([1.0, 0.2, 0.2])
    assert [day["unknown"]["history"] for day in days] == pytest.approx([1.0, 0.2, 0.2], abs=0.01)
    assert [day["before"]["num_samples"] for day in days] == [800] * 3
    assert days[2]["before"]["auc"] > 0.7
    assert (summary["samples"], summary["world_size"]) == (2400, 2)
    assert [(count.num_samples, count.num_once) for count in count_seen(tmp_path / "run")] == [(2400, 2400)]
