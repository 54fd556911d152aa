"""Rows of a group that has its own query: only those that the chosen samples refer to.

::

    samples   link to likes   7  7  3  -  3        rows of likes    key 3   key 7
              row_of          1  1  0 -1  0                         row 0   row 1
"""

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recd_dist.errors import DataError
from recd_dist.etl.raw import duckdb_sql as engine
from recd_dist.etl.source.inspection import ROW_KEY, link_column
from recd_dist.suggest.choose_sessions import ChosenSessions

BATCH_ROWS = 8192
"""Rows that DuckDB hands over at a time."""

I64 = npt.NDArray[np.int64]


def read_linked_rows(connection: duckdb.DuckDBPyConnection, sql: str, group: str, chosen: ChosenSessions) -> pa.Table:
    """Reads the rows that the chosen samples refer to; drops sessions until these rows fit in memory.

    Args:
        connection: an open DuckDB.
        sql: the normalised query of the group.
        group: the name of the group.
        chosen: the chosen samples. Rows and samples may each take ``chosen.max_bytes``.

    Raises:
        DataError: the query fails, a key has several rows, or the rows of a single session are too large.
    """
    while True:
        rows = _read_rows_of(connection, sql, group, chosen.table()[link_column(group)], chosen.max_bytes)
        if rows is not None:
            _require_one_per_key(rows, group)
            return rows
        chosen.halve()
        if chosen.is_cut:
            raise DataError(
                f"group '{group}': its rows need more than {chosen.max_bytes >> 20} MiB; give a smaller --sample"
            )


def add_linked_rows(
    connection: duckdb.DuckDBPyConnection, sql: str, group: str, samples: pa.Table, rows: pa.Table, max_bytes: int
) -> pa.Table:
    """Adds the rows that more samples refer to; adds none where they need too much memory.

    Args:
        connection: an open DuckDB.
        sql: the normalised query of the group.
        group: the name of the group.
        samples: the other samples.
        rows: rows that were read before; they come first in the result.
        max_bytes: bytes of Arrow memory that the rows of ``samples`` may take.
    """
    more = _read_rows_of(connection, sql, group, samples[link_column(group)], max_bytes)
    if more is None:
        return rows
    is_new = ~np.isin(more[ROW_KEY].to_numpy(), rows[ROW_KEY].to_numpy())
    return pa.concat_tables([rows, more.filter(pa.array(is_new))])


def find_rows(links: pa.ChunkedArray, rows: pa.Table) -> I64:
    """Finds the row of each sample.

    Args:
        links: int64 [N], the key of each sample's row, or null.
        rows: rows of the group with their keys, one row for each key.

    Returns:
        int64 [N], the number of the row; -1 where there is none.
    """
    if not rows.num_rows:
        return np.full(len(links), -1, np.int64)
    keys = links.fill_null(0).to_numpy()
    row_keys = rows[ROW_KEY].to_numpy()
    by_key = np.argsort(row_keys, kind="stable")
    nearest = np.minimum(np.searchsorted(row_keys[by_key], keys), len(row_keys) - 1)
    exists = (row_keys[by_key][nearest] == keys) & links.is_valid().to_numpy().astype(bool)
    return np.where(exists, by_key[nearest], -1).astype(np.int64)


def _read_rows_of(
    connection: duckdb.DuckDBPyConnection, sql: str, group: str, links: pa.ChunkedArray, max_bytes: int
) -> pa.Table | None:
    """Rows with the keys of some samples; None where they need more memory than they may."""
    connection.register("__wanted", pa.table({"key": links.unique()}))
    try:
        with engine.report_query_errors(f"query of group '{group}'"):
            query = connection.sql(f"select * from ({sql}) where {ROW_KEY} in (select key from __wanted)")
            batches, num_bytes = [], 0
            with query.to_arrow_reader(BATCH_ROWS) as reader:  # DuckDB unregisters nothing while a result is open
                for batch in reader:
                    batches.append(batch)
                    num_bytes += batch.nbytes
                    if num_bytes > max_bytes:
                        return None
                return pa.Table.from_batches(batches, reader.schema)
    finally:
        connection.unregister("__wanted")


def _require_one_per_key(rows: pa.Table, group: str) -> None:
    keys = np.sort(rows[ROW_KEY].to_numpy())
    repeated = np.flatnonzero(keys[1:] == keys[:-1])
    if len(repeated):
        raise DataError(
            f"query of group '{group}': {len(repeated)} keys come with more than one row (the first is "
            f"{keys[repeated[0]]}, perhaps hashed); return one row per key, with group by or distinct"
        )
