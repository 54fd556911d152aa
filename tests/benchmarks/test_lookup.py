"""The benchmark of the lookup, on its smallest case."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "lookup.py"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *arguments, "--quick"]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_both_lookups_are_compared_and_timed(tmp_path: Path) -> None:
    json_file = tmp_path / "found.json"

    shown = run("one", "--json", str(json_file))

    assert shown.returncode == 0, shown.stderr
    (found,) = json.loads(json_file.read_text())
    assert found["claim"] == "lookup.one"
    assert 0 < found["low"] <= found["value"] <= found["high"]
    assert {"ours_forward_ms", "ours_backward_ms", "fbgemm_forward_ms", "fbgemm_backward_ms"} <= set(found)


def test_an_unknown_case_is_refused_by_name() -> None:
    shown = run("d12")

    assert shown.returncode == 2
    assert "unknown case 'd12'; there are distinct, expanded" in shown.stderr
