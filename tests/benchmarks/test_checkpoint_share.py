"""The benchmark of checkpoints, on a table too small to claim anything about time."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "checkpoint.py"


def test_the_share_of_both_ways(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    arguments = ["tiny", "--samples", "2000", "--rounds", "1", "--dir", str(tmp_path / "data")]
    command = [sys.executable, str(SCRIPT), *arguments, "--json", str(tmp_path / "found.json")]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    assert shown.returncode == 0, shown.stderr
    (found,) = json.loads((tmp_path / "found.json").read_text())
    assert found["claim"] == "checkpoint.tiny"
    assert found["low"] <= found["value"] <= found["high"] < 1
    assert found["checkpoint_MB"] > found["copy_of_rank_0_MB"] > 0
