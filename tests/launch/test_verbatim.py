"""Values arrive as they were typed, as arguments and in --env, whatever a scheduler does to them on the way."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from launch.host import read_variables
from launch.train import train
from torchx.runner import Runner, get_runner
from torchx.specs import AppDef
from torchx.specs.finder import ComponentValidationException

NASTY = [
    *("data=tiny", "+a.b={x: 1}", "note='it''s \"so\"'", "path=/a b/*.parquet", "x=;ls", "ä=ö, Привет 学习", ""),
    *("v=${data.name}", "p=$HOME", "q=$$", "$", "a$", "$(HOME)", "$$(HOME)", "`id`", "${app_id}", "${replica_id}"),
    *("$${app_id}", "$$$$", "$'a'", "two\nlines", "\ttab", "back\\slash\\", "!", "[FIELD_PATH]x", "a,B=c", "x==", "-n"),
]
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
PIECES = st.lists(st.sampled_from([*"$(){}[]'\"\\,=;` \n%#!é", "HOME", "app_id", "A="]), max_size=12).map("".join)
VALUES = st.lists(TEXT | PIECES, min_size=1, max_size=3)
SHOW = "printf '%s\\0' \"$@\"; printf 'END\\0'; env -0"

Run = tuple[list[str], Mapping[str, str]]
"""A command and the environment that it begins in."""


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A program that takes Python's place and shows its arguments and environment."""
    path = tmp_path_factory.mktemp("probe") / "probe"
    path.write_text(f"#!/bin/bash\n{SHOW}\n")
    path.chmod(0o755)
    return str(path)


@pytest.fixture(scope="module")
def runner() -> Runner:
    with get_runner("test") as runner:
        yield runner


def seen(run: Run) -> tuple[list[str], dict[str, str]]:
    """The arguments and variables that the probe showed."""
    command, env = run
    path = ":".join(filter(None, [env.get("PATH"), os.environ["PATH"]]))
    shown = subprocess.run(command, capture_output=True, check=False, env={**env, "PATH": path})
    assert b"\0END\0" in b"\0" + shown.stdout, shown.stderr.decode()
    words = [word.decode() for word in shown.stdout.split(b"\0")]
    end = words.index("END")
    return words[:end], dict(word.split("=", 1) for word in words[end + 1 : -1])


def as_env(variables: Mapping[str, str]) -> str:
    """What a user types after --env."""
    escaped = {name: re.sub(r'(["\\])', r"\\\1", value) for name, value in variables.items()}
    return ",".join(f'{name}="{value}"' for name, value in escaped.items())


def on_local_cwd(runner: Runner, app: AppDef) -> Run:
    (replica,) = runner.dryrun(app, "local_cwd", {}).request.role_params["train"]
    return replica.args, replica.env


def on_docker(runner: Runner, app: AppDef) -> Run:
    """The engine starts the command as it is, with the variables as they are."""
    (container,) = runner.dryrun(app, "local_docker", {}).request.containers
    return container.command, container.kwargs["environment"]


def on_kubernetes(runner: Runner, app: AppDef) -> Run:
    """The kubelet expands commands and variables."""
    request = runner.dryrun(app, "kubernetes", {"queue": "default", "validate_spec": False}).request
    (task,) = request.resource["spec"]["tasks"]
    container = task["template"].spec.containers[0]
    variables: dict[str, str] = {}
    for variable in container.env:
        variables[variable.name] = expand(variable.value, variables)
    return [expand(word, variables) for word in container.command], variables


def expand(text: str, variables: Mapping[str, str]) -> str:
    """As the kubelet does: ``$$`` is a dollar, ``$(NAME)`` the variable if there is one; all else stays."""
    found = re.compile(r"\$(?:(\$)|\(([^)]*)\))")
    known = {"HOME": "the pod's", **variables}
    return found.sub(lambda match: "$" if match[1] else known.get(match[2], match[0]), text)


def on_slurm(runner: Runner, app: AppDef, fake_srun: Path) -> Run:
    """The script that sbatch gets, with an srun that starts the command of its one node."""
    script = runner.dryrun(app, "slurm", {}).request.materialize()
    return ["bash", "-c", script], {"PATH": str(fake_srun), "SLURM_JOB_ID": "77"}


@pytest.fixture(scope="module")
def fake_srun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("srun")
    (folder / "srun").write_text('#!/bin/bash\nwhile [[ "$1" == --* ]]; do shift; done; exec "$@"\n')
    (folder / "srun").chmod(0o755)
    return folder


Scheduler = Callable[[AppDef], Run]


@pytest.fixture(scope="module", params=["local_cwd", "local_docker", "kubernetes", "slurm"])
def scheduler(request: pytest.FixtureRequest, runner: Runner, fake_srun: Path) -> Scheduler:
    if request.param == "kubernetes":
        pytest.importorskip("kubernetes")
    return {
        "local_cwd": lambda app: on_local_cwd(runner, app),
        "local_docker": lambda app: on_docker(runner, app),
        "kubernetes": lambda app: on_kubernetes(runner, app),
        "slurm": lambda app: on_slurm(runner, app, fake_srun),
    }[request.param]


def arrives(scheduler: Scheduler, probe: str, values: Sequence[str]) -> None:
    variables = {f"V{number}": value for number, value in enumerate(values)}
    app = train(*values, run="/r,u n/$$", env=as_env(variables), python=probe)
    arguments, environment = seen(scheduler(app))
    assert arguments[arguments.index("--") + 1 :] == list(values)
    assert {name: environment[name] for name in variables} == variables
    assert (environment["RECD_RUN_DIR"], environment["PYTHONUNBUFFERED"]) == ("/r,u n/$$", "1")


def test_what_schedulers_touch_arrives(scheduler: Scheduler, probe: str) -> None:
    arrives(scheduler, probe, NASTY)


@settings(max_examples=25)
@given(VALUES)
@example(["$(V0)", "$$(V1)"])
def test_anything_arrives(scheduler: Scheduler, probe: str, values: list[str]) -> None:
    arrives(scheduler, probe, values)


def test_a_job_that_torchx_runs_here_gets_them(tmp_path: Path) -> None:
    """From the command line on: TorchX's own reader of options is on the way too."""
    python = tmp_path / "python"
    show = f"import json, os, sys; json.dump([sys.argv[1:], dict(os.environ)], open({str(tmp_path / 'seen')!r}, 'w'))"
    python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -c {shlex.quote(show)} "$@"\n')
    python.chmod(0o755)
    variables = {f"V{number}": value for number, value in enumerate(NASTY)}
    component = str(Path(__file__).parents[2] / "launch" / "train.py:train")
    command = ["run", "-s", "local_cwd", component, "--python", str(python), "--env", as_env(variables), "--", *NASTY]
    subprocess.run(
        [Path(sys.executable).with_name("torchx"), *command],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    arguments, environment = json.loads((tmp_path / "seen").read_text())
    assert arguments[arguments.index("--") + 1 :] == NASTY
    assert {name: environment[name] for name in variables} == variables


@given(st.dictionaries(st.from_regex(r"\A[A-Za-z_][A-Za-z0-9_]*\Z"), TEXT | PIECES, max_size=4))
def test_quoted_variables_are_read_as_they_are(variables: dict[str, str]) -> None:
    assert read_variables(as_env(variables)) == variables


@pytest.mark.parametrize(
    ("text", "variables"),
    [
        ("A=1", {"A": "1"}),
        ("A=1,B=2", {"A": "1", "B": "2"}),
        ("A=1, B=2", {"A": "1", "B": "2"}),
        ("A=1,2,B=3", {"A": "1,2", "B": "3"}),
        ("TOKEN=abc==,B=", {"TOKEN": "abc==", "B": ""}),
        ("A=it's,B=that's", {"A": "it's", "B": "that's"}),
        ("A='x,y=z',B=2", {"A": "x,y=z", "B": "2"}),
        ('A="say \\"x,y=z\\" \\\\",B=2', {"A": 'say "x,y=z" \\', "B": "2"}),
        ('A="x"y,B=2', {"A": '"x"y', "B": "2"}),
        ("URL=s3://b/k?a=1&b=2", {"URL": "s3://b/k?a=1&b=2"}),
    ],
)
def test_variables_as_they_are_typed(text: str, variables: dict[str, str]) -> None:
    assert read_variables(text) == variables


@pytest.mark.parametrize("text", ["A", "1=2", "=x", "a-b=c"])
def test_what_is_no_variable_is_refused(text: str) -> None:
    with pytest.raises(ComponentValidationException, match=f"--env {re.escape(text)}: write NAME=value"):
        train(env=text)
