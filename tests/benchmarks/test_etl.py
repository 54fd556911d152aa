"""The memory of a watched command, and the ETL's benchmark on logs too small to claim anything about speed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

CHILD = """
import subprocess, sys, time
mine = bytearray(b"x") * (60 << 20)
subprocess.run([sys.executable, "-c", "import time; theirs = bytearray(b'x') * (80 << 20); time.sleep(1)"])
"""


def test_memory_is_that_of_all_processes_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from watched import watch_command

    run = watch_command([sys.executable, "-c", CHILD], tmp_path, 1)
    assert run.code == 0
    assert run.seconds > 1
    assert 140 < run.peak_bytes / 2**20 < 250  # 60 + 80 and two interpreters

    failed = watch_command([sys.executable, "-c", "import sys; sys.exit('no such thing')"], tmp_path, 1)
    assert failed.code == 1
    assert failed.stderr == "no such thing\n"

    one = watch_command([sys.executable, "-c", "import os; os._exit(len(os.sched_getaffinity(0)))"], tmp_path, 1)
    assert one.code == 1  # one core is all that it may use


def test_rate_and_memory_at_both_sizes(tmp_path: Path) -> None:
    json_file = tmp_path / "found.json"
    command = [sys.executable, str(BENCHMARKS / "etl.py"), "--data", "tiny", "--samples", "500", "--pairs", "1"]

    shown = subprocess.run(
        [*command, "--dir", str(tmp_path / "data"), "--json", str(json_file)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

    assert shown.returncode == 0, shown.stderr
    found = {result["claim"]: result for result in json.loads(json_file.read_text())}
    assert set(found) == {"etl.rate", "etl.memory", "etl.rate.4x", "etl.memory.4x"}
    assert 0.05 < found["etl.memory"]["value"] < 4
    assert found["etl.rate"]["value"] > 0
    assert found["etl.rate"]["baseline_rate"] > 0
    assert "memory_limit=1GB" in found["etl.rate"]["baseline"]
    assert "tiny, 500 samples" in found["etl.rate"]["config"]
    assert "tiny, 2,000 samples" in found["etl.memory.4x"]["config"]
    assert sorted(path.name for path in (tmp_path / "data" / "raw").iterdir()) == ["tiny-2000", "tiny-500"]
