"""The benchmark of batches by work, on a log too small to claim anything about time."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "balance.py"


@pytest.mark.slow
def test_both_kinds_of_batches(tmp_path: Path) -> None:
    arguments = ["transformer.2", "--sessions", "80", "--rounds", "1", "--dir", str(tmp_path / "data")]
    command = [sys.executable, str(SCRIPT), *arguments, "--json", str(tmp_path / "found.json")]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)

    assert shown.returncode == 0, shown.stderr
    computing, epoch = json.loads((tmp_path / "found.json").read_text())
    assert (computing["claim"], epoch["claim"]) == ("balance.transformer.2.computing", "balance.transformer.2")
    assert 1 <= computing["ids, work"] <= computing["ids, samples"]
    assert "reader.work.id=" in epoch["config"]
