"""Ticks and labels of the plots, and who may use them."""

from pathlib import Path

import pytest

from recd_dist.suggest.plots import move_apart, nice_ticks


@pytest.mark.parametrize(
    ("most", "ticks"),
    [
        (5, [0, 1, 2, 3, 4, 5]),
        (937, [0, 200, 400, 600, 800, 1000]),
        (0.3, [0, 0.1, 0.2, 0.3]),
        (1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
    ],
)
def test_ticks_are_round(most: float, ticks: list[float]) -> None:
    assert nice_ticks(most) == pytest.approx(ticks)


def test_labels_are_moved_apart_but_not_further_than_needed() -> None:
    assert move_apart([10, 100, 12], 10, 0, 200) == [6, 100, 16]
    assert move_apart([199, 198, 197], 10, 0, 200) == [200, 190, 180]
    assert move_apart([0, 1], 10, 0, 200) == [0, 10]


def test_only_the_report_uses_the_plots() -> None:
    sources = Path(__file__).parents[2] / "src"
    users = [path.name for path in sources.rglob("*.py") if "suggest.plots" in path.read_text()]
    assert users == ["report.py"]
