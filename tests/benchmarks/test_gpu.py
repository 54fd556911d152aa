"""The script for GPUs, rehearsed on the CPU: its page, what it does after a failure, and how it goes on."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"


def run(*arguments: str, limit_s: float = 400) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), "--commit", "abc", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=limit_s, check=False)


def parts_below(directory: Path) -> dict[str, Path]:
    return {path.stem: path for path in directory.glob("*/*.json")}


def test_a_part_that_takes_too_long_loses_no_other(tmp_path: Path) -> None:
    """With a limit of nothing every part is left; with a result in its place a part is not run again."""
    shown = run("--device", "cpu", "--quick", "--dir", str(tmp_path), "--limit", "0")
    assert shown.returncode == 1
    assert shown.stderr.startswith(
        "left: exact, rm1, dlrm, kernels, attention, collectives, exact on the CPU; the same command"
    )
    assert "[1/7] exact, 0 s at most ... took more than 0 s; " in shown.stdout
    (page,) = tmp_path.glob("*/gpu.md")
    assert "- **rm1**: took more than 0 s" in page.read_text()
    model = {"on_off_loss": 0.5, "on_off_weights": 0.0, "tables_that_moved": 1, "tables": 2, "losses": [1.0]}
    kernels = {
        "bandwidth_GB_s": 9.0,
        "kernels": {"lookup": {"ms": 1.0, "times_the_floor": 2.0}, "sort": {"failed": "no"}},
    }
    found = {"exact": {"rm1": model}, "exact-on-the-CPU": {"rm1": model}, "kernels": kernels, "attention": {}}
    for name, part in found.items():
        (page.parent / f"{name}.json").write_text(json.dumps(part))
    shown = run("--device", "cpu", "--quick", "--dir", str(tmp_path), "--limit", "0")
    assert shown.stderr.startswith("left: rm1, dlrm, collectives;")
    assert "| rm1 | 5.0e-01 (DIFFERENT) | 0.0e+00 | 0.0e+00 (same) | 1 of 2 |" in page.read_text()
    assert "| sort | no |" in page.read_text().replace("  ", "")
    assert "- **attention**: not shown (KeyError: 'ratio')" in page.read_text()
    assert "**A rehearsal on a CPU, in small: no claim.**" in page.read_text()


def test_without_a_gpu_it_says_so() -> None:
    shown = run()
    assert (shown.returncode, shown.stdout.partition(":")[0]) == (0, "skipped")


@pytest.mark.slow
def test_rehearsal(tmp_path: Path) -> None:
    shown = run("--device", "cpu", "--quick", "--dir", str(tmp_path), "--limit", "5", limit_s=1500)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    found = {name: json.loads(path.read_text()) for name, path in parts_below(tmp_path).items()}
    assert set(found) == {"exact", "exact-on-the-CPU", "rm1", "dlrm", "kernels", "attention", "collectives"}
    for model in found["exact"].values():
        assert model["on_off_loss"] < 1e-4
        assert model["tables_that_moved"] == model["tables"]
    assert (found["collectives"]["backend"], found["collectives"]["ranks"]) == ("gloo", 2)
    text = next(tmp_path.glob("*/gpu.md")).read_text()
    for heading in ("Exactness", "Training step, rm1", "Training step, dlrm", "Kernels", "Attention", "Collectives"):
        assert f"## {heading}\n" in text
    assert "DIFFERENT" not in text
