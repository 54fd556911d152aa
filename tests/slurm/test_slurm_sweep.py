"""``recd sweep --scheduler slurm`` on a real Slurm: a job for each run, asked for, cancelled, and gone on with."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.slurm.private_slurm import PrivateSlurm

pytestmark = pytest.mark.slurm

FOUR = ["optim.dense.lr=0.1,0.05", "seed=1,2", "batch_size=64", "device=cpu", "run_dir=runs/lr"]
BROKEN = "lr=0.1_seed=2"


class Sweep:
    """The command in a directory that all nodes see."""

    def __init__(self, slurm: PrivateSlurm, directory: Path, overrides: list[str]) -> None:
        self.slurm, self.directory = slurm, directory
        self._overrides = overrides

    def __call__(self, *flags: str, cpu: int = 1, **variables: str) -> subprocess.CompletedProcess[str]:
        """The sweep, as it is typed again and again."""
        words = ["--scheduler", "slurm", "--component", f"-j 1x1 --cpu {cpu} --memMB 2000", *flags]
        return subprocess.run(
            [sys.executable, "-m", "recd_dist.cli", "sweep", *self._overrides, *words],
            cwd=self.directory,
            env={**self.slurm.env, **variables},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    def jobs(self) -> dict[str, str]:
        """The handles of the runs' jobs, by the names of the runs."""
        files = sorted(self.directory.glob("runs/lr/*/submitted.json"))
        return {file.parent.name: json.loads(file.read_text())["handle"] for file in files}


def test_four_jobs_of_which_one_fails(slurm: PrivateSlurm, tiny: list[str], tmp_path: Path) -> None:
    sweep = Sweep(slurm, tmp_path, [*tiny, *FOUR, "max_steps=10"])
    (tmp_path / "runs/lr" / BROKEN).mkdir(parents=True)
    (tmp_path / "runs/lr" / BROKEN / "checkpoints").touch()  # so that its checkpoint cannot be written
    done = sweep("--wait", "--json", "out.json")
    assert done.returncode == 1, done.stderr
    first = sweep.jobs()
    assert len(set(first.values())) == 4
    assert f"lr=0.1 seed=1: submitted as {first['lr=0.1_seed=1']}" in done.stderr
    assert "lr=0.05 seed=2: ended, auc" in done.stderr
    assert "failed: lr=0.1 seed=2: runs/lr/lr=0.1_seed=2/checkpoints: the checkpoint of step 10" in done.stderr
    assert sorted(line.split()[:2] for line in done.stdout.splitlines() if line.startswith("0.")) == [
        ["0.05", "2/2"],
        ["0.1", "1/2"],
    ]
    found = {Path(run["run_dir"]).name: run["state"] for run in json.loads((tmp_path / "out.json").read_text())}
    assert found == dict.fromkeys(first, "ended") | {BROKEN: "failed"}

    (tmp_path / "runs/lr" / BROKEN / "checkpoints").unlink()
    done = sweep("--wait")
    assert done.returncode == 0, done.stderr
    assert "3 of them done or running already" in done.stderr
    again = sweep.jobs()
    assert {name for name in first if first[name] != again[name]} == {BROKEN}
    assert done.stdout.count("2/2") == 2


def test_jobs_are_asked_for_and_cancelled(slurm: PrivateSlurm, tiny: list[str], tmp_path: Path) -> None:
    sweep = Sweep(slurm, tmp_path, [*tiny, *FOUR, "epochs=1000", "checkpoint.every=20"])
    done = sweep(cpu=4)  # two of them fill both nodes
    assert done.returncode == 0, done.stderr
    jobs, running = sweep.jobs(), tmp_path / "runs/lr/lr=0.1_seed=1"
    slurm.wait_until(lambda: list(running.glob("checkpoints/step-*")), "a checkpoint", 120)
    done = sweep(cpu=4)
    assert done.returncode == 0, done.stderr
    assert f"lr=0.1 seed=1: runs already, as {jobs['lr=0.1_seed=1']}" in done.stderr
    assert f"lr=0.05 seed=2: waits already, as {jobs['lr=0.05_seed=2']}" in done.stderr
    assert "waiting" in done.stdout
    assert sweep.jobs() == jobs

    dead = tmp_path / "dead.conf"
    conf = Path(slurm.env["SLURM_CONF"]).read_text()
    dead.write_text(
        conf.replace("SlurmctldPort=", "SlurmctldPort=1 #").replace(
            "AccountingStoragePort=", "AccountingStoragePort=1 #"
        )
    )
    done = sweep(cpu=4, SLURM_CONF=str(dead))
    assert done.returncode == 2
    assert "its scheduler does not answer" in done.stderr
    assert sweep.jobs() == jobs

    done = sweep("--cancel")
    assert done.returncode == 0, done.stderr
    assert "4 jobs cancelled" in done.stderr
    slurm.wait_until(lambda: not slurm.run("squeue", "--noheader"), "the jobs to end", 60)
    assert "no job left to cancel" in sweep("--cancel").stderr
    slurm.wait_until(lambda: (running / "state.json").read_text().count('"stopped"'), "the run to say so", 20)
