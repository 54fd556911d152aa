"""The rows of a group that has its own query: they lie on disk and are found by key.

A user's history of 1,000 ids is stored once here, however many samples carry it. Samples get the row's number, and the
history itself is read only when a row group of the table is written: it is never repeated for each sample.
"""

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recd_dist.errors import DataError
from recd_dist.etl.raw.duckdb_memory import retry_with_fewer_threads
from recd_dist.etl.raw.duckdb_sql import report_query_errors
from recd_dist.etl.source.inspection import ROW_KEY

logger = logging.getLogger(__name__)

_BATCH_ROWS = 8192


class Lookup:
    """The rows of one group in a memory-mapped Arrow file, which are found by an int64 key.

    Args:
        group: the name of the group, for messages.
        path: the Arrow file.
        keys: int64 [rows], the key of each row.
        starts: int64 [record batches], the first row of each record batch.

    Raises:
        DataError: two rows have the same key.
    """

    def __init__(self, group: str, path: Path, keys: npt.NDArray[np.int64], starts: npt.NDArray[np.int64]) -> None:
        self.group = group
        self._by_key = np.argsort(keys, kind="stable")
        self._sorted = keys[self._by_key]
        repeated = np.flatnonzero(self._sorted[1:] == self._sorted[:-1])
        if len(repeated):
            raise DataError(
                f"query of group '{group}': {len(repeated)} keys come with more than one row (the first is "
                f"{self._sorted[repeated[0]]}, perhaps hashed); return one row per key, with group by or distinct"
            )
        self._starts = starts
        self._reader = pa.ipc.open_file(pa.memory_map(str(path)))
        self.columns = [name for name in self._reader.schema.names if name != ROW_KEY]

    @staticmethod
    def of_query(group: str, connection: duckdb.DuckDBPyConnection, sql: str, path: Path) -> "Lookup":
        """Runs a group's query and writes its rows to a file.

        Args:
            group: the name of the group, for messages.
            connection: an open DuckDB.
            sql: the normalised group query, which returns ``__key`` and the features.
            path: the file to write.

        Raises:
            DataError: the query fails, or two of its rows have the same key.
        """

        def read() -> Lookup:
            with report_query_errors(f"query of group '{group}'"):
                batches = connection.sql(sql).to_arrow_reader(_BATCH_ROWS)
                return Lookup.of_batches(group, batches, batches.schema, path)

        return retry_with_fewer_threads(connection, read)

    @staticmethod
    def of_batches(group: str, batches: Iterable[pa.RecordBatch], schema: pa.Schema, path: Path) -> "Lookup":
        """Writes the rows that have a key to a file, whole or not at all.

        Args:
            group: the name of the group, for messages.
            batches: the rows, with ``__key`` and the features.
            schema: the schema of the batches.
            path: the file to write.

        Raises:
            DataError: two rows have the same key.
        """
        keys, starts, num_rows, num_keyless = [], [], 0, 0
        partial = path.with_suffix(".partial")
        with pa.ipc.new_file(str(partial), schema) as file:
            for batch in batches:
                has_key = batch.column(ROW_KEY).is_valid()
                keyed = batch.filter(has_key) if batch.column(ROW_KEY).null_count else batch
                num_keyless += batch.num_rows - keyed.num_rows
                if keyed.num_rows:
                    file.write_batch(keyed)
                    keys.append(keyed.column(ROW_KEY).to_numpy())
                    starts.append(num_rows)
                    num_rows += keyed.num_rows
        partial.rename(path)
        if num_keyless:
            logger.warning("query of group '%s': skipped %d rows without a key", group, num_keyless)
        return Lookup(group, path, _concatenate(keys), np.asarray(starts, np.int64))

    @staticmethod
    def of_file(group: str, path: Path) -> "Lookup":
        """Opens the file that an earlier run wrote."""
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        keys = [reader.get_batch(i).column(ROW_KEY).to_numpy() for i in range(reader.num_record_batches)]
        lengths = np.array([len(keys_of_batch) for keys_of_batch in keys], np.int64)
        return Lookup(group, path, _concatenate(keys), np.cumsum(lengths) - lengths)

    def __len__(self) -> int:
        return len(self._sorted)

    def find(self, keys: pa.Array) -> npt.NDArray[np.int64]:
        """Finds the row of each key.

        Args:
            keys: int64 [N], may hold nulls.

        Returns:
            int64 [N], row numbers; -1 where no row has the key.
        """
        if not len(self._sorted):
            return np.full(len(keys), -1, np.int64)
        wanted = keys.fill_null(0).to_numpy(zero_copy_only=False)
        place = np.minimum(np.searchsorted(self._sorted, wanted), len(self._sorted) - 1)
        has_row = self._sorted[place] == wanted
        if keys.null_count:
            has_row &= keys.is_valid().to_numpy(zero_copy_only=False)
        return np.where(has_row, self._by_key[place], -1)

    def take(self, rows: npt.NDArray[np.int64]) -> pa.Table:
        """Reads the features of some rows.

        Args:
            rows: int64 [U], row numbers; -1 gives a row of nulls.

        Returns:
            A table of U rows.
        """
        distinct, place = np.unique(rows[rows >= 0], return_inverse=True)
        batch_of = np.searchsorted(self._starts, distinct, side="right") - 1
        tables = []
        for number in np.unique(batch_of):
            batch = self._reader.get_batch(int(number)).select(self.columns)
            tables.append(batch.take(pa.array(distinct[batch_of == number] - self._starts[number])))
        schema = pa.schema([self._reader.schema.field(name) for name in self.columns])
        table = pa.Table.from_batches(tables, schema).combine_chunks()
        indices = np.zeros(len(rows), np.int64)
        indices[rows >= 0] = place
        return table.take(pa.array(indices, mask=rows < 0))

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The group's features in record batches, for a look at every value."""
        for number in range(self._reader.num_record_batches):
            yield self._reader.get_batch(number).select(self.columns)


def _concatenate(keys: list[npt.NDArray[np.int64]]) -> npt.NDArray[np.int64]:
    return (np.concatenate(keys) if keys else np.empty(0, np.int64)).astype(np.int64, copy=False)
