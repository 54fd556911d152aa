"""The image's health check: docker/alive.sh, in a process namespace of its own, as in a container."""

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "docker/alive.sh"
TRAINING = "python3 -m recd_dist.ranks.launcher -- data=tiny"
PREDICTION = "python3 -m recd_dist.ranks.launcher --module recd_dist.train.prediction -- out=x"
NAMESPACE = ["unshare", "--pid", "--fork", "--mount-proc"]


def code(given: dict[str, str], first: str = "") -> int:
    """The exit code beside a process that looks like a command."""
    beside = (
        f"(exec -a '{first}' sleep 9) & while ! grep -q sleep /proc/$!/comm; do sleep 0.05; done; " if first else ""
    )
    command = [*NAMESPACE, "bash", "-c", f"{beside}sh {SCRIPT}; exit $?"]
    return subprocess.run(
        command, env={"PATH": os.environ["PATH"], **given}, capture_output=True, check=False
    ).returncode


@pytest.fixture(autouse=True)
def _namespaces() -> None:
    if subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no process namespaces here: they want root")


def test_a_run_directory_must_be_written(tmp_path: Path) -> None:
    run = {"RECD_RUN_DIR": str(tmp_path)}
    assert code(run) == 1  # a directory alone
    (tmp_path / "events").write_text("")
    assert code(run) == 0
    assert code({**run, "RECD_ALIVE_S": "-10"}) == 1


@pytest.mark.parametrize("first", [TRAINING, "recd train data=tiny", "/opt/bin/python3 /opt/bin/recd etl data=tiny"])
def test_training_and_etl_must_write_somewhere(first: str) -> None:
    assert code({}, first) == 1  # there is no /recd here


@pytest.mark.parametrize("first", ["", PREDICTION, "recd evaluate runs/a", "tensorboard --logdir runs"])
def test_what_writes_at_its_end_is_alive(first: str) -> None:
    assert code({}, first) == 0
