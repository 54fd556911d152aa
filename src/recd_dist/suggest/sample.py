"""A bounded sample of a source, however large its files are: whole sessions.

::

    pass 1   session and time of every row           how many there are, how many buckets of sessions fit
    pass 2   rows whose session's bucket < limit     whole sessions; too many bytes halve the limit on the way
    pass 3   the rows of a group with its own query  only those that the chosen samples refer to
    pass 4   pieces of the log in order of time      what is adjacent there is far apart in the sample

A sample of single rows would be useless: what repeats, repeats inside a session.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recd_dist.errors import DataError
from recd_dist.etl.raw import duckdb_sql as engine
from recd_dist.etl.source.inspection import REQUEST, SESSION, TIMESTAMP, Inspection, link_column
from recd_dist.suggest.choose_sessions import BUCKET, NUM_BUCKETS, ChosenSessions, KeyCounts
from recd_dist.suggest.linked_rows import BATCH_ROWS, add_linked_rows, find_rows, read_linked_rows

SAMPLES = 200_000
"""About how many samples are read. A source of up to half as many again is read whole."""

BYTES = 256 << 20
"""The most Arrow memory that the samples take, and that the rows of each group with its own query take."""

I64 = npt.NDArray[np.int64]

_LOG_SAMPLES = 24576
_LOG_BYTES = 64 << 20
_MIN_LOG_SAMPLES = 1024
_BUCKET_SQL = f"(hash({SESSION}) % {NUM_BUCKETS})::usmallint"


@dataclass(frozen=True)
class SessionSample:
    """Some sessions of a source, or all of them.

    Attributes:
        samples: the N samples of the normalised query, sorted by session, time and request, then as they came.
        linked_rows: for each group with its own query, the rows that the samples refer to.
        row_of: for each such group int64 [N], the row of each sample; -1 where there is none.
        time_rank: int64 [N], the position of each sample in order of time, then in the source.
        log: a few pieces of the source without gaps, in order of time; None if all samples are read.
        log_row_of: for each group with its own query int64 [samples of the log], the row of each of them.
        num_total: number of samples of the source.
        num_sessions_total: number of sessions of the source; beyond 65,536 an estimate within 1%.
        share: share of the source's samples that were read, from 0 to 1.
        num_keyless: number of rows without a session, which are left out.
        is_cut: whether one bucket of sessions was too large for memory, so that a session may be cut.
        has_session, has_time: whether the source names these keys.
    """

    samples: pa.Table
    linked_rows: dict[str, pa.Table]
    row_of: dict[str, I64]
    time_rank: I64
    log: pa.Table | None
    log_row_of: dict[str, I64]
    num_total: int
    num_sessions_total: int
    share: float
    num_keyless: int
    is_cut: bool
    has_session: bool
    has_time: bool

    @property
    def num_samples(self) -> int:
        """Number of samples that were read."""
        return int(self.samples.num_rows)


def read_sample(
    inspection: Inspection,
    connection: duckdb.DuckDBPyConnection,
    num_samples: int = SAMPLES,
    max_bytes: int = BYTES,
    report_rows: Callable[[int], None] = lambda _: None,
) -> SessionSample:
    """Reads whole sessions of a source.

    Args:
        inspection: the queries of the source.
        connection: an open DuckDB.
        num_samples: about how many samples to read.
        max_bytes: bytes of Arrow memory that the samples may take.
        report_rows: called with the number of rows in each batch that was read, for a progress bar.

    Raises:
        DataError: the source has no rows, or a query fails.
    """
    columns = engine.describe_query(connection, inspection.samples, "samples query")
    sql = _with_session(inspection.samples, SESSION in columns)
    keys = KeyCounts()
    for batch in _read_batches(connection, _key_query(sql, TIMESTAMP in columns), report_rows):
        keys.add(batch)
    if not keys.num_rows:
        raise DataError("the samples query returned no rows; check path and query")
    chosen = ChosenSessions(keys.bucket_limit(num_samples), max_bytes)
    for batch in _read_batches(connection, _session_query(sql, chosen.limit), report_rows):
        chosen.add(batch)
        if chosen.is_cut:
            break
    rows = {name: read_linked_rows(connection, query, name, chosen) for name, query in inspection.groups.items()}
    samples, time_rank = _sort_by_session(chosen.table())
    is_whole = samples.num_rows == keys.num_samples
    log = None
    if not is_whole and TIMESTAMP in columns:
        log = _read_log(connection, sql, keys, bytes_per_sample=samples.nbytes / samples.num_rows)
    log_row_of = {}
    if log is not None:
        for name, query in inspection.groups.items():
            rows[name] = add_linked_rows(connection, query, name, log, rows[name], _LOG_BYTES)
            log_row_of[name] = find_rows(log[link_column(name)], rows[name])
    return SessionSample(
        samples=samples.drop_columns([BUCKET]),
        linked_rows=rows,
        row_of={name: find_rows(samples[link_column(name)], table) for name, table in rows.items()},
        time_rank=time_rank,
        log=log,
        log_row_of=log_row_of,
        num_total=keys.num_samples,
        num_sessions_total=keys.sessions.stats().num_distinct,
        share=1.0 if is_whole else samples.num_rows / keys.num_samples,
        num_keyless=keys.num_keyless,
        is_cut=chosen.is_cut,
        has_session=SESSION in columns,
        has_time=TIMESTAMP in columns,
    )


def _with_session(sql: str, has_session: bool) -> str:
    """A query that has sessions: without that key every sample is a session of its own, as in the ETL."""
    return sql if has_session else f"select *, row_number() over () - 1 as {SESSION} from ({sql})"


def _key_query(sql: str, has_time: bool) -> str:
    time = TIMESTAMP if has_time else "0::bigint"
    return f"select {SESSION}, {_BUCKET_SQL} as {BUCKET}, {time} as {TIMESTAMP} from ({sql})"


def _session_query(sql: str, limit: int) -> str:
    """A query of the samples whose session falls into the first ``limit`` buckets."""
    condition = f"{SESSION} is not null" + ("" if limit == NUM_BUCKETS else f" and {_BUCKET_SQL} < {limit}")
    return f"select *, {_BUCKET_SQL} as {BUCKET} from ({sql}) where {condition}"


def _read_batches(
    connection: duckdb.DuckDBPyConnection, sql: str, report_rows: Callable[[int], None] = lambda _: None
) -> Iterator[pa.RecordBatch]:
    with engine.report_query_errors("samples query"):
        for batch in connection.sql(sql).to_arrow_reader(BATCH_ROWS):
            report_rows(batch.num_rows)
            yield batch


def _sort_by_session(table: pa.Table) -> tuple[pa.Table, I64]:
    """Sorts samples by session, time and request, then as they came; returns each one's position in time, too."""
    arrival = np.arange(table.num_rows, dtype=np.int64)
    session = table[SESSION].to_numpy()
    time = table[TIMESTAMP].fill_null(0).to_numpy() if TIMESTAMP in table.column_names else np.zeros_like(session)
    request = table[REQUEST].fill_null(0).to_numpy() if REQUEST in table.column_names else session
    order = np.lexsort((arrival, request, time, session))
    by_time = np.lexsort((arrival[order], time[order]))
    time_rank = np.empty(len(order), np.int64)
    time_rank[by_time] = np.arange(len(order))
    indices = pa.array(order)
    # Column by column: only one of them is in memory twice.
    names, columns = table.column_names, []
    for name in names:
        columns.append(table[name].combine_chunks().take(indices))
        table = table.drop_columns([name])
    return pa.Table.from_arrays(columns, names=names), time_rank


def _read_log(
    connection: duckdb.DuckDBPyConnection, sql: str, keys: KeyCounts, bytes_per_sample: float
) -> pa.Table | None:
    """Reads a few pieces of the log, each without gaps, in order of time; None where they have too few samples."""
    spans = keys.time_spans(int(min(_LOG_SAMPLES, _LOG_BYTES / bytes_per_sample)))
    is_inside = " or ".join(f"{TIMESTAMP} between {first} and {last}" for first, last in spans)
    batches, num_bytes = [], 0
    for batch in _read_batches(connection, f"select * from ({sql}) where ({is_inside}) and {SESSION} is not null"):
        batches.append(batch)
        num_bytes += batch.nbytes
        if num_bytes > 2 * _LOG_BYTES:  # many samples have the same time
            break
    table = pa.Table.from_batches(batches) if batches else None
    if table is None or table.num_rows < _MIN_LOG_SAMPLES:
        return None
    return table.take(pa.array(np.argsort(table[TIMESTAMP].to_numpy(), kind="stable")))
