"""The image, built by the Dockerfile's own steps: what it does with a root file system that nobody can write to."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.docker.engine import BuildahAndRunc, Docker, engine, missing

pytestmark = pytest.mark.docker
LARGEST_GB = 1.6
"""1.42 GB with the CPU build of torch, Debian and Python included."""


@pytest.fixture(scope="module")
def image() -> Iterator[Docker | BuildahAndRunc]:
    if reason := missing():
        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="recd_image_"))
    made = engine(folder)
    try:
        made.build()
        yield made
    finally:
        made.remove()


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The directories that a job writes, owned by the image's user."""
    paths = {f"/recd/{name}": tmp_path_factory.mktemp(name) for name in ("data", "runs", "tables")}
    for path in paths.values():
        os.chown(path, 1000, 1000)
    return paths


def test_a_table_and_twenty_steps_on_two_ranks(image: Docker | BuildahAndRunc, volumes: dict[str, Path]) -> None:
    etl = image.run(volumes, ["recd", "etl", "data=tiny"])
    assert etl.returncode == 0, etl.stderr
    ranks = ["python3", "-m", "recd_dist.ranks.launcher", "--nproc-per-node", "2"]
    done = image.run(volumes, [*ranks, "--", "data=tiny", "max_steps=20"])
    assert done.returncode == 0, done.stderr
    assert "20 steps on 2 ranks" in done.stdout + done.stderr
    assert (volumes["/recd/runs"] / "tiny-dlrm/checkpoints/step-00000020").is_dir()
    alive = image.run(volumes, ["sh", "-c", "RECD_RUN_DIR=runs/tiny-dlrm recd-alive"])
    assert (alive.returncode, "tiny-dlrm/" in alive.stdout) == (0, True)


def test_no_user_of_a_cluster_needs_a_name(image: Docker | BuildahAndRunc, volumes: dict[str, Path]) -> None:
    """OpenShift gives a container any user id, in the group 0."""
    for path in volumes.values():
        os.chmod(path, 0o777)
    done = image.run(volumes, ["recd", "train", "data=tiny", "max_steps=2", "run_dir=runs/other"], user="12345:0")
    table = image.run(volumes, ["recd", "stats", "data=tiny"], user="12345:0")
    assert (table.returncode, done.returncode) == (0, 0), table.stderr + done.stderr


def test_nothing_else_can_be_written(image: Docker | BuildahAndRunc, volumes: dict[str, Path]) -> None:
    told = image.run(volumes, ["sh", "-c", "id -u; for f in /recd/x /opt/recd_dist/x /home/recd/x; do touch $f; done"])
    assert told.stdout.split() == ["1000"]
    assert told.stderr.count("Read-only file system") == 3


@pytest.mark.parametrize(
    ("script", "code", "said"),
    [
        ("(exec -a 'recd etl data=tiny' sleep 9) & sleep 1; recd-alive", 1, "nothing below /recd/runs /recd/tables"),
        ("(exec -a 'recd predict out=x' sleep 9) & sleep 1; recd-alive", 0, "neither training nor an ETL"),
        ("RECD_RUN_DIR=runs/none recd-alive", 1, "nothing below runs/none"),
        ("export RECD_RUN_DIR=runs/none; exec bash -c 'unset RECD_RUN_DIR; recd-alive; exit $?'", 1, "runs/none"),
    ],
)
def test_a_job_that_writes_nothing_is_not_alive(
    image: Docker | BuildahAndRunc, script: str, code: int, said: str
) -> None:
    told = image.run({}, ["bash", "-c", script])
    assert (told.returncode, said in told.stdout) == (code, True)


def test_what_a_job_does_not_need_stays_out(image: Docker | BuildahAndRunc) -> None:
    config = image.config()["Config"]
    assert config["User"] == "1000:1000"
    assert config["Healthcheck"]["Test"] == ["CMD", "recd-alive"]
    unwanted = "('pip', 'pytest', 'torch.test', 'scipy')"
    packages = f"import importlib.util as u; print([name for name in {unwanted} if u.find_spec(name)])"
    assert image.run({}, ["python3", "-c", packages]).stdout.split() == ["[]"]
    assert image.size() < LARGEST_GB * 1e9
