"""When a run saves and where: by steps or minutes, in the background or not, in a store; and what it costs."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.table.object_store import Objects

from recd_dist.checkpoint import saver
from recd_dist.checkpoint.catalog import list_whole
from recd_dist.errors import ConfigError, UserError
from recd_dist.job.config import load
from recd_dist.job.preflight import check
from recd_dist.ranks.process_group import Ranks, process_group
from recd_dist.table.location import location
from recd_dist.train import training
from recd_dist.train.training import train

pytestmark = [pytest.mark.usefixtures("own_logging"), pytest.mark.filterwarnings("ignore::FutureWarning")]


@pytest.fixture(scope="module")
def alone() -> Iterator[Ranks]:
    with process_group("cpu") as ranks:
        yield ranks


@pytest.fixture
def store(tmp_path: Path) -> Iterator[str]:
    Objects.reset()
    yield f"objects://{tmp_path}/bucket/mine"
    Objects.reset()


def steps_in(directory: Path) -> list[int]:
    return sorted(int(path.name[5:]) for path in directory.glob("step-*"))


def test_the_summary_says_what_saving_cost(tiny: list[str], alone: Ranks, tmp_path: Path) -> None:
    common = [*tiny, "batch_size=64", "max_steps=12", "log_every=2", "checkpoint.every=4", "checkpoint.keep=9"]
    for background in ("true", "false"):
        run_dir = tmp_path / background
        summary = train(load("train", [*common, f"run_dir={run_dir}", f"checkpoint.background={background}"]), alone)
        assert steps_in(run_dir / "checkpoints") == [4, 8, 12]
        assert summary["checkpoints_saved"] == 3
        assert summary["checkpoints_left_out"] == 0
        assert 0 < summary["checkpoint_share"] < 1
        assert summary["checkpoint_wait_s"] > 0
        assert summary["checkpoint_write_s"] > 0


@pytest.mark.parametrize(("minutes", "steps"), [(1e-9, [1, 2, 3]), (60, [3])])
def test_by_minutes(
    tiny: list[str], alone: Ranks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, minutes: float, steps: list[int]
) -> None:
    def agree_each_step(self: training.Stop, step: int, *, now: bool = False, votes: tuple[bool, ...] = ()) -> None:
        self.votes = votes

    monkeypatch.setattr(training.Stop, "agree", agree_each_step)
    own = [*tiny, f"run_dir={tmp_path / 'run'}", "batch_size=64", "max_steps=3", "checkpoint.every=null"]
    train(load("train", [*own, f"checkpoint.every_minutes={minutes}", "checkpoint.keep=9"]), alone)
    assert steps_in(tmp_path / "run/checkpoints") == steps


def test_a_save_that_fails_ends_the_run_and_leaves_the_older_one(
    tiny: list[str], alone: Ranks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = saver.write

    def full_at_8(draft: saver.Draft, group: object) -> object:
        if draft.step == 8:
            raise UserError("the checkpoint of step 8 could not be written (No space left on device)")
        return write(draft, group)

    monkeypatch.setattr(saver, "write", full_at_8)
    own = [*tiny, f"run_dir={tmp_path / 'run'}", "batch_size=64", "checkpoint.every=4", "checkpoint.keep=9"]
    with pytest.raises(UserError, match="step 8 could not be written"):
        train(load("train", own), alone)
    assert steps_in(tmp_path / "run/checkpoints") == [4]
    monkeypatch.undo()
    assert train(load("train", [*own, "max_steps=12"]), alone)["steps_this_attempt"] == 8


def test_a_run_whose_directory_is_lost_goes_on_from_the_store(
    tiny: list[str], alone: Ranks, tmp_path: Path, store: str
) -> None:
    own = [*tiny, f"run_dir={tmp_path / 'run'}", "batch_size=64", f"checkpoint.path={store}", "evaluate.every=4"]
    first = train(load("train", [*own, "max_steps=4"]), alone)
    assert first["checkpoint"] == f"{store}/checkpoints/step-00000004"
    assert first["best"]["checkpoint"] == f"{store}/best/step-00000004"
    assert not list((tmp_path / "run").glob("checkpoints"))
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(ConfigError, match="holds a run with seed=0, now 3"):
        check(load("train", [*own, "seed=3"]))
    second = train(load("train", [*own, "max_steps=8"]), alone)
    assert (second["steps"], second["steps_this_attempt"]) == (8, 4)
    other = [*tiny, f"run_dir={tmp_path / 'other'}", "batch_size=64", "max_steps=2", f"run_from={store}"]
    assert train(load("train", other), alone)["steps_this_attempt"] == 2
    afresh = train(load("train", [*own, "max_steps=2", "resume=false"]), alone)
    assert afresh["steps"] == 2
    assert [path.name for path in list_whole(location(f"{store}/checkpoints"))] == ["step-00000002"]


def test_damaged_ones_are_passed_over(tiny: list[str], alone: Ranks, tmp_path: Path) -> None:
    own = [*tiny, f"run_dir={tmp_path / 'run'}", "batch_size=64", "checkpoint.every=4"]
    train(load("train", [*own, "max_steps=8"]), alone)
    file = tmp_path / "run/checkpoints/step-00000008/checkpoint.json"
    file.write_text(json.dumps({"cut": "off"}))
    assert train(load("train", [*own, "max_steps=9"]), alone)["steps_this_attempt"] == 5


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("checkpoint.every=0", "checkpoint.every=0: must be at least 1"),
        ("checkpoint.every_minutes=0", "checkpoint.every_minutes=0.0: must be above 0"),
        ("checkpoint.keep_best=0", "checkpoint.keep_best=0: must be at least 1"),
        ("checkpoint.grace_s=-1", "checkpoint.grace_s=-1.0: must be above 0"),
        ("checkpoint.path=s9://bucket/mine", "s9://bucket/mine: unknown protocol 's9'"),
        ("checkpoint.path=/proc/mine", "checkpoint.path=/proc/mine: no checkpoint can be written there"),
    ],
)
def test_options_that_cannot_be(tiny: list[str], tmp_path: Path, option: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check(load("train", [*tiny, f"run_dir={tmp_path / 'run'}", option]))
    assert str(caught.value).startswith(message)
