"""Cuts files into units of about equally many rows, and deals the units to parts."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from recd_dist.reader.direct_table import Piece, RawFile, Unit

Parts = list[tuple[Unit, ...]]
"""For each part its units."""

UNIT_ROWS = 8192
"""Rows of a unit, about: as many as a row group of a clustered table has."""

_MOST = 1.5  # of UNIT_ROWS: row groups are joined up to that many rows
_CUT = 2.0  # of UNIT_ROWS: larger row groups are cut


def cut_units(files: Sequence[RawFile], num_rows: int = UNIT_ROWS) -> Parts:
    """The rows of files in units: small row groups are joined, also of several files of one folder, large ones cut.

    Args:
        files: the files, in the order in which they are read.
        num_rows: about how many rows a unit has.

    Returns:
        For each part its units. The units of a row group that was cut are a part by themselves.
    """
    runs: Parts = []
    joined: list[Unit] = []
    waiting: list[Piece] = []

    def flush(also_units: bool) -> None:
        if waiting:
            joined.append(tuple(waiting))
            waiting.clear()
        if also_units and joined:
            runs.extend(tuple(units) for _, units in groupby(joined, lambda unit: unit[0].file))
            joined.clear()

    folder: tuple[str | None, ...] | None = None
    for number, file in enumerate(files):
        if (of_file := tuple(file.folders.values())) != folder:
            flush(also_units=True)
            folder = of_file
        for row_group, size in enumerate(file.row_groups):
            if size > _CUT * num_rows:
                flush(also_units=True)
                runs.append(tuple((piece,) for piece in _cut(number, row_group, size, num_rows)))
                continue
            if waiting and _size(waiting) + size > _MOST * num_rows:
                flush(also_units=False)
            if size:
                waiting.append(Piece(number, row_group, 0, size))
    flush(also_units=True)
    return runs


def sequences_of(parts: Sequence[tuple[Unit, ...]]) -> frozenset[int]:
    """The parts whose units lie in one row group."""
    places = [[(unit[-1].file, unit[-1].row_group) for unit in units] for units in parts]
    return frozenset(n for n, of_part in enumerate(places) if len(of_part) > 1 and len(set(of_part)) == 1)


def take_rows_between(parts: Iterable[tuple[Unit, ...]], start: int, end: int) -> Parts:
    """The rows [start, end) of all rows; units on the border are cut.

    Args:
        parts: for each part its units.
        start: the first row, counted over all parts.
        end: the row after the last one.
    """
    kept: Parts = []
    place = 0
    for units in parts:
        of_part = []
        for unit in units:
            pieces = []
            for piece in unit:
                size = piece.end - piece.start
                first, last = max(start - place, 0), min(end - place, size)
                if first < last:
                    pieces.append(Piece(piece.file, piece.row_group, piece.start + first, piece.start + last))
                place += size
            if pieces:
                of_part.append(tuple(pieces))
        if of_part:
            kept.append(tuple(of_part))
    return kept


def count_rows_of(parts: Iterable[tuple[Unit, ...]]) -> int:
    """All rows of some parts."""
    return sum(_size(unit) for units in parts for unit in units)


def _size(unit: Iterable[Piece]) -> int:
    return sum(piece.end - piece.start for piece in unit)


def _cut(file: int, row_group: int, size: int, num_rows: int) -> Iterator[Piece]:
    count = -(-size // num_rows)
    for number in range(count):
        yield Piece(file, row_group, number * size // count, (number + 1) * size // count)
