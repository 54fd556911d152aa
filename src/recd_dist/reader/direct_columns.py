"""Columns of flat Parquet files, a row for each sample, in order of the files: what ``StoredColumns`` is of a table."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from recd_dist.errors import ConfigError, nearest
from recd_dist.reader.direct_files import DirectFiles
from recd_dist.reader.direct_table import DirectTable
from recd_dist.reader.open_files import AnyTable
from recd_dist.reader.order import TABLE, Shuffle, shuffle_windows
from recd_dist.reader.stored_columns import StoredColumns, in_64_bits
from recd_dist.table.schema import REQUEST_ID, SAMPLE_ID, SESSION_ID, TIMESTAMP

_IN_ORDER = Shuffle(order=TABLE, window_size=1)
_STANDS_IN = {SESSION_ID: SAMPLE_ID, REQUEST_ID: SESSION_ID, TIMESTAMP: SAMPLE_ID}
"""What stands for a key that the source does not name."""


@dataclass(frozen=True)
class DirectColumns:
    """Some columns of the samples of flat files: keys, labels, features and weights, as a table would have them.

    Attributes:
        files: the files.
        names: the columns.
    """

    files: DirectFiles
    names: tuple[str, ...]

    @staticmethod
    def of(table: DirectTable, names: Sequence[str]) -> "DirectColumns":
        """Chooses columns.

        Args:
            table: one split.
            names: keys, labels, features and columns of weights.

        Raises:
            ConfigError: a name that the files do not have or that stands twice.
        """
        known = {SAMPLE_ID, *_STANDS_IN, *table.conversions}
        for number, name in enumerate(names):
            if name not in known:
                raise ConfigError(f"columns: {table.path} has no column '{name}' that is read{nearest(name, known)}")
            if name in names[:number]:
                raise ConfigError(f"columns: '{name}' stands there already; name it once")
        return DirectColumns(DirectFiles(table, columns=names), tuple(names))

    def read(self, start: int, end: int) -> Iterator[pa.Table]:
        """Reads samples by their place in the order of the files.

        Args:
            start: the first sample, counted from 0.
            end: the sample after the last one.

        Yields:
            The samples of a unit, as far as they lie in the interval; units in order. Integers have 64 bits.

        Raises:
            DataError: damaged or changed files.
        """
        for window in shuffle_windows(self.files.table.manifest, _IN_ORDER, epoch=0):
            first, last = max(start, window.start), min(end, window.end)
            if first < last:
                rows, _ = self.files.read_normalised(window.row_groups[0])
                rows = rows.append_column(SAMPLE_ID, pa.array(self.files.sample_ids(window.row_groups[0])))
                for name, other in _STANDS_IN.items():
                    if name not in rows.column_names:
                        rows = rows.append_column(name, rows[other])
                chosen = pa.table({name: in_64_bits(rows[name]) for name in self.names})
                yield chosen.slice(first - window.start, last - first)


def open_columns(table: AnyTable, names: Sequence[str]) -> StoredColumns | DirectColumns:
    """Chooses columns of a table, whichever kind of table it is.

    Args:
        table: one split.
        names: keys, labels, features and columns of weights.

    Raises:
        ConfigError: a name that the table does not have or that stands twice.
    """
    return DirectColumns.of(table, names) if isinstance(table, DirectTable) else StoredColumns.of(table, names)
