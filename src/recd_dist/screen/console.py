"""What text is printed on: consoles, 120 columns wide in a pipe or a file."""

from typing import TextIO

from rich.console import Console

WIDTH = 120
"""Columns of text in a pipe or a file. A terminal has its own width."""


def console(stream: TextIO) -> Console:
    """A console that writes to a stream.

    Args:
        stream: where the text goes, such as ``sys.stdout``.

    Returns:
        A console as wide as the terminal, or of ``WIDTH`` columns where the stream is no terminal.
    """
    return Console(file=stream, width=None if stream.isatty() else WIDTH)
