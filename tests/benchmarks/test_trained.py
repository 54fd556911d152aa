"""Runs that scripts train: each once, in order, and the numbers over their seeds."""

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("trained")


def test_a_run_that_is_done_is_passed_over(trained: ModuleType, tmp_path: Path, monkeypatch) -> None:
    runs = [trained.Run(name, (f"seed={number}",)) for number, name in enumerate(("a", "b", "c"))]
    (tmp_path / "b").mkdir()
    (tmp_path / "b/summary.json").write_text(json.dumps({"auc": 0.5}))
    started: list[str] = []
    monkeypatch.setattr(trained.measure, "run_ranks", lambda _, config: started.extend(r[0] for r in config["runs"]))

    assert trained.train_missing(runs, tmp_path, most=1) == 1
    assert started == ["seed=0"]
    assert trained.train_missing(runs, tmp_path) == 0
    assert started == ["seed=0", "seed=0", "seed=2"]
    assert trained.quality_cells(runs, tmp_path, ["auc"]) == ["1", "0.5000"]


def test_a_command_that_fails_ends_the_script_with_its_words(trained: ModuleType) -> None:
    with pytest.raises(SystemExit, match="unknown option"):
        trained.run_recd("train", "--no-such-option")


def test_the_spread_is_that_of_a_sample(trained: ModuleType) -> None:
    assert trained.mean_and_spread([0.5, 0.6, 0.7]) == "0.6000 ± 0.1000"
    assert trained.mean_and_spread([0.8]) == "0.8000"
    assert trained.mean_and_spread([]) == ""
