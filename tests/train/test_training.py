"""Training through the launcher: resumed after kill -9, SIGTERM and with fewer ranks, each sample seen exactly once."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from recd_dist.cli import main
from recd_dist.errors import ConfigError, UserError
from recd_dist.job.config import load
from recd_dist.ranks.process_group import Ranks, process_group
from recd_dist.ranks.stop import Stopped
from recd_dist.train import run as finishing
from recd_dist.train import training, validation

pytestmark = [pytest.mark.usefixtures("own_logging"), pytest.mark.filterwarnings("ignore::FutureWarning")]

SUMMARY = {
    "samples", "steps", "samples_per_s", "auc", "ne", "loss", "dedup_factor", "sent_bytes", "expanded_bytes",
    "checkpoint", "world_size",
}  # fmt: skip
TIMEOUT_S = 90


def command(overrides: list[str], num_ranks: int) -> list[str]:
    return [sys.executable, "-m", "recd_dist.cli", "train", *overrides, "--nproc", str(num_ranks)]


def run(overrides: list[str], num_ranks: int) -> subprocess.CompletedProcess[str]:
    started = command(overrides, num_ranks)
    return subprocess.run(started, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)


def interrupted(
    overrides: list[str], num_ranks: int, when: Callable[[], bool], interrupt: Callable[[int], None]
) -> tuple[int, str]:
    """Exit code and stderr of a run that is interrupted by ``interrupt(pid)`` when ``when()`` first holds."""
    started = subprocess.Popen(command(overrides, num_ranks), stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + TIMEOUT_S
        while not when():
            assert started.poll() is None, started.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        interrupt(started.pid)
        return started.wait(TIMEOUT_S), started.stderr.read()
    finally:
        started.kill()
        started.communicate()


def kill_rank(launcher: int, rank: int = 1) -> None:
    """SIGKILL for one rank of a launcher."""
    for server in children(launcher):
        for pid in children(server):
            if Path(f"/proc/{pid}/comm").read_text() == f"recd-rank-{rank}\n":
                os.kill(pid, signal.SIGKILL)
                return
    raise AssertionError(f"no rank {rank} of {launcher}")


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def newest(run_dir: Path) -> int:
    """Step of the newest whole checkpoint, 0 if there is none."""
    return max((int(path.parent.name[5:]) for path in run_dir.glob("checkpoints/step-*/checkpoint.json")), default=0)


@pytest.fixture(scope="module")
def trained(tiny: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on two ranks."""
    run_dir = tmp_path_factory.mktemp("trained") / "run"
    ended = run([*tiny, f"run_dir={run_dir}", "batch_size=64", "plan=row_wise", "record_samples=true"], 2)
    assert ended.returncode == 0, ended.stderr
    return run_dir


def test_the_summary_has_what_a_run_came_to(trained: Path) -> None:
    summary = json.loads((trained / "summary.json").read_text())

    assert summary.keys() >= SUMMARY
    assert summary["world_size"] == 2
    assert summary["steps"] == newest(trained)
    assert Path(summary["checkpoint"]) == trained / f"checkpoints/step-{summary['steps']:08d}"
    assert set(summary["dedup_factor"]) == {"history", "profile"}
    assert all(factor > 2 for factor in summary["dedup_factor"].values())
    assert summary["samples_per_s"] > 0
    assert 0.5 < summary["auc"] < summary["oracle_auc"] < 1


def test_bytes_sent_are_those_of_the_formula(trained: Path) -> None:
    summary = json.loads((trained / "summary.json").read_text())

    assert summary["sent_bytes"] == pytest.approx(summary["unique_bytes_by_formula"], rel=0.05)
    assert 0 < summary["sent_bytes"] < 0.7 * summary["expanded_bytes"]


def test_a_run_directory_holds_the_run(trained: Path) -> None:
    names = {path.name for path in trained.iterdir()}

    assert names >= {"config.yaml", "summary.json", "checkpoints", "board"}
    assert not [path for path in trained.rglob("*") if "partial" in path.name]


def test_each_sample_was_trained_once(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["seen", f"run_dir={trained}"]) == 0
    assert " 0 never, 0 more than once" in capsys.readouterr().out


def test_a_complete_run_is_refused(trained: Path, tiny: list[str]) -> None:
    overrides = [*tiny, f"run_dir={trained}", "batch_size=64", "plan=row_wise", "record_samples=true"]
    before = sorted(path for path in trained.rglob("*"))
    ended = run(overrides, 2)

    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (2, "", 1)
    assert "trained to the end already" in ended.stderr
    assert sorted(path for path in trained.rglob("*")) == before


def test_a_checkpoint_of_another_schema_is_refused_once(trained: Path, tiny: list[str], tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "run")
    config = (tmp_path / "run/config.yaml").read_text()
    ended = run([*tiny, f"run_dir={tmp_path / 'run'}", "batch_size=64", "epochs=2", "data.drop=[position]"], 2)

    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.count("recd: error:") == ended.stderr.count("\n") == 1
    assert "a checkpoint of another schema: feature 'position' is only in the checkpoint" in ended.stderr
    assert (tmp_path / "run/config.yaml").read_text() == config  # that of the checkpoints that are there


def test_killed_stopped_and_resumed_with_fewer_ranks(tiny: list[str], tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    cadence = ["batch_size=8", "epochs=2", "checkpoint.every=20", "log_every=5", "record_samples=true"]
    overrides = [*tiny, f"run_dir={run_dir}", *cadence]

    code, said = interrupted(overrides, 2, lambda: newest(run_dir) >= 40, kill_rank)
    assert code == 1
    assert said.count("rank 1 was killed by SIGKILL (out of memory?); the same command goes on") == 1
    assert "Traceback" not in said
    killed_at = newest(run_dir)
    assert killed_at >= 40

    rare = [*overrides, "checkpoint.every=100000", "log_every=100000"]
    before = sum(path.stat().st_size for path in run_dir.glob("seen/*/*"))

    def runs() -> bool:
        return sum(path.stat().st_size for path in run_dir.glob("seen/*/*")) > before

    code, said = interrupted(rare, 2, runs, lambda launcher: os.kill(launcher, signal.SIGTERM))
    assert code == 128 + signal.SIGTERM
    assert "resuming from" in said
    assert not (run_dir / "summary.json").exists()
    stopped_at = newest(run_dir)
    assert stopped_at > killed_at
    path = run_dir / f"checkpoints/step-{stopped_at:08d}"
    assert said.endswith(f"recd: stopped by SIGTERM after step {stopped_at}; the same command goes on from {path}\n")
    assert said.count("SIGTERM") == 1

    ended = run(overrides, 1)
    assert ended.returncode == 0, ended.stderr
    assert f"resuming from {run_dir}/checkpoints/step-{stopped_at:08d}" in ended.stderr
    assert main(["seen", f"run_dir={run_dir}"]) == 0
    summary = json.loads((run_dir / "summary.json").read_text())
    assert summary["world_size"] == 1
    assert summary["steps_this_attempt"] == summary["steps"] - stopped_at


def test_an_id_beyond_its_table_is_one_error_of_all_ranks(tiny: list[str], tmp_path: Path) -> None:
    """The manifest knows the ids, unless it is wrong: then the reader finds them."""
    table = next(o for o in tiny if o.startswith("data.table=")).partition("=")[2]
    shutil.copytree(table, tmp_path / "table")
    path = tmp_path / "table/train/manifest.json"
    manifest = json.loads(path.read_text())
    manifest["ids"]["item"]["max_id"] = 10
    path.write_text(json.dumps(manifest))
    overrides = [*tiny, f"data.table={tmp_path / 'table'}", f"run_dir={tmp_path / 'run'}", "batch_size=64"]
    ended = run(overrides, 2)

    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.count("recd: error:") == 1
    assert re.search(
        r"part-00000\.parquet, row group \d+, row \d+: feature '\w+' holds id \d+, table 'item' has rows 0\.\.10; "
        r"train with data\.tables\.item\.num_embeddings=\d+ or more or data\.tables\.item\.hashed=true, or leave it",
        ended.stderr,
    )
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "run/checkpoints").exists()

    assert run([*overrides, "reader.on_bad_id=drop", "max_steps=3"], 2).returncode == 0


@pytest.fixture
def alone() -> Iterator[Ranks]:
    with process_group("cpu") as ranks:
        yield ranks


def test_a_loss_of_nan_is_never_saved(alone: Ranks, tiny: list[str], tmp_path: Path) -> None:
    """A checkpoint that falls between two points of the log looks at the loss first."""
    cadence = ["batch_size=128", "log_every=1000", "checkpoint.every=5"]
    config = load("train", [*tiny, f"run_dir={tmp_path / 'run'}", *cadence, "optim.dense.lr=1e38"])

    with pytest.raises(UserError, match=r"the loss is \w+ at step 5; lower optim\.dense\.lr"):
        training.train(config, alone)
    assert newest(tmp_path / "run") == 0


class _Signalled(training.Stop):
    """A SIGTERM that came before the first step."""

    def __enter__(self) -> "_Signalled":
        super().__enter__()
        os.kill(os.getpid(), signal.SIGTERM)
        return self


@pytest.mark.parametrize("max_steps", [1, 2])
def test_a_stop_at_any_step_leaves_the_rest_to_the_next_run(
    alone: Ranks, tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, max_steps: int
) -> None:
    """The evaluation too, after the last step; neither log_every nor checkpoint.every is near."""
    run_dir = tmp_path / "run"
    config = load("train", [*tiny, f"run_dir={run_dir}", f"max_steps={max_steps}", "log_every=900", "batch_size=64"])
    before = signal.getsignal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(training, "Stop", _Signalled)
        with pytest.raises(Stopped) as stopped:
            training.train(config, alone)
    path = run_dir / "checkpoints/step-00000001"
    assert stopped.value.code == 128 + signal.SIGTERM
    assert stopped.value.message == f"stopped by SIGTERM after step 1; the same command goes on from {path}"
    assert newest(run_dir) == 1
    assert not (run_dir / "summary.json").exists()
    assert signal.getsignal(signal.SIGTERM) is before

    summary = training.train(config, alone)
    assert (summary["steps"], summary["steps_this_attempt"]) == (max_steps, max_steps - 1)
    assert "auc" in json.loads((run_dir / "summary.json").read_text())
    with pytest.raises(ConfigError, match="trained to the end already"):
        training.train(config, alone)


@pytest.mark.parametrize("failing", ["quality_of", "write_whole"], ids=["evaluation", "summary"])
def test_what_fails_after_the_last_step_is_done_by_the_next_run(
    alone: Ranks, tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    """Evaluation, or summary: an older summary does not count as this one."""
    run_dir = tmp_path / "run"
    overrides = [*tiny, f"run_dir={run_dir}", "batch_size=64"]
    training.train(load("train", [*overrides, "max_steps=1"]), alone)
    config = load("train", [*overrides, "max_steps=2"])
    with monkeypatch.context() as patch:
        room = validation if failing == "quality_of" else finishing
        patch.setattr(room, failing, fail_after(getattr(room, failing), "summary.json"))
        with pytest.raises(OSError, match="No space left"):
            training.train(config, alone)
    assert json.loads((run_dir / "summary.json").read_text())["steps"] == 1
    assert main(["summary", f"run_dir={run_dir}"]) == 0

    training.train(config, alone)
    summary = json.loads((run_dir / "summary.json").read_text())
    assert (summary["steps"], summary["steps_this_attempt"]) == (2, 0)
    assert summary["auc"] > 0
    assert main(["summary", f"run_dir={run_dir}"]) == 0


def fail_after(function: Callable[..., object], name: str) -> Callable[..., object]:
    """The function, but that a disk is full where it has to do with a file of that name, or with none at all."""

    def call(*arguments: object, **options: object) -> object:
        if isinstance(arguments[0], Path) and arguments[0].name != name:
            return function(*arguments, **options)
        raise OSError(28, "No space left on device")

    return call
