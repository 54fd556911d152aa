"""Every component: TorchX accepts it, its help is whole, every scheduler takes it, and it says what it will run."""

import importlib
import inspect
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from launch.train import train
from torchx.runner import get_runner
from torchx.specs import AppDef
from torchx.specs.file_linter import get_fn_docstring, validate

LAUNCH = Path(__file__).parents[2] / "launch"
NAMES = ["bench", "board", "doctor", "etl", "evaluate", "predict", "serve", "train"]
COMMANDS = {
    "bench": "benchmarks/step.py rm1",
    "board": "-m recd_dist.cli board --port 6006 rm1",
    "doctor": "-m recd_dist.cli doctor --nproc 2 rm1",
    "etl": "-m recd_dist.cli etl rm1",
    "evaluate": "-m recd_dist.cli evaluate rm1",
    "predict": "-m recd_dist.ranks.launcher --nnodes 1 --nproc-per-node 2 "
    "--checked --module recd_dist.train.prediction -- rm1",
    "serve": "-m recd_dist.cli serve --listen 127.0.0.1:8080 rm1",
    "train": "-m recd_dist.ranks.launcher --nnodes 1 --nproc-per-node 2 -- rm1",
}
SCHEDULERS: dict[str, dict[str, Any]] = {
    "local_cwd": {},
    "local_docker": {},
    "slurm": {},
    "kubernetes": {"queue": "default", "validate_spec": False},
}


def component(name: str) -> Callable[..., AppDef]:
    return getattr(importlib.import_module(f"launch.{name}"), name)


def app(component_name: str, **options: Any) -> AppDef:
    needed = {"script": "benchmarks/step.py"} if component_name == "bench" else {}
    return component(component_name)("rm1", **needed, **options)


def test_a_file_is_a_component() -> None:
    assert sorted(path.stem for path in LAUNCH.glob("*.py")) == sorted([*NAMES, "host", "pod", "__init__"])


@pytest.mark.parametrize("name", NAMES)
def test_torchx_accepts_it_and_its_help_is_whole(name: str) -> None:
    assert validate(str(LAUNCH / f"{name}.py"), name, None) == []
    parameters = inspect.signature(component(name)).parameters
    _, help_of = get_fn_docstring(component(name))
    assert [p for p in parameters if p not in help_of or help_of[p].startswith((" ", "(required)"))] == []
    common = {"image", "name", "cpu", "memMB", "max_retries", "env", "mounts", "pod", "python"}
    assert common <= set(parameters)


@pytest.mark.parametrize("name", NAMES)
def test_what_runs_on_a_host(name: str) -> None:
    (role,) = app(name, python="py", env="A=1", cpu=3, memMB=5, max_retries=4, image="me", name="n").roles
    assert role.args[1].splitlines()[-1] == f"exec py {COMMANDS[name]}"
    assert "export A=1" in role.args[1].splitlines()
    assert (role.resource.cpu, role.resource.memMB, role.max_retries, role.image) == (3, 5, 4, "me")


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("name", NAMES)
def test_every_scheduler_takes_it(name: str, scheduler: str) -> None:
    if scheduler == "kubernetes":
        pytest.importorskip("kubernetes")
    mounts = ["type=bind", "src=/data", "dst=/data", "readonly"]
    with get_runner("test") as runner:
        request = runner.dryrun(app(name, mounts=mounts), scheduler, SCHEDULERS[scheduler])
    assert COMMANDS[name].rpartition(" ")[0].split()[-1] in " ".join(str(request).split())


def test_two_roles_of_a_job_share_what_the_user_said() -> None:
    job = train("data=tiny", run="runs/a", board_port=6007, gpu=8, cpu=16, memMB=9999, image="me", env="A=1")
    trainer, board = job.roles
    assert (trainer.resource.gpu, board.resource.gpu, board.resource.cpu) == (8, 0, 1)
    assert trainer.image == board.image == "me"
    assert "export A=1" in trainer.args[1]
    assert "export A=1" in board.args[1]


def test_a_component_is_found_from_any_directory(tmp_path: Path) -> None:
    """Components share a module: TorchX must find that too when it loads one by its path."""
    torchx = Path(sys.executable).with_name("torchx")
    line = [torchx, "run", "--dryrun", "-s", "local_cwd", f"{LAUNCH}/etl.py:etl", "--python", "py", "--", "data=tiny"]
    shown = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "recd_dist.cli etl data=tiny" in " ".join(shown.stdout.replace("'", "").split())


def test_the_hosts_of_a_doctor_know_where_to_meet() -> None:
    (role,) = app("doctor", j="3x8", python="py").roles
    line = role.args[1].splitlines()[-1]
    assert line.startswith("exec py -m recd_dist.cli doctor --nproc 8 --nnodes 3 --node ${replica_id} --rdzv-endpoint ")
    assert line.endswith(':$$meeting_port" rm1')
    assert (role.num_replicas, role.port_map) == (3, {"rendezvous": 29500})


def test_a_benchmark_finds_what_lies_beside_it(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "measure.py").write_text("FOUND = 'beside it'\n")
    (tmp_path / "measure.py").write_text("FOUND = 'in the working directory'\n")
    (tmp_path / "scripts" / "one.py").write_text("import measure\nprint(measure.FOUND)\n")
    (role,) = component("bench")(script="scripts/one.py", python=sys.executable).roles
    ran = subprocess.run(["bash", *role.args], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ran.stdout == "beside it\n"
