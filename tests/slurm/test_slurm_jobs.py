"""The life of a job at a real Slurm, through TorchX: submitted, seen, read, cancelled; its values and its exit code."""

import json
import shlex
import sys
from pathlib import Path

import pytest
from tests.launch.test_verbatim import NASTY, as_env
from tests.slurm.private_slurm import NODES, PrivateSlurm
from tests.slurm.torchx_on_slurm import Torchx

pytestmark = pytest.mark.slurm

SHOW = """
import json, os, sys
with open(os.environ["SLURMD_NODENAME"] + ".json", "w") as file:
    json.dump([sys.argv[1:], dict(os.environ)], file)
"""


@pytest.fixture
def torchx(slurm: PrivateSlurm, tmp_path: Path) -> Torchx:
    return Torchx(slurm, tmp_path)


def script(directory: Path, text: str) -> list[str]:
    """A script that a component runs."""
    (directory / "script.sh").write_text(text)
    return ["--script", "script.sh", "--python", "/bin/bash"]


def test_values_arrive_verbatim_on_two_nodes(torchx: Torchx, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -c {shlex.quote(SHOW)} "$@"\n')
    python.chmod(0o755)
    variables = {f"V{number}": value for number, value in enumerate(NASTY)}
    options = ["-j", "2x3", "--run", "r,u n/$$", "--env", as_env(variables), "--python", str(python)]

    job = torchx.submit("train.py:train", *options, args=NASTY)
    torchx.wait(job, "COMPLETED")

    for number, node in enumerate(NODES):
        arguments, environment = json.loads((tmp_path / f"{node}.json").read_text())
        at = arguments.index("--")
        assert arguments[at + 1 :] == NASTY
        assert arguments[2:at] == [
            *("--nnodes", "2", "--nproc-per-node", "3", "--node", str(number), "--rdzv-id", job),
            *("--rdzv-endpoint", f"{NODES[0]}:{29500 + int(job) % 1000}"),
        ]
        assert {name: environment[name] for name in variables} == variables
        assert environment["RECD_RUN_DIR"] == "r,u n/$$"
    assert "V3" not in (tmp_path / f"slurm-{job}.out").read_text()  # values are not written down once more


def test_a_job_waits_runs_and_ends(torchx: Torchx, tmp_path: Path) -> None:
    wait = script(tmp_path, "echo begun >&2; until [ -e go ]; do sleep 0.1; done; echo out; echo done >&2\n")
    others = torchx.submit("bench.py:bench", *wait)
    both = torchx.submit("train.py:train", "-j", "2x1", "--cpu", "4", *wait[2:])  # no room beside the other
    assert torchx.status(both).startswith("AppStatus: State: PENDING Num Restarts: 0 Roles: *train[0]:PENDING train[1]")
    listed = torchx("list", "-s", "slurm").stdout
    assert f"slurm://torchx/{both} " in listed
    assert f"slurm://torchx/{int(both) + 1} " not in listed  # its second node is no job of its own
    torchx.slurm.run("scancel", both)
    assert "State: CANCELLED" in torchx.status(both)

    torchx.wait(others, "RUNNING")
    assert "State: RUNNING Num Restarts: 0 Roles: *bench[0]:RUNNING Msg" in torchx.status(others)
    (tmp_path / "go").touch()
    torchx.wait(others, "COMPLETED")
    assert "State: SUCCEEDED" in torchx.status(others)
    assert torchx("log", f"slurm://torchx/{others}/bench").stdout.split() == ["bench/0", "begun", "bench/0", "done"]
    assert "out" in torchx("log", "--streams", "stdout", f"slurm://torchx/{others}/bench").stdout


def test_cancel_ends_it_and_nothing_starts_it_again(torchx: Torchx, tmp_path: Path) -> None:
    options = script(tmp_path, "trap 'echo told; exit 143' TERM; echo begun; while true; do sleep 0.1; done\n")
    job = torchx.submit("bench.py:bench", *options, "--max_retries", "3")
    torchx.wait(job, "RUNNING")
    torchx.slurm.wait_until(lambda: "begun" in torchx.output(job), "the job to begin")
    assert torchx("cancel", f"slurm://torchx/{job}").returncode == 0
    torchx.wait(job, "CANCELLED")
    torchx.slurm.wait_until(lambda: "job exited" in torchx.output(job), "the script of the job to end")
    assert "told" in torchx.output(job)
    assert torchx.job(job)["Restarts"] == "0"
    assert "State: CANCELLED" in torchx.status(job)


@pytest.mark.parametrize("code", [1, 2, 143])
def test_the_exit_code_is_that_of_the_host(torchx: Torchx, tmp_path: Path, code: int) -> None:
    job = torchx.submit("bench.py:bench", *script(tmp_path, f"exit {code}\n"))
    assert torchx.wait(job, "FAILED")["ExitCode"] == f"{code}:0"
    assert "State: FAILED" in torchx.status(job)


def test_torchx_waits_and_fails_with_the_job(torchx: Torchx, tmp_path: Path) -> None:
    options = script(tmp_path, "echo because >&2; exit 2\n")
    where = [str(Path(__file__).parents[2] / "launch" / "bench.py:bench"), "--cpu", "1", "--memMB", "1000"]
    done = torchx("run", "-s", "slurm", "--wait", "--log", *where, *options)
    assert done.returncode == 1
    assert "because" in done.stdout + done.stderr


def test_a_job_that_failed_is_run_again_as_often_as_allowed(torchx: Torchx, tmp_path: Path) -> None:
    job = torchx.submit("bench.py:bench", *script(tmp_path, "echo run >> runs; exit 1\n"), "--max_retries", "1")
    torchx.slurm.wait_until(lambda: torchx.job(job)["JobState"] == "FAILED", "the job to fail for good", 120)
    assert (tmp_path / "runs").read_text().split() == ["run", "run"]


def test_accounting_knows_a_job_that_slurm_has_forgotten(
    torchx: Torchx, accounting: PrivateSlurm, tmp_path: Path
) -> None:
    from torchx_plugins.schedulers.recd_slurm import slurm as scheduler

    job = torchx.submit("bench.py:bench", *script(tmp_path, "exit 0\n"))
    torchx.wait(job, "COMPLETED")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", accounting.env["SLURM_CONF"])
        accounting.wait_until(lambda: "COMPLETED" in accounting.run("sacct", "-n", "-j", job), "accounting")
        described = scheduler("torchx")._describe_sacct(job)
    assert (described.state.name, described.app_id) == ("SUCCEEDED", job)
