"""From a job to the plan of its tables: what is counted, what is asked for, and that planning changes nothing."""

from dataclasses import replace

import pytest
import torch

from recd_dist.plan.step_rows import StepRows
from recd_dist.train import build, planning


def test_rows_and_ids_are_counted_in_batches(checked) -> None:
    """The manifest cannot know how many distinct ids a batch has; for the rest the two must agree roughly."""
    resolved = checked("batch_size=500")
    counted, known = planning.count_rows(resolved), StepRows.of_table(resolved.manifest, resolved.schema, 500)

    assert counted == planning.count_rows(resolved)
    assert counted.batch_size == pytest.approx(500, rel=0.1)
    assert counted.expanded_ids["history_item"] == pytest.approx(known.expanded_ids["history_item"], rel=0.3)
    assert counted.unique_ids["history_item"] == pytest.approx(known.unique_ids["history_item"], rel=0.5)
    assert 0 < counted.distinct_ids["item"] < counted.unique_ids["history_item"] + counted.unique_ids["candidate_item"]


def test_without_files_the_manifest_must_do(checked, monkeypatch: pytest.MonkeyPatch) -> None:
    resolved = checked()
    broken = replace(resolved, table=replace(resolved.table, path=resolved.table.path / "moved"))

    assert planning.count_rows(broken) == StepRows.of_table(resolved.manifest, resolved.schema, 1024)


def test_places_are_left_out_for_another_world(checked) -> None:
    pinned = checked("plan.tables.item={type: TW, ranks: [0]}")

    assert planning.wanted_sharding(pinned)["item"] == {"type": "TW", "ranks": [0]}
    assert planning.wanted_sharding(pinned, with_places=False)["item"] == "TW"


def test_planning_leaves_the_generator_and_the_job_as_they_were(checked) -> None:
    resolved = checked("model=sequence", "model.dropout=0.5")
    before, config = torch.get_rng_state(), repr(resolved.config)
    planning.plan_job(resolved, 2)

    assert torch.equal(torch.get_rng_state(), before)
    assert repr(resolved.config) == config


def test_dense_parameters_are_counted_without_being_made(checked) -> None:
    for model in ("dlrm", "sequence"):
        resolved = checked(f"model={model}")
        made = build.build_model(resolved, dedup=True).head
        assert build.count_dense_parameters(resolved) == sum(p.numel() for p in made.parameters()) > 0
