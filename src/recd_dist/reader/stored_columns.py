"""Columns of a table as they are stored, a row for each sample, in the table's order.

::

    samples/      sample_id  request_id  ...  user_row          4  5  6  7      samples
    user/                                     row, user_id      0  0  1  1      their rows of user
                                                                u7 u7 u9 u9     a column of the group user
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from recd_dist.errors import ConfigError, nearest
from recd_dist.reader.order import TABLE, RowGroup, Shuffle, shuffle_windows
from recd_dist.reader.table_files import TableFiles
from recd_dist.table.clustered import ClusteredTable
from recd_dist.table.manifest import ROW
from recd_dist.table.schema import KEYS, REQUEST_ID, SAMPLE, SESSION_ID, TIMESTAMP, Schema

_IN_ORDER = Shuffle(order=TABLE, window_size=1)


@dataclass(frozen=True)
class StoredColumns:
    """Some columns of a table's samples: keys, labels, features and weights.

    Attributes:
        files: the table.
        names: the columns; those of groups are read for each sample.
    """

    files: TableFiles
    names: tuple[str, ...]

    @staticmethod
    def of(table: ClusteredTable, names: Sequence[str]) -> "StoredColumns":
        """Chooses columns of a table.

        Args:
            table: one split, perhaps some of its partitions only.
            names: keys, labels, features and columns of weights.

        Raises:
            ConfigError: a name that the table does not have or that stands twice, or a feature that has windows.
        """
        schema = table.manifest.schema
        known = {*KEYS, *schema.labels, *_groups_of(schema)}
        for number, name in enumerate(names):
            if name not in known:
                raise ConfigError(
                    f"columns: the table {table.path} has no column '{name}'{_remedy(name, table, known)}"
                )
            if name in names[:number]:
                raise ConfigError(f"columns: '{name}' stands there already; name it once")
            if any(f.window and name in (f.name, f.weights) for f in schema.features):
                raise ConfigError(
                    f"columns: '{name}' is a history that is stored as windows over a stream; `recd sql` gives it back"
                )
        return StoredColumns(TableFiles(table), tuple(names))

    def read(self, start: int, end: int) -> Iterator[pa.Table]:
        """Reads samples by their place in the table's order.

        Args:
            start: the first sample, counted from 0.
            end: the sample after the last one.

        Yields:
            The samples of a row group, as far as they lie in the interval; row groups in order. Integers have 64 bits.

        Raises:
            DataError: damaged files.
        """
        for window in shuffle_windows(self.files.table.manifest, _IN_ORDER, epoch=0):
            first, last = max(start, window.start), min(end, window.end)
            if first < last:
                yield self._read_row_group(window.row_groups[0]).slice(first - window.start, last - first)

    def _read_row_group(self, row_group: RowGroup) -> pa.Table:
        """The columns of all samples of a row group."""
        part = self.files.table.manifest.parts[row_group.part]
        group_of = _groups_of(self.files.table.manifest.schema)
        groups = {g: [n for n in self.names if group_of.get(n, SAMPLE) == g] for g in set(group_of.values()) - {SAMPLE}}
        wanted = {group: names for group, names in groups.items() if names}
        own = [n for n in self.names if group_of.get(n, SAMPLE) == SAMPLE]
        samples, _ = self.files.read_columns(
            part.samples, row_group.index, [*own, *(f"{group}_{ROW}" for group in wanted)]
        )
        columns = {name: samples.column(name) for name in own}
        for group, names in wanted.items():
            rows, _ = self.files.read_columns(part.groups[group], row_group.index, [ROW, *names])
            first = rows.column(ROW)[0].as_py() if len(rows) else 0
            places = pc.subtract(samples.column(f"{group}_{ROW}"), first)
            columns |= {name: rows.column(name).take(places) for name in names}
        return pa.table({name: in_64_bits(columns[name]) for name in self.names})


def _remedy(name: str, table: ClusteredTable, known: Collection[str]) -> str:
    """What to do about a column that the table lacks: a key is read, but not kept under its name."""
    for key, column in table.manifest.source.get("keys", {}).items():
        if column == name:
            kept = {"session": SESSION_ID, "request": REQUEST_ID, "timestamp": TIMESTAMP}.get(key)
            there = f" (it is there as {kept})" if kept else ""
            return (
                f", as it is keys.{key}{there}; to keep it, make the table from a query with `{name} as {name}_copy`, "
                f"and train with data.drop=[{name}_copy]"
            )
    return nearest(name, known)


def in_64_bits(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column with 64-bit integers: one part of a table may store in 32 bits what another needs 64 for."""
    if pa.types.is_integer(column.type):
        return column.cast(pa.int64())
    if pa.types.is_list(column.type) and pa.types.is_integer(column.type.value_type):
        return column.cast(pa.list_(pa.int64()))
    return column


def _groups_of(schema: Schema) -> dict[str, str]:
    """For each feature and each column of weights the group in which it is stored."""
    return {name: f.group for f in schema.features for name in (f.name, f.weights) if name is not None}
