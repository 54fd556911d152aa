"""The comparison of both modes: its short form passes, and what differs is found."""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from recd_dist.embedding.vocabulary.names import CPU_OPTIMIZERS
from recd_dist.model.models import MODELS

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def exactness(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("exactness")


def test_the_short_form_passes(tmp_path: Path) -> None:
    json_file = tmp_path / "found.json"
    command = [sys.executable, str(FOLDER / "exactness.py"), "--quick", "--json", str(json_file)]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)

    assert shown.returncode == 0, shown.stdout + shown.stderr
    found = json.loads(json_file.read_text())
    assert {row["on"] for row in found} == {1, 2}
    assert all(row["moved"] > 0 for row in found)


def test_every_model_and_optimizer_is_compared(exactness: ModuleType) -> None:
    cases = exactness.find_cases()
    apart = {"custom", "sequence"}  # a module of the user's, and another name of the transformer

    assert {c.name for c in cases if c.part == "Models, SGD"} == set(MODELS) - apart
    assert all(c.ranks == (1, 2, 4) for c in cases if c.part == "Models, SGD")
    names = {c.name for c in cases if c.part.startswith("Optimizers")}
    assert {name.partition(",")[0] for name in names} == set(CPU_OPTIMIZERS)
    assert set(exactness.QUICK) <= {f"{c.part}: {c.name}" for c in cases}


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({"loss": 1e-3}, "the losses differ by 1.0e-03"),
        ({"loss": float("nan")}, "the losses differ by nan"),
        ({"weights": 5e-2}, "over.0.weight differs by 5.0e-02"),
        ({"moved": 0.0}, "over.2.bias has not moved"),
    ],
)
def test_what_is_wrong_is_named(exactness: ModuleType, found: dict[str, float], words: str) -> None:
    right = {"loss": 1e-7, "weights": 1e-6, "where": "over.0.weight", "moved": 0.1, "unmoved": "over.2.bias"}
    case = exactness.Case("part", "name", exactness.TIGHT, (), (1,))

    assert exactness.judge(case, right) == []
    (wrong,) = exactness.judge(case, right | found)
    assert words in wrong
