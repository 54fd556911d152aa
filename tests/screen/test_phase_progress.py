"""Phases of work in a pipe, where each bar is written once, at the end."""

import pytest

from recd_dist.screen.phase_progress import PhaseProgress


def test_reading_is_complete_when_writing_starts(capsys: pytest.CaptureFixture[str]) -> None:
    with PhaseProgress(shown=True) as bars:
        bars.start_reading()
        bars.advance(3)
        bars.advance(4)
        bars.start_writing(9)
        bars.advance(9)
    reading, writing = capsys.readouterr().err.splitlines()
    assert reading.split()[0] == "reading"
    assert "7/7" in reading
    assert writing.split()[0] == "writing"
    assert "9/9" in writing


def test_sides_of_a_comparison_count_on_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    with PhaseProgress(shown=True) as bars:
        for side, num_samples in (("source", 5), ("table", 4)):
            bars.start_comparing(side, num_samples)
            bars.advance(4)
    source, table = capsys.readouterr().err.splitlines()
    assert "4/5" in source
    assert "4/4" in table


@pytest.mark.parametrize("shown", [True, False])
def test_nothing_is_shown_before_the_first_phase(capsys: pytest.CaptureFixture[str], shown: bool) -> None:
    with PhaseProgress(shown) as bars:
        bars.advance(1)
    assert capsys.readouterr().err == ""


def test_nothing_is_shown_when_it_is_off(capsys: pytest.CaptureFixture[str]) -> None:
    with PhaseProgress(shown=False) as bars:
        bars.start_reading(2)
        bars.advance(2)
    assert capsys.readouterr().err == ""
