"""Day by day: each day is evaluated, then trained, once, whatever interrupts the run, in one command or in many."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.train.test_validation import saved
from tests.train.two_labels import NUM_SAMPLES, add_day, described

from recd_dist.cli import main
from recd_dist.errors import ConfigError
from recd_dist.job.config import load
from recd_dist.job.options import EvaluateConfig, EvaluatedData
from recd_dist.job.preflight import check
from recd_dist.ranks.process_group import Ranks, process_group
from recd_dist.train import training
from recd_dist.train.evaluation import count_seen, evaluate_run
from recd_dist.train.training import train
from recd_dist.train.validation import Validation

pytestmark = [pytest.mark.usefixtures("own_logging"), pytest.mark.filterwarnings("ignore::FutureWarning")]
DAYS = ["2026-11-24", "2026-11-25", "2026-11-26"]
STEPS = 13
"""Of a day: 800 samples in batches of at most 64."""
GROUPS = "data.groups={user: [history]}"


@pytest.fixture(scope="module")
def alone() -> Iterator[Ranks]:
    with process_group("cpu") as ranks:
        yield ranks


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of three days, each with ten items that the days before do not have."""
    root = tmp_path_factory.mktemp("days")
    for number, day in enumerate(DAYS):
        add_day(root, day, 10 * number, GROUPS)
    return root


def options(root: Path, run_dir: Path, *overrides: str) -> list[str]:
    """Overrides of a run that goes day by day; the schedule shows whether steps are counted on."""
    fixed = ["data.label=clicked", "batch_size=64", "model.dim=8", "evaluate.split=null", "progressive=true"]
    schedule = ["optim.dense.schedule.warmup_steps=20", "optim.dense.name=adam", "log_every=5", "optim.ema=0.9"]
    return [*described(root), *fixed, *schedule, f"run_dir={run_dir}", *overrides]


def run(alone: Ranks, root: Path, run_dir: Path, *overrides: str) -> dict[str, Any]:
    return train(load("train", options(root, run_dir, *overrides)), alone)


@pytest.fixture(scope="module")
def whole(root: Path, alone: Ranks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run over all days that nothing has interrupted."""
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    run(alone, root, run_dir, "record_samples=true")
    return run_dir


def days_of(run_dir: Path) -> list[dict[str, Any]]:
    """The days of a run without what differs from time to time, and from run to run."""
    days = json.loads((run_dir / "days.json").read_text())["days"]
    return [{k: v for k, v in day.items() if k not in ("samples_per_s", "run")} for day in days]


def assert_same_weights(one: Path, other: Path) -> None:
    first, second = (saved(max((of / "checkpoints").glob("step-*"))) for of in (one, other))
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def test_days_are_trained_in_order_and_evaluated_before(whole: Path) -> None:
    days, summary = days_of(whole), json.loads((whole / "summary.json").read_text())
    assert [day["name"] for day in days] == DAYS
    assert [(day["first_step"], day["last_step"]) for day in days] == [(0, 13), (13, 26), (26, 39)]
    assert days[0]["before"]["auc"] == pytest.approx(0.5, abs=0.03)  # nothing was learnt yet
    assert all(0.7 < day["before"]["auc"] < 1 for day in days[1:])
    assert [day["new_rows"] for day in days] == [{"item": 50, "history": 50}, *[{"item": 10, "history": 10}] * 2]
    assert [day["unknown"]["item"] for day in days] == pytest.approx([1.0, 0.2, 0.2])
    assert (summary["samples"], summary["steps"]) == (3 * NUM_SAMPLES, 3 * STEPS)
    assert summary["progressive_auc"] == pytest.approx((days[1]["before"]["auc"] + days[2]["before"]["auc"]) / 2)
    assert [(count.num_samples, count.num_once) for count in count_seen(whole)] == [(2400, 2400)]


def test_the_evaluation_is_the_one_of_the_checkpoint_before(
    root: Path, alone: Ranks, whole: Path, tmp_path: Path
) -> None:
    run(alone, root, tmp_path / "run", f"max_steps={STEPS}")
    data = EvaluatedData(partitions=[DAYS[1]])
    found = evaluate_run(EvaluateConfig(str(tmp_path / "run"), data=data, split="train", device="cpu"), alone)
    before = days_of(whole)[1]["before"]
    assert {n: found[n] for n in ("auc", "ne", "num_samples")} == {n: before[n] for n in ("auc", "ne", "num_samples")}


def test_interrupted_in_a_day_and_in_an_evaluation(
    root: Path, alone: Ranks, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at step 9 of the first day, whose checkpoint is of step 6; and while the third is evaluated."""

    def die(*_: Any) -> Any:
        raise KeyboardInterrupt

    run_dir, every = tmp_path / "run", ["record_samples=true", "checkpoint.every=6"]
    show, preview = training.Watch.show, Validation.preview
    monkeypatch.setattr(training.Watch, "show", lambda _, step: die() if step == 9 else None)
    with pytest.raises(KeyboardInterrupt):
        run(alone, root, run_dir, *every)
    monkeypatch.setattr(training.Watch, "show", show)
    monkeypatch.setattr(Validation, "preview", lambda *a: die() if len(days_of(run_dir)) == 2 else preview(*a))
    with pytest.raises(KeyboardInterrupt):
        run(alone, root, run_dir, *every)
    monkeypatch.setattr(Validation, "preview", preview)
    summary = run(alone, root, run_dir, *every)

    assert summary["samples"] == 3 * NUM_SAMPLES
    assert days_of(run_dir) == days_of(whole)
    assert_same_weights(run_dir, whole)
    assert [count.num_once for count in count_seen(run_dir)] == [2400]


def test_a_command_a_day_equals_one_for_all(root: Path, alone: Ranks, whole: Path, tmp_path: Path) -> None:
    run(alone, root, tmp_path / "0", f"data.partitions=[{DAYS[0]}]")
    for number in (1, 2):
        before, keep = tmp_path / str(number - 1), "run_from_schedule=keep"
        chosen = [f"data.partitions=[{DAYS[number]}]"] if number == 1 else []  # all that nobody has trained
        run(alone, root, tmp_path / str(number), f"run_from={before}", keep, *chosen)

    assert_same_weights(tmp_path / "2", whole)
    names = ("name", "before", "loss", "new_rows", "unknown", "samples")
    one, other = ([{n: day[n] for n in names} for day in days_of(of)] for of in (tmp_path / "2", whole))
    assert one == other


def test_epochs_are_those_of_a_day(root: Path, alone: Ranks, tmp_path: Path) -> None:
    run_dir, twice = tmp_path / "run", ["epochs=2", "record_samples=true", f"data.partitions=[{DAYS[1]},{DAYS[0]}]"]
    run(alone, root, run_dir, *twice, "max_steps=33")
    summary = run(alone, root, run_dir, *twice)
    assert (summary["steps"], summary["samples"]) == (4 * STEPS, 4 * NUM_SAMPLES)
    assert [day["name"] for day in days_of(run_dir)] == DAYS[:2]
    assert [(count.epoch, count.num_once) for count in count_seen(run_dir)] == [(0, 1600), (1, 1600)]
    with pytest.raises(ConfigError, match=r"to the end already \(52 steps, all days\); go on with a further day"):
        check(load("train", options(root, run_dir, *twice)))


def test_deduplication_changes_nothing(root: Path, alone: Ranks, whole: Path, tmp_path: Path) -> None:
    run(alone, root, tmp_path / "off", "dedup=off")
    for on, off in zip(days_of(whole), days_of(tmp_path / "off"), strict=True):
        assert on["new_rows"] == off["new_rows"]
        assert on["unknown"] == off["unknown"]
        assert on["loss"] == pytest.approx(off["loss"], rel=1e-4)
        assert on["before"] == pytest.approx(off["before"], rel=1e-3)
    one, other = (saved(max((of / "checkpoints").glob("step-*"))) for of in (whole, tmp_path / "off"))
    assert all(torch.allclose(one[name], other[name], rtol=1e-3, atol=1e-5) for name in one)


def test_mapped_tables_tell_what_they_did_not_know(root: Path, alone: Ranks, tmp_path: Path) -> None:
    """Each day has ten items that are new; also where a run was stopped in its second day."""
    mapped = "data.tables.item={mapped: true, num_embeddings: 100}"
    for name, stops in (("run", []), ("stopped", [5, 19])):
        for stop in stops:
            run(alone, root, tmp_path / name, mapped, f"max_steps={stop}")
        run(alone, root, tmp_path / name, mapped)
        days = days_of(tmp_path / name)
        assert [day["new_rows"]["item"] for day in days] == [50, 10, 10]
        assert [day["unknown"]["item"] for day in days] == pytest.approx([1.0, 0.2, 0.2])
    assert_same_weights(tmp_path / "run", tmp_path / "stopped")


def test_summary_and_runs_show_the_days(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["summary", str(whole)]) == 0
    shown = capsys.readouterr().out
    assert [line.split()[:2] for line in shown.splitlines() if line.startswith("2026-")] == [[d, "800"] for d in DAYS]
    assert "days before training" in shown
    assert main(["runs", str(whole.parent)]) == 0
    heads, _, row = capsys.readouterr().out.splitlines()[1:4]
    assert "days NE before" in " ".join(heads.split())
    assert " 3 " in row


def test_the_board_has_curves_over_days(whole: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(whole / "board")).Reload()
    days = days_of(whole)
    assert [(e.step, e.value) for e in board.Scalars("days/auc")] == [
        (number, pytest.approx(day["before"]["auc"])) for number, day in enumerate(days, 1) if number > 1
    ]
    assert [e.value for e in board.Scalars("days/loss/trained")] == pytest.approx([day["loss"] for day in days])
    text = board.Tensors("days/table/text_summary")[-1].tensor_proto.string_val[0].decode()
    assert text.count("\n") == 4
    assert f"| {DAYS[2]} | 800 |" in text


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["evaluate.patience=3"], r"progressive=true: evaluate\.patience=3 would end training before the last day"),
        (["data.partitions=[2026-11-29]"], r"data\.partitions: .* has no partition '2026-11-29'"),
        (["run_from_optimizer=kept"], r"run_from_optimizer=kept: unknown; did you mean 'keep'"),
        (["run_dir={whole}", "progressive=false"], r"holds a run with progressive=true, now false"),
    ],
)
def test_what_does_not_fit_is_refused(
    root: Path, whole: Path, tmp_path: Path, overrides: list[str], message: str
) -> None:
    given = [override.format(whole=whole) for override in overrides]
    with pytest.raises(ConfigError, match=message):
        check(load("train", options(root, tmp_path / "run", *given)))


def test_a_table_without_days_is_refused(tiny: list[str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no partitions; make it with `recd etl \.\.\. data\.partition=day"):
        check(load("train", [*tiny, f"run_dir={tmp_path}", "progressive=true"]))


def test_a_run_that_stopped_in_a_day_is_no_beginning(root: Path, alone: Ranks, tmp_path: Path) -> None:
    run(alone, root, tmp_path / "run", "max_steps=20")
    with pytest.raises(ConfigError, match=r"is from the middle of 2026-11-25; train .*run to its end, or"):
        check(load("train", options(root, tmp_path / "next", f"run_from={tmp_path / 'run'}")))
    assert math.isfinite(days_of(tmp_path / "run")[1]["loss"])
