"""The whole benchmark of a training step, on a table too small to claim anything about speed."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "step.py"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_both_modes_are_the_same_training_and_send_what_the_formula_says(tmp_path: Path) -> None:
    json_file = tmp_path / "found.json"

    shown = run("tiny", "--samples", "2000", "--rounds", "1", "--dir", str(tmp_path / "data"), "--json", str(json_file))

    assert shown.returncode == 0, shown.stderr
    step, sent = json.loads(json_file.read_text())
    assert (step["claim"], sent["claim"]) == ("step.tiny", "step.bytes")
    assert step["low"] <= step["value"] <= step["high"]
    assert step["loss_difference_first_pass"] < 1e-5  # of SGD: Adagrad would make whole steps of rounding
    assert step["num_steps"] > 16
    assert 2 * step["ours_sent_MB"] < step["baseline_sent_MB"]
    assert 0.95 <= sent["low"] <= sent["high"] <= 1.05


def test_an_unknown_case_is_refused_by_name() -> None:
    shown = run("rm4")

    assert shown.returncode == 2
    assert "unknown case 'rm4'; there are rm1, " in shown.stderr
