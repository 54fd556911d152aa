"""Columns of flat files as they stand there, a row for each sample, in the order of the files.

::

    files                          beside the scores
    visit 'a7' | city 'Oslo'       input_row 0 | visit 'a7' | city 'Oslo'      texts stay texts
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from recd_dist.errors import ConfigError, nearest
from recd_dist.reader.direct_table import DirectTable
from recd_dist.reader.order import TABLE, Shuffle, shuffle_windows
from recd_dist.reader.raw_rows import RawRows

INPUT_ROW = "input_row"
"""The number of a row in the input, from 0."""

_IN_ORDER = Shuffle(order=TABLE, window_size=1)


@dataclass(frozen=True)
class InputColumns:
    """Some raw columns of files, with the number of each row before them.

    Attributes:
        table: the files.
        names: the columns, ``input_row`` first.
    """

    table: DirectTable
    names: tuple[str, ...]

    @staticmethod
    def of(table: DirectTable, names: Sequence[str]) -> "InputColumns":
        """Chooses columns.

        Args:
            table: the files.
            names: raw columns.

        Raises:
            ConfigError: a name that the files do not have or that stands twice.
        """
        known = table.manifest.source["columns"]
        for number, name in enumerate(names):
            if name not in known:
                raise ConfigError(f"columns: {table.path} has no column '{name}'{nearest(name, known)}")
            if name in (INPUT_ROW, *names[:number]):
                raise ConfigError(f"columns: '{name}' stands there already; name it once")
        return InputColumns(table, (INPUT_ROW, *names))

    def read(self, start: int, end: int) -> Iterator[pa.Table]:
        """Reads samples by their place in the order of the files.

        Args:
            start: the first sample, counted from 0.
            end: the sample after the last one.

        Yields:
            The samples of a unit, as far as they lie in the interval; units in order.

        Raises:
            DataError: damaged or changed files.
        """
        rows = RawRows(self.table.raw_files, self.names[1:])
        for window in shuffle_windows(self.table.manifest, _IN_ORDER, epoch=0):
            first, last = max(start, window.start), min(end, window.end)
            if first < last:
                row_group = window.row_groups[0]
                read = rows.read(self.table.units[row_group.part][row_group.index]) if self.names[1:] else pa.table({})
                numbers = pa.array(np.arange(window.start, window.end))
                columns = {INPUT_ROW: numbers} | {name: read[name] for name in self.names[1:]}
                yield pa.table(columns).slice(first - window.start, last - first)
