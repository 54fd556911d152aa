"""Reads columns of units of flat files by our own loops, where they are numbers and lists of numbers without gaps.

What comes back is right or is not there: whatever these loops do not know, and whatever is missing or damaged, is left
to ``raw_rows``, which reads it by pyarrow and says what is wrong.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from recd_dist.reader.chunks.flat_chunks import FlatFile, FlatRows, Space
from recd_dist.reader.direct_table import Piece, Unit
from recd_dist.reader.raw_rows import RawRows
from recd_dist.reader.stages import measure
from recd_dist.table.column import Column


class ChunkedUnits:
    """Columns of units, as far as they are decoded without pyarrow.

    Args:
        rows: the files.
        names: the raw columns that are wanted.
    """

    def __init__(self, rows: RawRows, names: Sequence[str]) -> None:
        self._rows, self._names = rows, names
        self._files: dict[int, FlatFile | None] = {}
        self._failed: dict[int, set[str]] = {}
        self._spaces: dict[str, Space] = {}
        self._cursor: tuple[tuple[int, int], FlatRows] | None = None
        rows.on_close(self._close)

    def read(self, unit: Unit) -> Mapping[str, Column]:
        """Reads a unit.

        Returns:
            The columns that could be decoded: views that the next call makes invalid; offsets need not begin at 0.

        Raises:
            DataError: a file is gone or was changed.
        """
        if len(unit) == 1:
            return self._read_piece(unit[0])
        parts: list[Mapping[str, Column]] = []
        for piece in unit:
            found = self._read_piece(piece)
            if not found:
                return {}
            parts.append({name: _copy(column) for name, column in found.items()})
        return {name: _join([part[name] for part in parts]) for name in parts[0] if all(name in p for p in parts)}

    def _read_piece(self, piece: Piece) -> Mapping[str, Column]:
        key = (piece.file, piece.row_group)
        try:
            if self._cursor is None or self._cursor[0] != key or self._cursor[1].start > piece.start:
                self._cursor = None
                if (file := self._open(piece.file)) is None:
                    return {}
                names = [name for name in file.leaves if name not in self._failed.get(piece.file, ())]
                with measure("io"):
                    self._cursor = (key, FlatRows(file, piece.row_group, names, self._spaces))
            rows = self._cursor[1]
            with measure("decode"):
                found = rows.read(piece.start, piece.end)
        except (ValueError, OSError):  # pyarrow's errors are among them
            self._close(piece.file)
            self._files[piece.file] = None
            return {}
        if rows.failed:
            self._failed.setdefault(piece.file, set()).update(rows.failed)
        return found

    def _open(self, number: int) -> FlatFile | None:
        """Opens a file of this machine once."""
        opened = self._rows.open(number)
        if number not in self._files:
            path = self._rows.files[number].path
            self._files[number] = FlatFile(path, opened, self._names) if isinstance(path, Path) else None
        return self._files[number]

    def _close(self, number: int) -> None:
        """Closes a file."""
        if file := self._files.pop(number, None):
            file.close()
        if self._cursor is not None and self._cursor[0][0] == number:
            self._cursor = None


def _copy(column: Column) -> Column:
    """A column of its own memory, its offsets from 0."""
    if column.offsets is None:
        return Column(column.values.copy())
    start, end = int(column.offsets[0]), int(column.offsets[-1])
    return Column(column.values[start:end].copy(), column.offsets - np.int32(start))


def _join(parts: Sequence[Column]) -> Column:
    """Columns one after another; their offsets begin at 0."""
    values = np.concatenate([part.values for part in parts])
    if parts[0].offsets is None:
        return Column(values)
    lengths = np.concatenate([np.diff(part.offsets) for part in parts if part.offsets is not None])
    return Column(values, np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]))
