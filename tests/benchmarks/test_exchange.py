"""The benchmark of the embedding exchange, on tables too small to claim anything about speed."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "exchange.py"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *arguments, "--small", "--pairs", "1"]
    return subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)


def results(tmp_path: Path, *arguments: str) -> list[dict[str, Any]]:
    json_file = tmp_path / "found.json"
    shown = run(*arguments, "--json", str(json_file))
    assert shown.returncode == 0, shown.stderr
    return json.loads(json_file.read_text())


def test_modes_train_alike_and_unique_rows_are_fewer_bytes(tmp_path: Path) -> None:
    kjt, vbe, lookup = results(tmp_path, "s16")

    assert [f["claim"] for f in (kjt, vbe, lookup)] == ["exchange.s16.kjt", "exchange.s16.vbe", "exchange.s16.lookup"]
    for found in (kjt, vbe, lookup):
        assert 0 < found["low"] <= found["value"] <= found["high"]
        assert found["weights_differ"] < 1e-4
    assert kjt["ours_sent_MB"] < kjt["baseline_sent_MB"] / 8


def test_features_that_never_repeat_ride_along(tmp_path: Path) -> None:
    mixed, _ = results(tmp_path, "mixed")

    assert mixed["claim"] == "exchange.mixed"
    assert 0.4 < mixed["ours_sent_MB"] / mixed["baseline_sent_MB"] < 0.6


def test_an_expansion_is_compared_with_a_copy(tmp_path: Path) -> None:
    small, large = results(tmp_path, "expand")

    assert (small["claim"], small["unit"]) == ("exchange.expand", "ours / baseline")
    assert large["claim"] == "exchange.expand.large"


def test_every_plan_sends_what_the_formula_says(tmp_path: Path) -> None:
    (found,) = results(tmp_path, "bytes")

    assert "TW rows" in found["config"]
    assert "GRID ids" in found["config"]
    assert 0.98 <= found["low"] <= found["high"] <= 1.02


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_its_case_is_skipped_in_a_line() -> None:
    shown = run("gpu")

    assert shown.returncode == 0, shown.stderr
    assert shown.stderr == "exchange: gpu skipped: torch sees no CUDA device here\n"


def test_an_unknown_case_is_refused_by_name() -> None:
    shown = run("s3")

    assert shown.returncode == 2
    assert "unknown case 's3'; there are s1, s2" in shown.stderr
