"""Tables of names and numbers that fit any width: nothing is cut, no blank ends a line.

::

    group      samples  batch          group
               a row      512          a_name_that_is_too_long_for_its_column
    ─────────────────────────               4.96   4.92
    history       4.96   4.92          history
                                            4.95   4.90

Heads may have two lines, so that numbers stand close. A name that is too long for its column stands on a line of its
own, its numbers below it. Words in the last column fold. Where even the numbers are too wide, the columns that do not
fit follow in a second table.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

_GAPS = (2, 1)  # blanks between columns; one where two do not fit
_LEAST_NAME, _MOST_NAME, _LEAST_WORDS = 10, 36, 24


@dataclass
class PlainTable:
    """A table that rich prints; cells are text, the first of each row is its name.

    Attributes:
        title: the bold line above the table; empty for none.
        columns: the heads, of one line or two.
        left: heads of the columns that are aligned at the left; the last one of these folds if it stands last.
        caption: lines below the table.
        rows: the cells and the style of each row; None draws a line.
    """

    title: str
    columns: Sequence[str]
    left: Sequence[str] = ()
    caption: str = ""
    rows: list[tuple[tuple[str, ...], str] | None] = field(default_factory=list)

    def add_row(self, *cells: str, style: str = "") -> None:
        """Adds a row; cells that are missing at its end are empty."""
        self.rows.append((cells + ("",) * (len(self.columns) - len(cells)), style))

    def add_section(self) -> None:
        """Draws a line below the rows so far."""
        self.rows.append(None)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yields the lines of the table."""
        width = options.max_width
        if self.title:
            yield from _fold(self.title, "bold", console, width)
        gap = next((gap for gap in _GAPS if len(list(self._blocks(width, gap))) == 1), _GAPS[0])
        for columns in self._blocks(width, gap):
            yield from self._render(columns, console, width, gap)
        if self.caption:
            yield Text()
            yield from _fold(self.caption, "dim", console, width)
        yield Text()

    def _widths(self) -> list[int]:
        """The width that each column needs."""
        cells = [row[0] for row in self.rows if row]
        heads = [max(map(cell_len, head.split("\n"))) for head in self.columns]
        return [max([head, *(cell_len(row[i]) for row in cells)]) for i, head in enumerate(heads)]

    @property
    def _folds(self) -> bool:
        """Whether the last column holds words that fold."""
        return len(self.columns) > 1 and self.columns[-1] in self.left

    def _blocks(self, width: int, gap: int) -> Iterator[list[int]]:
        """The columns of each table, all of them in one where they fit."""
        widths = self._widths()
        if self._folds:
            widths[-1] = min(widths[-1], _LEAST_WORDS)
        block, used = [0], min(widths[0], _LEAST_NAME)
        for i in range(1, len(widths)):
            if used + gap + widths[i] > width and len(block) > 1:
                yield block
                block, used = [0], min(widths[0], _LEAST_NAME)
            block.append(i)
            used += gap + widths[i]
        yield block

    def _fit(self, columns: list[int], width: int, gap: int) -> tuple[list[int], bool]:
        """The widths of some columns, and whether the last one folds."""
        widths = [self._widths()[i] for i in columns]
        folds = self._folds and columns[-1] == len(self.columns) - 1
        if len(widths) == 1:
            return widths, False
        words = widths[-1]
        if folds:
            widths[-1] = min(words, _LEAST_WORDS)
        widths[0] = min(widths[0], _MOST_NAME, max(width - sum(gap + w for w in widths[1:]), _LEAST_NAME))
        if folds:
            widths[-1] = max(widths[-1], min(words, width - sum(gap + w for w in widths[:-1])))
        return widths, folds

    def _render(self, columns: list[int], console: Console, width: int, gap: int) -> Iterator[Text]:
        widths, folds = self._fit(columns, width, gap)
        heads = [self.columns[i].split("\n") for i in columns]
        for line in range(height := max(map(len, heads))):
            cells = [head[line - height + len(head)] if line >= height - len(head) else "" for head in heads]
            yield self._line(cells, columns, widths, "bold", gap)
        yield (rule := Text("─" * min(width, sum(widths) + gap * (len(widths) - 1))))
        for row in self.rows:
            if row is None:
                yield rule
                continue
            cells, style = [row[0][i] for i in columns], row[1]
            if cell_len(cells[0]) > widths[0]:
                yield Text(cells[0], style=style, no_wrap=True, overflow="ignore")  # a terminal folds it if it must
                cells[0] = ""
            words = _fold(cells[-1], "", console, widths[-1]) if folds else []
            yield self._line([*cells[:-1], words[0].plain] if words else cells, columns, widths, style, gap)
            for more in words[1:]:
                yield self._line([*[""] * (len(cells) - 1), more.plain], columns, widths, style, gap)

    def _line(self, cells: Sequence[str], columns: list[int], widths: list[int], style: str, gap: int) -> Text:
        """One line of cells, without blanks at its end."""
        aligned = [
            cell + pad if i == 0 or self.columns[i] in self.left else pad + cell
            for i, cell, pad in (
                (i, cell, " " * (width - cell_len(cell))) for i, cell, width in zip(columns, cells, widths, strict=True)
            )
        ]
        return Text((" " * gap).join(aligned).rstrip(), style=style, no_wrap=True, overflow="ignore")


def _fold(text: str, style: str, console: Console, width: int) -> list[Text]:
    """The lines of a text that folds, without blanks at their ends."""
    lines = Text(text, style=style).wrap(console, width)
    for line in lines:
        line.rstrip()
    return list(lines)
