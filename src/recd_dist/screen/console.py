"""What text is printed on: consoles, 120 columns wide in a pipe, and plain tables."""

from typing import TextIO

from rich import box
from rich.console import Console
from rich.table import Table

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


def plain_table(title: str | None = None) -> Table:
    """An empty table with one line below its head and none at its sides.

    Args:
        title: the bold line above the table, if there is one.
    """
    return Table(
        title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False
    )
