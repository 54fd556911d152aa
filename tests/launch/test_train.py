"""The training component as a pure function, and its scheduler requests as dry runs."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from launch.predict import predict
from launch.train import train
from torchx.runner import get_runner
from torchx.schedulers import get_scheduler_factories
from torchx.specs import AppDef, macros
from torchx.specs.finder import ComponentValidationException


def script(app: AppDef) -> str:
    """The bash line of host 0 as a scheduler would run it."""
    values = macros.Values(img_root="/", app_id="job-7", replica_id="0", rank0_env="RANK0_HOST")
    return values.apply(app.roles[0]).args[1]


def command(app: AppDef, tmp_path: Path, env: dict[str, str] | None = None) -> list[str]:
    """The argument list that bash hands to the interpreter."""
    probe = tmp_path / "probe"
    show = "import json, sys; print(json.dumps(sys.argv[1:]))"
    probe.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -c {shlex.quote(show)} "$@"\n')
    probe.chmod(0o755)
    line = script(app).replace("THE_PYTHON", shlex.quote(str(probe)))
    shown = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True, env=env or {})
    return json.loads(shown.stdout)


def test_one_host_has_no_rendezvous_address(tmp_path: Path) -> None:
    assert command(train("data=tiny", python="THE_PYTHON"), tmp_path) == [
        *("-m", "recd_dist.ranks.launcher", "--nnodes", "1", "--nproc-per-node", "2", "--", "data=tiny")
    ]


def test_hosts_meet_at_the_first_one(tmp_path: Path) -> None:
    app = train("lr=1", j="2:4x8", rdzv_port=1234, max_restarts=3, python="THE_PYTHON")
    expected = (
        "-m recd_dist.ranks.launcher --nnodes 2:4 --nproc-per-node 8 --max-restarts 3 --node 0 --rdzv-id job-7 "
        "--rdzv-endpoint {}:1234 -- lr=1"
    )
    assert command(app, tmp_path, {"RANK0_HOST": "host9"}) == expected.format("host9").split()
    assert command(app, tmp_path) == expected.format("localhost").split()
    assert (app.roles[0].num_replicas, app.roles[0].min_replicas) == (4, 2)


def test_own_interpreter_is_used_where_the_host_has_it_else_python3() -> None:
    *_, choice, line = script(train("a=1")).splitlines()
    assert choice == f'python={shlex.quote(sys.executable)}; [ -x "$python" ] || python=python3'
    assert line.startswith('exec "$python" -m ')


def test_run_directory_and_environment_reach_the_script() -> None:
    """In the script alone: Slurm would end a value at its first comma, Kubernetes would expand it."""
    app = train(run="runs/a", env="A=1", gpu=8, cpu=4, memMB=10, image="me:1")
    role = app.roles[0]
    own = ["export PYTHONUNBUFFERED=1", "export PYTHONSAFEPATH=1"]
    assert script(app).splitlines()[:4] == [*own, "export RECD_RUN_DIR=runs/a", "export A=1"]
    assert role.env == {}
    assert (role.resource.gpu, role.resource.cpu, role.resource.memMB, role.image) == (8, 4, 10, "me:1")
    assert "RECD_RUN_DIR" not in script(train())


def test_jobs_of_slurm_meet_at_ports_of_their_own(tmp_path: Path) -> None:
    app = train("lr=1", j="2x1", python="THE_PYTHON")
    assert "localhost:29500" in command(app, tmp_path)
    there = script(app).replace("job-7", "41007")
    assert "let meeting_port+=41007%1000" in there
    replaced = there.replace("THE_PYTHON", "echo")
    shown = subprocess.run(
        ["bash", "-c", replaced], capture_output=True, text=True, check=True, env={"SLURM_JOB_ID": "1"}
    )
    assert "localhost:29507" in shown.stdout


@pytest.mark.parametrize("j", ["2", "0x1", "1x0", "x2", "2x", "1x2x3", "a"])
def test_malformed_j_names_the_right_form(j: str) -> None:
    with pytest.raises(ComponentValidationException, match=rf"-j {j}: give the number of hosts x ranks on each"):
        train(j=j)


@pytest.mark.parametrize(
    ("scheduler", "config"),
    [
        ("local_cwd", {}),
        ("slurm", {}),
        ("kubernetes", {"queue": "default", "validate_spec": False}),
        ("local_docker", {}),
    ],
)
def test_every_scheduler_takes_two_hosts(scheduler: str, config: dict[str, object]) -> None:
    if scheduler not in get_scheduler_factories():
        pytest.skip(f"{scheduler} is not installed")
    if scheduler == "kubernetes":
        pytest.importorskip("kubernetes")
    with get_runner("test") as runner:
        # The printed request folds long lines wherever the job's random name moves them.
        request = " ".join(str(runner.dryrun(train("data=tiny", j="2x1", readers=1), scheduler, config)).split())
    assert request.count("--node 0") == request.count("--node 1") == request.count("--announce") == 1
    assert "data=tiny" in request


def test_prediction_runs_its_own_module_on_the_same_hosts(tmp_path: Path) -> None:
    """The ranks check the job themselves: the check before training knows no scores."""
    line = command(predict("run_dir=runs/big", "out=a b", j="4x8", gpu=8, python="THE_PYTHON"), tmp_path)
    trained = command(train("run_dir=runs/big", "out=a b", j="4x8", gpu=8, python="THE_PYTHON"), tmp_path)
    more = ["--checked", "--module", "recd_dist.train.prediction"]
    assert [word for word in line if word not in more] == trained
    assert [word for word in line if word in more] == more
    assert line.index("--module") < line.index("--")


def test_the_board_of_a_job_ends_with_it(tmp_path: Path) -> None:
    app = train("data=tiny", run="runs/a b", board_port=6007, python="THE_PYTHON")
    assert [role.name for role in app.roles] == ["train", "board"]
    ended = "runs/a b/logs/ended-job-7"
    assert command(app, tmp_path)[:8] == [
        *("-m", "recd_dist.ranks.launcher", "--nnodes", "1", "--nproc-per-node", "2", "--ended", ended)
    ]
    app.roles.reverse()
    assert command(app, tmp_path) == [*("-m", "recd_dist.cli", "board", "--port", "6007", "--until", ended, "runs/a b")]


def test_a_board_needs_the_name_of_its_run() -> None:
    with pytest.raises(ComponentValidationException, match="--board_port 6007: name the run directory too: --run"):
        train(board_port=6007)


def test_readers_of_a_job_are_found_by_its_ranks_and_end_with_it(tmp_path: Path) -> None:
    overrides = ("data=tiny", "data.table=t/a b", "batch_size=64", "reader.num_workers=3")
    app = train(*overrides, run="runs/a b", readers=4, gpu=2, cpu=8, python="THE_PYTHON")
    assert [(role.name, role.num_replicas, role.resource.gpu, role.resource.cpu) for role in app.roles] == [
        ("train", 1, 2, 8),
        ("readers", 4, 0, 8),
    ]
    ended, found = "runs/a b/logs/ended-job-7", "runs/a b/logs/readers-job-7"
    assert command(app, tmp_path)[-9:] == [
        *("--ended", ended, "--", f"reader.servers_dir={found}", "reader.num_workers=4", *overrides)
    ]
    app.roles = app.roles[1:]
    server = ["-m", "recd_dist.cli", "reader", "--announce", found, "--until", ended, "--listen"]
    for job, address in (("slurm://x/job-7", "0.0.0.0:0"), ("local_cwd://x/job-7", "127.0.0.1:0")):
        assert command(app, tmp_path, {"TORCHX_JOB_ID": job}) == [*server, address, "data=tiny", "data.table=t/a b"]


def test_readers_need_no_name_of_a_run_but_of_the_data(tmp_path: Path) -> None:
    assert "reader.servers_dir=runs/.jobs/readers-job-7" in command(
        train("data=tiny", readers=1, python="THE_PYTHON"), tmp_path
    )
    with pytest.raises(ComponentValidationException, match="--readers: name the data that they read"):
        train("lr=1", readers=1)
