"""TorchX's Slurm scheduler without and with our plugin, on what Slurm 22.05 answers; no Slurm is needed.

A test named ``upstream`` fails when TorchX has mended what it shows: then take the part of the plugin out.
"""

import json
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from launch.train import train
from torchx.schedulers import get_scheduler_factories, slurm_scheduler
from torchx.schedulers.slurm_scheduler import SlurmScheduler
from torchx.specs import AppState

from torchx_plugins.schedulers import recd_slurm
from torchx_plugins.schedulers.recd_slurm import RequeuedSlurmScheduler


def job(number: int, leader: int, name: str, state: str) -> dict[str, Any]:
    """A job as squeue of Slurm 22.05 has it, without the fields that nobody reads."""
    runs = state == "RUNNING"
    found = {
        **{"job_id": number, "het_job_id": leader, "name": name, "job_state": state, "restart_cnt": 1},
        **{"command": "/c", "current_working_directory": "/w", "nodes": f"node{number}" if runs else ""},
    }
    if runs:
        node = {"nodename": f"node{number}", "cpus_used": 1, "memory_allocated": 500}
        found["job_resources"] = {"nodes": f"node{number}", "allocated_nodes": [node]}
    return found


PENDING = [job(7, 7, "train-0", "PENDING"), job(8, 7, "train-1", "PENDING")]
RUNNING = [job(1, 1, "train-0", "RUNNING"), job(2, 1, "train-1", "RUNNING"), job(5, 0, "etl-0", "RUNNING")]


@pytest.fixture(autouse=True)
def answer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[list[dict[str, Any]]], None]]:
    """Sets the jobs that squeue shows, whatever is asked of it."""
    shown: list[dict[str, Any]] = []

    def listing() -> str:
        return json.dumps({"jobs": shown})

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[Any]:
        assert "--json" in command
        if command[0] == "sacct":
            raise subprocess.CalledProcessError(1, command)
        text = listing()
        return subprocess.CompletedProcess(command, 0, text if options.get("text") else text.encode())

    def set_jobs(jobs: list[dict[str, Any]]) -> None:
        shown[:] = jobs

    monkeypatch.setattr(slurm_scheduler.subprocess, "check_output", lambda *_, **__: listing())
    monkeypatch.setattr(slurm_scheduler.subprocess, "run", run)
    for module in (slurm_scheduler, recd_slurm):
        monkeypatch.setattr(module, "version", lambda: (22, 5))
    return set_jobs


@pytest.fixture
def upstream() -> SlurmScheduler:
    return SlurmScheduler("s")


@pytest.fixture
def ours() -> RequeuedSlurmScheduler:
    return recd_slurm.slurm("s")


def test_torchx_finds_it() -> None:
    assert isinstance(get_scheduler_factories()["slurm"]("s"), RequeuedSlurmScheduler)


def test_upstream_status_of_a_job_that_waits_fails(upstream: SlurmScheduler, answer: Callable[..., None]) -> None:
    answer(PENDING)
    with pytest.raises(KeyError, match="job_resources"):
        upstream.describe("7")


def test_upstream_status_shows_the_jobs_of_others(upstream: SlurmScheduler, answer: Callable[..., None]) -> None:
    answer(RUNNING)
    described = upstream.describe("5")
    assert [role.name for role in described.roles] == ["train", "etl"]


def test_upstream_list_fails(upstream: SlurmScheduler, answer: Callable[..., None]) -> None:
    answer(RUNNING)
    with pytest.raises(TypeError, match="not subscriptable"):
        upstream.list()


def test_status_of_a_job_that_waits(ours: RequeuedSlurmScheduler, answer: Callable[..., None]) -> None:
    answer([*RUNNING, *PENDING])
    described = ours.describe("7")
    assert (described.state, described.num_restarts) == (AppState.PENDING, 1)
    assert [(role.name, role.num_replicas) for role in described.roles] == [("train", 2)]


def test_status_of_one_job_alone(ours: RequeuedSlurmScheduler, answer: Callable[..., None]) -> None:
    answer(RUNNING)
    (status,) = ours.describe("1").roles_statuses
    assert [(replica.id, replica.hostname, replica.state) for replica in status.replicas] == [
        (0, "node1", AppState.RUNNING),
        (1, "node2", AppState.RUNNING),
    ]
    assert [role.name for role in ours.describe("5").roles] == ["etl"]


def test_list_shows_jobs_and_not_their_hosts(ours: RequeuedSlurmScheduler, answer: Callable[..., None]) -> None:
    answer([*RUNNING, *PENDING])
    assert [(app.app_id, app.name) for app in ours.list()] == [("1", "train-0"), ("5", "etl-0"), ("7", "train-0")]


def test_newer_slurm_is_read_by_torchx(
    ours: RequeuedSlurmScheduler, answer: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recd_slurm, "version", lambda: (23, 2))
    answer(PENDING)
    with pytest.raises(KeyError, match="job_resources"):
        ours.describe("7")


def script(scheduler: SlurmScheduler, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(scheduler, "_partition_memmb", lambda _: None)
    return scheduler.submit_dryrun(train("data=tiny", j="2x1"), {}).request.materialize()


def test_upstream_script_writes_down_all_values_and_ends_by_sigterm(
    upstream: SlurmScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = script(upstream, monkeypatch)
    assert recd_slurm._ECHO in text
    assert recd_slurm._RETRY in text
    assert "trap" not in text


@pytest.mark.parametrize(
    ("job", "restarts", "again"),
    [
        ("JobState=RUNNING PreemptTime=None", 0, False),
        ("JobState=RUNNING PreemptTime=2026-11-29T01:26:28", 5, True),
        ("JobState=RUNNING PreemptTime=None", 5, False),
        ("JobState=COMPLETING PreemptTime=2026-11-29T01:26:28", 0, False),
    ],
)
def test_a_preempted_job_runs_again(
    ours: RequeuedSlurmScheduler, monkeypatch: pytest.MonkeyPatch, tmp_path: Any, job: str, restarts: int, again: bool
) -> None:
    text = script(ours, monkeypatch)
    monkeypatch.undo()
    for name, body in {"srun": "exit 143", "scontrol": f'echo "$@" >> asked; echo "JobId=1 {job} x=1"'}.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "1", "SLURM_RESTART_COUNT": str(restarts)}
    done = subprocess.run(["bash", "-c", text], cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 143, done.stderr
    assert ("requeue 1" in (tmp_path / "asked").read_text()) == again
    assert "data=tiny" not in done.stdout + done.stderr


def test_the_dry_run_shows_the_script(ours: RequeuedSlurmScheduler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ours, "_partition_memmb", lambda _: None)
    shown = str(ours.submit_dryrun(train("data=tiny"), {}))
    assert "#SBATCH --job-name=train-0" in shown
    assert "\nexec " in shown


@pytest.mark.parametrize("answers", [False, True])
def test_upstream_says_that_a_job_is_gone_while_slurm_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, answers: bool
) -> None:
    def fail(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        if answers and command[0] == "scontrol":
            return subprocess.CompletedProcess(command, 0, "is UP")
        raise subprocess.CalledProcessError(1, command, stderr="Unable to contact slurm controller")

    for name in ("run", "check_output"):
        monkeypatch.setattr(slurm_scheduler.subprocess, name, fail)
    assert SlurmScheduler("t").describe("7") is None
    if answers:
        assert RequeuedSlurmScheduler("t").describe("7") is None
    else:
        with pytest.raises(subprocess.CalledProcessError):
            RequeuedSlurmScheduler("t").describe("7")
