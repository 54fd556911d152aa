"""Training at a real Slurm: a killed rank, a requeue, a preemption, sweeps; every sample is trained exactly once."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.slurm.private_slurm import PrivateSlurm
from tests.slurm.torchx_on_slurm import Torchx, kill_one_rank

pytestmark = pytest.mark.slurm

BATCHES = ["batch_size=64", "device=cpu", "checkpoint.every=20", "record_samples=true"]


@pytest.fixture
def torchx(slurm: PrivateSlurm, tmp_path: Path) -> Torchx:
    return Torchx(slurm, tmp_path)


def submit(torchx: Torchx, run: Path, overrides: Sequence[str], *options: str) -> str:
    return torchx.submit("train.py:train", "-j", "2x1", "--run", str(run), *options, args=[*overrides, *BATCHES])


def steps(run: Path) -> int:
    """The step of the newest checkpoint."""
    return max((int(path.name.rpartition("-")[2]) for path in run.glob("checkpoints/step-*")), default=0)


def newest(run: Path) -> Path:
    return max(run.glob("checkpoints/step-*"))


def require_each_sample_once(run: Path) -> None:
    seen = subprocess.run(
        [sys.executable, "-m", "recd_dist.cli", "seen", run], capture_output=True, text=True, check=False
    )
    assert seen.returncode == 0, seen.stdout + seen.stderr
    assert " 0 never, 0 more than once" in seen.stdout


def test_a_job_whose_rank_is_killed_finishes(torchx: Torchx, tiny: list[str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    job = submit(torchx, run, [*tiny, "epochs=4"], "--max_restarts", "3")
    torchx.wait(job, "RUNNING")
    torchx.slurm.wait_until(lambda: steps(run), "a checkpoint", 120)
    kill_one_rank(run)
    torchx.wait(job, "COMPLETED", seconds=180)
    assert "all ranks start again" in torchx.output(job)
    assert "Trained" in torchx.output(job)
    assert json.loads((run / "summary.json").read_text())["world_size"] == 2
    assert torchx.job(job)["Restarts"] == "0"  # the ranks began again, not the job
    require_each_sample_once(run)


@pytest.mark.parametrize("by", ["requeue", "preemption"])
def test_a_job_that_must_go_comes_back_and_goes_on(torchx: Torchx, tiny: list[str], tmp_path: Path, by: str) -> None:
    """SIGTERM: a checkpoint within the grace time, the nodes are free, the same job begins again and resumes."""
    run = tmp_path / "run"
    job = submit(torchx, run, [*tiny, "epochs=12"])
    torchx.wait(job, "RUNNING")
    torchx.slurm.wait_until(lambda: steps(run), "a checkpoint", 120)
    asked_s = time.time()
    if by == "requeue":
        torchx.slurm.run("scontrol", "requeue", job)
    else:
        urgent = ["sbatch", "--parsable", "--partition=urgent", "--nodes=2", "--cpus-per-task=4", "--wrap=hostname"]
        other = torchx.slurm.run(*urgent, cwd=tmp_path)
        torchx.wait(other, "COMPLETED", seconds=60)
    torchx.slurm.wait_until(lambda: torchx.job(job)["Restarts"] == "1", "the job to be queued again", 60)
    torchx.slurm.wait_until(
        lambda: newest(run).stat().st_mtime > asked_s, "a checkpoint because it was asked to go", 30
    )
    stopped_at = steps(run)
    torchx.wait(job, "COMPLETED", seconds=240)
    assert steps(run) > stopped_at
    assert "stopped by SIGTERM" in torchx.output(job)
    require_each_sample_once(run)


def test_a_sweep_of_four_is_four_jobs(torchx: Torchx, tiny: list[str], tmp_path: Path) -> None:
    rates = ["0.1", "0.05", "0.02", "0.01"]
    jobs = {}
    for rate in rates:
        options = ["-j", "1x1", "--cpu", "2", "--run", f"runs/{rate}"]
        jobs[rate] = torchx.submit("train.py:train", *options, args=[*tiny, "max_steps=4", f"optim.dense.lr={rate}"])
    for rate, job in jobs.items():
        torchx.wait(job, "COMPLETED", seconds=240)
        assert (tmp_path / "runs" / rate / "summary.json").exists()


def test_an_array_takes_a_line_each(torchx: Torchx, slurm: PrivateSlurm, tiny: list[str], tmp_path: Path) -> None:
    """launch/array.sbatch: one job of many runs, two at a time."""
    lines = [f"{' '.join(tiny)} max_steps=4 'model.over={[size]}' run_dir=runs/{size}" for size in (8, 16)]
    (tmp_path / "sweep.txt").write_text("\n".join(lines) + "\n")
    script = Path(__file__).parents[2] / "launch" / "array.sbatch"
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    options = ["--parsable", "--array=1-2%2", "--cpus-per-task=2", "--mem=2000", f"--export=ALL,PATH={path}"]
    job = slurm.run("sbatch", *options, str(script), "sweep.txt", cwd=tmp_path)

    def ended() -> bool:
        states = slurm.run("squeue", "--noheader", "--states=all", f"--jobs={job}", "--array", "--format=%T").split()
        assert "FAILED" not in states, [path.read_text() for path in tmp_path.glob("slurm-*.out")]
        return states == ["COMPLETED"] * 2

    slurm.wait_until(ended, "both tasks of the array", 240)
    assert all((tmp_path / "runs" / size / "summary.json").exists() for size in ("8", "16"))
