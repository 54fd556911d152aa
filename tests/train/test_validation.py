"""Evaluations while training: they change nothing, the best checkpoint is kept, training ends early, resume goes on."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from recd_dist.checkpoint import checkpoint
from recd_dist.checkpoint.safe_storage import SafeReader
from recd_dist.errors import ConfigError
from recd_dist.job.config import load
from recd_dist.job.options import EvaluateConfig
from recd_dist.job.preflight import check
from recd_dist.ranks.process_group import Ranks, process_group
from recd_dist.ranks.stop import Stopped
from recd_dist.train import training, validation
from recd_dist.train.evaluation import evaluate_run
from recd_dist.train.training import train

pytestmark = [pytest.mark.usefixtures("own_logging"), pytest.mark.filterwarnings("ignore::FutureWarning")]


@pytest.fixture(scope="module")
def alone() -> Iterator[Ranks]:
    with process_group("cpu") as ranks:
        yield ranks


def run(tiny: list[str], alone: Ranks, run_dir: Path, *overrides: str) -> dict[str, Any]:
    return train(load("train", [*tiny, f"run_dir={run_dir}", "batch_size=128", *overrides]), alone)


def saved(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a checkpoint."""
    from torch.distributed.checkpoint.state_dict_loader import load as dcp_load

    reader = SafeReader(path)
    stored = reader.read_metadata().state_dict_metadata
    tensors = {name: torch.empty(tuple(one.size), dtype=one.properties.dtype) for name, one in stored.items()}
    dcp_load(tensors, storage_reader=reader, no_dist=True)
    return tensors


def test_looking_changes_no_weight_and_no_count(tiny: list[str], alone: Ranks, tmp_path: Path) -> None:
    options = ["max_steps=14", "model.dropout=0.2", "record_samples=true"]
    plain = run(tiny, alone, tmp_path / "plain", *options)
    looked = run(tiny, alone, tmp_path / "looked", *options, "evaluate.every=4")
    one, other = saved(Path(plain["checkpoint"])), saved(Path(looked["checkpoint"]))

    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    same = ("auc", "ne", "loss", "samples", "steps", "dedup_factor", "sent_bytes", "expanded_bytes")
    assert {name: looked[name] for name in same} == {name: plain[name] for name in same}
    assert "best" not in plain


def test_the_best_is_the_one_that_was_measured(tiny: list[str], alone: Ranks, tmp_path: Path) -> None:
    summary = run(tiny, alone, tmp_path / "run", "max_steps=10", "evaluate.every=5", "dedup=off")
    best = summary["best"]

    assert (best["step"], best["by"], summary["ended_early"]) == (10, "ne", False)  # a model that still learns
    assert best["ne"] == summary["ne"] < 1
    assert [path.name for path in (tmp_path / "run/best").glob("step-*")] == ["step-00000010"]
    assert str(tmp_path / "run/best/step-00000010") == best["checkpoint"]
    kept, last = saved(Path(best["checkpoint"])), saved(Path(summary["checkpoint"]))
    assert all(torch.equal(kept[name], last[name]) for name in last)


class Scripted(validation.Validation):
    """Evaluations whose NE is given."""

    def _measure(self, model: Any) -> dict[str, Any]:
        return {**super()._measure(model), "ne": NES[self.step]}

    def look(self, model: Any, optimizer: Any, step: int, extra: Any) -> dict[str, Any]:
        self.step = step
        return super().look(model, optimizer, step, extra)


NES = {2: 0.9, 4: 0.8, 6: 0.85, 8: 0.81, 10: 0.95, 12: 0.7}


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "Validation", Scripted)


EARLY = ("evaluate.every=2", "evaluate.patience=3", "checkpoint.every=1000")


@pytest.mark.usefixtures("scripted")
def test_training_ends_when_no_evaluation_is_better(
    tiny: list[str], alone: Ranks, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "recd_dist"):
        summary = run(tiny, alone, tmp_path / "run", *EARLY)

    assert (summary["steps"], summary["best"]["step"], summary["ended_early"]) == (10, 4, True)
    assert "ends early after step 10: 3 times in a row no better ne than 0.8000, that of step 4" in caplog.text
    assert [path.name for path in (tmp_path / "run/best").glob("step-*")] == ["step-00000004"]
    assert [path.name for path in (tmp_path / "run/checkpoints").glob("step-*")] == ["step-00000010"]
    with pytest.raises(ConfigError, match=r"trained to the end already .*; go on with a larger evaluate\.patience"):
        run(tiny, alone, tmp_path / "run", *EARLY)
    again = run(tiny, alone, tmp_path / "run", *EARLY, "evaluate.patience=4", "max_steps=12")
    assert (again["steps"], again["best"]["step"]) == (12, 12)


@pytest.mark.usefixtures("scripted")
def test_what_is_better_by_little_is_kept_and_does_not_count(
    tiny: list[str], alone: Ranks, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "recd_dist"):
        summary = run(tiny, alone, tmp_path / "run", *EARLY, "evaluate.min_improvement=0.15")

    assert (summary["steps"], summary["best"]["step"], summary["ended_early"]) == (8, 4, True)
    assert "3 times in a row no better ne than 0.8000, that of step 4 by more than 0.15" in caplog.text
    enough = run(tiny, alone, tmp_path / "enough", *EARLY, "evaluate.min_improvement=0.09", "max_steps=10")
    assert (enough["steps"], enough["ended_early"]) == (10, True)


@pytest.mark.usefixtures("scripted")
def test_a_resumed_run_keeps_the_best_and_the_count(tiny: list[str], alone: Ranks, tmp_path: Path) -> None:
    options = ("evaluate.every=2", "evaluate.patience=3", "checkpoint.every=1")
    run(tiny, alone, tmp_path / "run", *options, "max_steps=8", "checkpoint.keep=9")
    for step in (7, 8):  # as if it had been killed
        shutil.rmtree(tmp_path / f"run/checkpoints/step-{step:08d}")
    summary = run(tiny, alone, tmp_path / "run", *options)

    assert (summary["steps"], summary["best"]["step"]) == (10, 4)


@pytest.mark.usefixtures("scripted")
def test_a_best_that_lies_ahead_of_the_checkpoint_stays(tiny: list[str], alone: Ranks, tmp_path: Path) -> None:
    """Killed after the best was kept and before the next checkpoint: the step is trained and measured again."""
    options = ("evaluate.every=2", "checkpoint.every=1")
    run(tiny, alone, tmp_path / "run", *options, "max_steps=4", "checkpoint.keep=9")
    for step in (3, 4):
        shutil.rmtree(tmp_path / f"run/checkpoints/step-{step:08d}")
    summary = run(tiny, alone, tmp_path / "run", *options, "max_steps=6")

    assert summary["best"]["step"] == 4
    assert checkpoint.find_newest(tmp_path / "run/best") == tmp_path / "run/best/step-00000004"
    extra = json.loads((tmp_path / "run/checkpoints/step-00000006/checkpoint.json").read_text())["extra"]
    assert extra["validation"] == {"since_best": 1, "step": 6, "reference": 0.8}


class _StoppedAt6(training.Stop):
    """A SIGTERM on which the ranks agree after step 6."""

    def agree(self, step: int, *, now: bool = False, votes: object = ()) -> None:
        self.asked = step >= 6


@pytest.mark.usefixtures("scripted")
@pytest.mark.parametrize("patience", [1, 2])
def test_a_stop_saves_first_and_leaves_the_evaluation_to_the_next_run(
    tiny: list[str], alone: Ranks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patience: int
) -> None:
    options = ("evaluate.every=2", f"evaluate.patience={patience}", "checkpoint.every=1000", "max_steps=12")
    with monkeypatch.context() as patch:
        patch.setattr(training, "Stop", _StoppedAt6)
        patch.setitem(NES, 6, None)  # no evaluation after the step at which the run stops
        with pytest.raises(Stopped):
            run(tiny, alone, tmp_path / "run", *options)
    path = tmp_path / "run/checkpoints/step-00000006/checkpoint.json"
    assert json.loads(path.read_text())["extra"]["validation"] == {"since_best": 0, "step": 4, "reference": 0.8}

    summary = run(tiny, alone, tmp_path / "run", *options)
    assert (summary["steps"], summary["best"]["step"]) == (6 if patience == 1 else 8, 4)
    path = tmp_path / f"run/checkpoints/step-{summary['steps']:08d}/checkpoint.json"
    stored = json.loads(path.read_text())["extra"]["validation"]
    assert stored == {"since_best": patience, "step": summary["steps"], "reference": 0.8}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["evaluate.every=0"], r"evaluate\.every=0: must be at least 1, or null"),
        (["evaluate.patience=2"], r"evaluate\.patience=2: needs evaluations to compare; add evaluate\.every=500"),
        (["evaluate.every=5", "evaluate.best=aux"], r"evaluate\.best=aux: unknown; did you mean 'auc'\?"),
        (["evaluate.min_improvement=-1"], r"evaluate\.min_improvement=-1\.0: must be a number, at least 0"),
        (["evaluate.min_improvement=0.1"], r"min_improvement=0\.1: is for a patience; add evaluate\.patience=3, or 0"),
        (["evaluate.every=5", "evaluate.split=null"], r"evaluate\.every=5: there is no split to evaluate"),
    ],
)
def test_options_that_do_not_fit_are_refused(tiny: list[str], tmp_path: Path, options: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check(load("train", [*tiny, f"run_dir={tmp_path / 'run'}", *options]))


def test_the_best_checkpoint_is_evaluated_by_name(tiny: list[str], alone: Ranks, tmp_path: Path) -> None:
    summary = run(tiny, alone, tmp_path / "run", "max_steps=6", "evaluate.every=3", "evaluate.best=auc")
    result = evaluate_run(EvaluateConfig(str(tmp_path / "run"), "best", device="cpu"), alone)

    assert result["step"] == summary["best"]["step"]
    assert result["auc"] == pytest.approx(summary["best"]["auc"])
    with pytest.raises(ConfigError, match="checkpoint=bets: unknown; did you mean 'best'"):
        evaluate_run(EvaluateConfig(str(tmp_path / "run"), "bets", device="cpu"), alone)
    shutil.rmtree(tmp_path / "run/best")
    with pytest.raises(ConfigError, match=r"no best checkpoint in it, evaluate\.every keeps one"):
        evaluate_run(EvaluateConfig(str(tmp_path / "run"), "best", device="cpu"), alone)
