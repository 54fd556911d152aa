"""The benchmark of windows, on a table too small to claim anything about speed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "windows.py"


@pytest.mark.slow
def test_windows_train_what_lists_do_and_store_fewer_ids(tmp_path: Path) -> None:
    found = tmp_path / "found.json"
    options = ["tiny", "--samples", "2000", "--rounds", "1", "--dir", str(tmp_path / "data"), "--json", str(found)]
    shown = subprocess.run(
        [sys.executable, str(SCRIPT), *options], capture_output=True, text=True, timeout=120, check=False
    )

    assert shown.returncode == 0, shown.stderr
    results = {result["claim"]: result for result in json.loads(found.read_text())}
    parts = [
        f"windows.{part}.{size}" for size in (512, 4096) for part in ("search", "vectors", "mapped", "count", "pack")
    ]
    assert list(results) == [*parts, "windows.step.tiny", "windows.tables.tiny"]
    assert results["windows.step.tiny"]["loss_difference_first_pass"] < 1e-5
    assert all(r["stored_ids"] < 0.8 * r["list_ids"] for r in results.values())
