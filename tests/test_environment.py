"""packaging/env.sh: what it says on a machine that lacks something, and that it works in a path with spaces."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOOLS = ["bash", "dirname", "awk", "df", "head", "tail", "grep", "mkdir"]


def executable(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout, in a path with a space, on a machine with TOOLS in bin/ and no Python."""
    path = tmp_path / "my checkout"
    (path / "packaging").mkdir(parents=True)
    shutil.copy(ROOT / "packaging/env.sh", path / "packaging")
    for pins in ROOT.glob("constraints*.txt"):
        shutil.copy(pins, path)
    (path / "bin").mkdir()
    for tool in TOOLS:
        (path / "bin" / tool).symlink_to(str(shutil.which(tool)))
    return path


def env_sh(checkout: Path, **variables: str) -> tuple[int, str]:
    """Exit code and everything printed."""
    shown = subprocess.run(
        ["bash", str(checkout / "packaging/env.sh")],
        env={"PATH": str(checkout / "bin"), "HOME": os.environ.get("HOME", "/"), **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return shown.returncode, shown.stdout


NEW_PYTHON = """case "$*" in
  *venv*--clear*) mkdir -p "$4/bin" && cp "$0" "$4/bin/python";;
  *-V*) echo Python 3.12.1;;
  *pip*install*) echo "$@" >> calls;;
esac"""


def test_no_python(checkout: Path) -> None:
    code, shown = env_sh(checkout)
    assert code == 1
    assert shown.startswith("make env: no Python 3.11 or newer found (tried python3.13 python3.12 python3.11 python3).")


def test_python_shim_that_does_not_run_is_passed_over(checkout: Path) -> None:
    executable(checkout / "bin/python3.13", "echo no such version >&2; exit 127")
    executable(checkout / "bin/python3.12", NEW_PYTHON)
    (checkout / "bin/cp").symlink_to(str(shutil.which("cp")))
    code, shown = env_sh(checkout)
    assert code == 0
    assert (
        "make env: new .venv with Python 3.12.1, variant cpu" in shown.splitlines()
    )  # behind a hint where disk is short
    assert "./packaging/fbgemm-gpu-cpu-shim --editable .[cpu,dev]" in (checkout / "calls").read_text()


def test_old_python_by_name(checkout: Path) -> None:
    old = executable(checkout / "bin/python3.9", '[ "$1" = -V ] && echo Python 3.9.1; exit 1')
    code, shown = env_sh(checkout, PYTHON=str(old))
    assert (code, shown) == (1, f"make env: PYTHON={old} does not run, or is older than 3.11 (Python 3.9.1).\n")


def test_no_venv_module(checkout: Path) -> None:
    executable(checkout / "bin/python3.12", 'case "$2" in *ensurepip*) exit 1;; esac')
    code, shown = env_sh(checkout)
    assert (code, shown.count("\n")) == (1, 1)
    assert "python3.12 has no venv module. On Debian or Ubuntu: apt install python3-venv" in shown


def test_full_disk(checkout: Path) -> None:
    executable(checkout / "bin/python3.12", NEW_PYTHON)
    (checkout / "bin/df").unlink()
    executable(checkout / "bin/df", "echo h; echo /dev/x 1 1 2097152 1 /")
    code, shown = env_sh(checkout)
    assert (code, shown) == (
        1,
        "make env: 2048 MiB free here, the environment needs 4 GiB. Make room, or clone to another disk.\n",
    )


def test_unknown_variant(checkout: Path) -> None:
    assert env_sh(checkout, VARIANT="rocm") == (1, "make env: VARIANT=rocm is unknown; choose cpu or cuda\n")


def test_the_newest_line_lies_beside_the_default_one(checkout: Path) -> None:
    executable(checkout / "bin/python3.12", NEW_PYTHON)
    (checkout / "bin/cp").symlink_to(str(shutil.which("cp")))
    assert env_sh(checkout)[0] == 0
    assert env_sh(checkout, VERSIONS="newest")[0] == 0
    default, newest = (checkout / "calls").read_text().splitlines()
    assert "--constraint .venv/constraints.txt ./packaging/fbgemm-gpu-cpu-shim --editable .[cpu,dev]" in default
    assert "--constraint .venv-newest/constraints.txt ./packaging/fbgemm-gpu-cpu-shim --editable .[cpu-newest,dev]" in (
        newest
    )
    before, after = ((checkout / name / "constraints.txt").read_text().split() for name in (".venv", ".venv-newest"))
    changed = [line for line in (ROOT / "constraints-newest.txt").read_text().splitlines() if line[0] != "#"]
    assert sorted(set(after) - set(before)) == sorted(changed)
    names = [pin.split("==")[0] for pin in after]
    assert len(names) == len(set(names))
    assert set(names) >= {pin.split("==")[0] for pin in before}


def test_unknown_line(checkout: Path) -> None:
    code, shown = env_sh(checkout, VERSIONS="oldest")
    assert (code, shown) == (1, "make env: VERSIONS=oldest is unknown; choose newest, or leave it out\n")


def test_failing_pip_shows_its_error_and_its_log(checkout: Path) -> None:
    fails = NEW_PYTHON.replace('echo "$@" >> calls', "echo ERROR: No matching distribution found for torch; exit 1")
    executable(checkout / "bin/python3.12", fails)
    (checkout / "bin/cp").symlink_to(str(shutil.which("cp")))
    code, shown = env_sh(checkout)
    assert code == 1
    assert "ERROR: No matching distribution found for torch\n" in shown
    assert "pip failed; its log is .venv/install.log. Another index for torch: make env TORCH_INDEX=URL" in shown


def test_other_index_is_for_torch_alone(checkout: Path) -> None:
    executable(checkout / "bin/python3.12", NEW_PYTHON)
    (checkout / "bin/cp").symlink_to(str(shutil.which("cp")))
    assert env_sh(checkout, TORCH_INDEX="https://example.com/whl")[0] == 0
    first, second = (checkout / "calls").read_text().splitlines()
    assert first.endswith("--no-deps --index-url https://example.com/whl torch")
    assert "example.com" not in second


def test_an_environment_keeps_its_variant_when_it_is_renewed(checkout: Path) -> None:
    executable(checkout / "bin/python3.12", NEW_PYTHON)
    (checkout / "bin/cp").symlink_to(str(shutil.which("cp")))
    assert env_sh(checkout, VARIANT="cuda")[0] == 0
    assert (checkout / ".venv/.ready").read_text() == "cuda\n"

    assert env_sh(checkout)[0] == 0
    first, second = (checkout / "calls").read_text().splitlines()
    assert first.endswith("--editable .[cuda,dev]")
    assert second == first


@pytest.mark.parametrize(
    ("stamp", "variant", "code"), [("cuda", "cuda", 0), ("cuda", "cpu", 2), ("", "cpu", 0), ("", "cuda", 2)]
)
def test_another_variant_is_not_passed_over(checkout: Path, stamp: str, variant: str, code: int) -> None:
    shutil.copy(ROOT / "Makefile", checkout)
    (checkout / ".venv").mkdir()
    (checkout / ".venv/.ready").write_text(stamp)

    command = ["make", "help", f"VARIANT={variant}", "VERSIONS="]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)

    assert done.returncode == code
    message = f"VARIANT={variant}: .venv was made for {stamp or 'cpu'}; remove .venv first"
    assert (message in done.stderr) == (code == 2)
