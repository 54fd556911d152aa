"""Batches by work on several ranks: the same with deduplication on and off, and after a stop; imbalance over ranks."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from recd_dist.checkpoint.stored_tensors import StoredTensors, compare
from recd_dist.cli import main
from recd_dist.job.config import load
from recd_dist.job.preflight import check
from recd_dist.metrics.imbalance import Imbalance
from recd_dist.ranks.process_group import Ranks
from recd_dist.train.measured_work import counted_lists, cutter_of, measure_work
from recd_dist.train.training import shard_model, train

GIVEN = ["reader.batches=work", "reader.work.sample=1", "reader.work.id=0.5", "reader.work.look=0.1"]
STEADY = ["optim.dense.eps=1e-4", "optim.tables.eps=1e-4"]


def _imbalance(ranks: Ranks) -> dict[str, float]:
    clock = iter([0.0, 3.0 + ranks.rank, 10.0, 13.0, 20.0])
    imbalance = Imbalance(torch.device("cpu"), lambda: next(clock))
    imbalance.count_step({"ids": [30.0, 10.0][ranks.rank]})
    imbalance.count_step({"ids": 20.0})
    return imbalance.compute()


def test_the_step_takes_as_long_as_its_slowest_rank(two_ranks) -> None:
    """3 and 4 seconds, then 3 and 3: 7 for a mean of 6.5. 30 and 10 ids, then 20 and 20: 50 for 40."""
    for found in two_ranks(_imbalance):
        assert found == {"computing": 7 / 6.5, "ids": 1.25}


def _train_in_parts(ranks: Ranks, overrides: list[str], ends: list[int]) -> list[dict]:
    return [train(load("train", [*overrides, f"max_steps={end}"]), ranks) for end in ends]


def test_on_is_off(two_ranks, tiny: list[str], tmp_path: Path) -> None:
    options = [*tiny, *GIVEN, *STEADY, "model=transformer", "batch_size=64", "record_samples=true"]
    on, off = (
        two_ranks(_train_in_parts, [*options, f"run_dir={tmp_path / mode}", f"dedup={mode}"], [6])[0][0]
        for mode in ("on", "off")
    )
    assert on["loss"] == pytest.approx(off["loss"], rel=1e-5)
    assert on["samples"] == off["samples"]
    first, second = (sorted((tmp_path / mode / "seen").rglob("*.bin")) for mode in ("on", "off"))
    assert [a.read_bytes()[40:] for a in first] == [b.read_bytes()[40:] for b in second]


def test_a_resumed_run_has_the_bits_of_one_that_was_not_stopped(two_ranks, tiny: list[str], tmp_path: Path) -> None:
    options = [*tiny, *GIVEN, "model=transformer", "batch_size=64", "evaluate.split=null"]
    parts, whole = tmp_path / "parts", tmp_path / "whole"
    two_ranks(_train_in_parts, [*options, f"run_dir={parts}"], [3, 5])
    two_ranks(_train_in_parts, [*options, f"run_dir={whole}"], [5])
    one, other = (StoredTensors(run / "checkpoints/step-00000005") for run in (whole, parts))
    assert not {name: what for name, what, _ in compare(one, other) if what}


def test_a_run_goes_on_by_work_and_by_samples_on_any_ranks(two_ranks, four_ranks, tiny: list[str], tmp_path: Path):
    options = [*tiny, "batch_size=64", "record_samples=true", "evaluate.split=null", f"run_dir={tmp_path}"]
    two_ranks(_train_in_parts, options, [3])
    four_ranks(_train_in_parts, [*options, *GIVEN[:3]], [5])
    two_ranks(_train_in_parts, [*options, *GIVEN[:3]], [7])
    summary = two_ranks(_train_in_parts, options, [10**6])[0][0]
    job = check(load("train", [*tiny, f"run_dir={tmp_path / 'none'}"]))
    assert summary["samples"] == job.manifest.num_samples
    assert set(summary["imbalance"]) == {"computing", "samples", "ids", "unique_rows"}
    assert main(["seen", str(tmp_path)]) == 0


def test_costs_that_were_measured_are_kept(two_ranks, tiny: list[str], tmp_path: Path) -> None:
    options = [*tiny, "model=transformer", "batch_size=64", "reader.batches=work", "evaluate.split=null"]
    two_ranks(_train_in_parts, [*options, f"run_dir={tmp_path}"], [2, 4])
    first, second = (
        json.loads((tmp_path / f"checkpoints/step-0000000{step}/checkpoint.json").read_text()) for step in (2, 4)
    )
    assert first["extra"]["reader"]["work"] == second["extra"]["reader"]["work"]


def _weights(model: Any) -> dict[str, torch.Tensor]:
    """Copies of this rank's weights and buffers, with its shards of the tables."""
    found = {}
    for name, value in model.state_dict().items():
        shards = [s.tensor for s in value.local_shards()] if hasattr(value, "local_shards") else [value]
        found.update({f"{name} {number}": shard.clone() for number, shard in enumerate(shards)})
    return found


def _measured(ranks: Ranks, overrides: list[str]) -> tuple[list, dict, dict]:
    job = check(load("train", overrides), ranks.world_size)
    transforms = job.transforms.fit(job.table)
    model, _, _ = shard_model(job, ranks)
    before = _weights(model)
    random = torch.random.get_rng_state()
    work = measure_work(job, ranks, model, transforms, counted_lists(job))
    now = _weights(model)
    changed = [name for name, value in before.items() if not torch.equal(value, now[name])]
    assert torch.equal(random, torch.random.get_rng_state())
    cutter = cutter_of(job, ranks, model, transforms, {"work": work.to_json()})
    return changed, work.to_json(), cutter.work.to_json()


@pytest.mark.parametrize("tables", [[], ["data.tables.item={mapped: true, num_embeddings: 64}"]], ids=["", "mapped"])
def test_measuring_changes_nothing_and_ranks_agree(two_ranks, tiny: list[str], tmp_path: Path, tables: list[str]):
    overrides = [*tiny, *tables, "model=transformer", "batch_size=64", "reader.batches=work", f"run_dir={tmp_path}"]
    (changed, work, known), (_, other, _) = two_ranks(_measured, overrides)
    assert changed == []
    assert work == other == known
    assert any(work.values())
