"""What text is printed on."""

import io

import pytest

from recd_dist.screen.console import console


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_pipe_has_120_columns_and_a_terminal_its_own_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "47")
    assert console(io.StringIO()).width == 120
    assert console(Terminal()).width == 47


def test_the_console_writes_to_its_stream() -> None:
    stream = io.StringIO()
    console(stream).print("word " * 30)
    assert [len(line.rstrip()) for line in stream.getvalue().splitlines()] == [119, 29]
