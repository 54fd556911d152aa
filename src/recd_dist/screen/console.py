"""The console that results are printed on: as wide as the terminal, or of a fixed width in a pipe."""

import sys
from typing import TextIO

from rich.console import Console

PIPE_COLUMNS = 120
"""Columns of text where no terminal tells its width."""


def console(stream: TextIO | None = None) -> Console:
    """A console on a stream.

    Args:
        stream: where the text goes; stdout when absent.
    """
    stream = stream or sys.stdout
    return Console(file=stream, width=None if stream.isatty() else PIPE_COLUMNS)
