"""Ratios of pairs, and the tables that show them."""

import argparse
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "measure.py"


@pytest.fixture(scope="module")
def measure() -> ModuleType:
    spec = importlib.util.spec_from_file_location("measure", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["measure"] = module
    spec.loader.exec_module(module)
    return module


def test_a_ratio_is_taken_within_a_pair(measure: ModuleType) -> None:
    pairs = [(1.0, 2.0), (10.0, 15.0), (1.0, 4.0)]

    found = measure.speed_up("step.x", pairs, "theirs", "small", ours_ms=1)

    assert found.to_json() == {
        "claim": "step.x",
        "value": 2.0,
        "low": 1.5,
        "high": 4.0,
        "baseline": "theirs",
        "unit": "ratio",
        "config": "small",
        "ours_ms": 1,
    }


def test_sides_alternate_and_take_turns_at_beginning(measure: ModuleType) -> None:
    order: list[str] = []

    def ours() -> float:
        order.append("A")
        return 1.0

    def baseline() -> float:
        order.append("B")
        return 2.0

    assert measure.alternate(ours, baseline, 3) == [(1.0, 2.0)] * 3
    assert "".join(order) == "ABBAAB"


def test_tables_for_people_and_for_pages(measure: ModuleType) -> None:
    assert measure.table(["claim", "n"], [["a", "10"]], markdown=False) == "claim  n\na      10\n"
    assert measure.table(["claim", "n"], [["a", "10"]], markdown=True) == "| claim | n |\n| --- | --- |\n| a | 10 |\n\n"


def test_claims_with_other_columns_stand_in_a_table_of_their_own(
    measure: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    speed = measure.speed_up("speed", [(1.0, 2.0)], "theirs", "small", ours_ms=1)
    size = measure.speed_up("size", [(1.0, 3.0)], "theirs", "small")

    measure.report([speed, size], argparse.Namespace(markdown=True, json=tmp_path / "found.json"))

    shown = capsys.readouterr().out
    assert "| speed | 2.000 | 2.000–2.000 | 1 |\n" in shown
    assert "| size | 3.000 | 3.000–3.000 |\n" in shown
    assert [found["claim"] for found in json.loads((tmp_path / "found.json").read_text())] == ["speed", "size"]
