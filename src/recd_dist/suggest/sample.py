"""A bounded sample of a source, however large its files are: whole sessions.

::

    pass 1   session and time of every row           how many there are, which blocks of sessions fit
    pass 2   rows of the chosen sessions             whole sessions; too many bytes halve the blocks on the way
    pass 3   the rows of a group with its own query  only those that the chosen samples refer to
    pass 4   pieces of the log in order of time      what is adjacent there is far apart in the sample

A sample of single rows would be useless: what repeats, repeats inside a session.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recd_dist.etl.etl_run import Options
from recd_dist.etl.raw import duckdb_sql as engine
from recd_dist.etl.source.inspection import SESSION, TIMESTAMP, Inspection, link_column
from recd_dist.etl.source.source import Source
from recd_dist.suggest.choose_sessions import KeyCounts, take_usable
from recd_dist.suggest.dealing import Dealing
from recd_dist.suggest.linked_rows import BATCH_ROWS, add_linked_rows, find_rows, read_linked_rows
from recd_dist.suggest.table_order import OrderRules, TableOrder
from recd_dist.table.flat_columns import flag_number_changes
from recd_dist.table.schema import Schema

SAMPLES = 200_000
"""About how many samples are read. A source of up to half as many again is read whole."""

BYTES = 256 << 20
"""The most Arrow memory that the samples take, and that the rows of each group with its own query take."""

I64 = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

_LOG_SAMPLES = 24576
_LOG_BYTES = 64 << 20
_MIN_LOG_SAMPLES = 1024
_KEY_BYTES = 12  # of the hash and the size that the ETL adds to each sample
_KEY = "__key"  # the session key as the source has it: a user, where sessions end with a gap


@dataclass(frozen=True)
class SessionSample:
    """Some sessions of a source, or all of them.

    Attributes:
        rules: what the order of the table depends on.
        samples: the N samples of the normalised query, in the order of the table.
        bounds: int64 [row groups + 1], where row groups begin and end.
        spans: int64 [blocks, 2], the first and last session key of each block of sessions that was read.
        has_ties: whether some order was decided by the hash of the content, which depends on the groups.
        num_train: number of samples of the train split, which come first.
        linked_rows: for each group with its own query, the rows that the samples refer to.
        row_of: for each such group int64 [N], the row of each sample; -1 where there is none.
        time_rank: int64 [N], the position of each sample in order of time, then in the source.
        log: a few pieces of the source without gaps, in order of time; None if all samples are read.
        log_row_of: for each group with its own query int64 [samples of the log], the row of each of them.
        num_total: number of samples of the table; an estimate where duplicates are left out and not all were read.
        num_sessions_total: number of sessions; an estimate beyond 65,536, or where gaps tell sessions apart.
        share: share of the source's samples that were read, from 0 to 1.
        num_keyless: number of rows without a session, which are left out.
        is_cut: whether one session alone was too large for memory, so that it may be cut.
    """

    rules: OrderRules
    samples: pa.Table
    bounds: I64
    spans: I64
    has_ties: bool
    num_train: int
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

    @property
    def num_samples(self) -> int:
        """Number of samples that were read."""
        return int(self.samples.num_rows)

    def key_starts(self) -> tuple[Flags, Flags]:
        """Where session keys begin, and where blocks of them begin whose neighbours were not read: bool [N] each."""
        key = self.samples[_KEY].to_numpy()
        new_key = flag_number_changes(key)
        if self.rules.share == 1 or not self.rules.has_session:
            return new_key, np.zeros(len(key), np.bool_)
        return new_key, flag_number_changes(np.searchsorted(self.spans[:, 0], key, "right"))

    def rearranged(self, schema: Schema) -> "SessionSample":
        """The same samples in the order of a table with other groups.

        Args:
            schema: the schema with these groups.
        """
        if not self.has_ties:
            return self
        place = self.samples.column_names.index(SESSION)
        raw = self.samples.set_column(place, SESSION, self.samples[_KEY])
        order = self.rules.order(raw, schema)
        rows = pa.array(order.rows)
        return replace(
            self,
            samples=_take(self.samples, rows).set_column(place, SESSION, pa.array(order.session)),
            bounds=order.bounds,
            num_train=order.num_train,
            row_of={name: row_of[order.rows] for name, row_of in self.row_of.items()},
            time_rank=self.time_rank[order.rows],
        )


def read_sample(
    source: Source,
    inspection: Inspection,
    connection: duckdb.DuckDBPyConnection,
    num_samples: int = SAMPLES,
    max_bytes: int = BYTES,
    options: Options | None = None,
    report_rows: Callable[[int], None] = lambda _: None,
) -> SessionSample:
    """Reads whole sessions of a source.

    Args:
        source: says what sessions, duplicates and splits are.
        inspection: the queries of the source.
        connection: an open DuckDB.
        num_samples: about how many samples to read.
        max_bytes: bytes of Arrow memory that the samples may take.
        options: the options of the ETL; None takes its defaults.
        report_rows: called with the number of rows in each batch that was read, for a progress bar.

    Raises:
        DataError: the source has no rows, or a query fails.
    """
    columns = engine.describe_query(connection, inspection.samples, "samples query")
    has_session, has_time = SESSION in columns, TIMESTAMP in columns
    sql, options = _usable_rows(source, inspection, has_session), options or Options()
    keys = KeyCounts(source.sample if source.gap_us is None and has_session else 1.0)
    keys.count(_read_batches(connection, _key_query(sql, has_time), report_rows))
    dealing = _estimate_dealing(connection, sql, keys, options)
    chosen = keys.choose(num_samples, max_bytes, dealing)
    chosen.read(_read_batches(connection, f"select * from ({sql}) where {chosen.condition()}", report_rows))
    rows = {name: read_linked_rows(connection, query, name, chosen) for name, query in inspection.groups.items()}
    rules = OrderRules(source, options, tuple(inspection.groups), dealing, has_session, has_time, chosen.share)
    read = chosen.table()
    share = read.num_rows / keys.num_rows
    samples, order, time_rank = _sort_as_table(read, rules, inspection.schema)
    log = _read_log(connection, sql, keys, samples.nbytes / samples.num_rows) if share < 1 and has_time else None
    for name, query in inspection.groups.items() if log is not None else ():
        rows[name] = add_linked_rows(connection, query, name, log, rows[name], _LOG_BYTES)
    num_sessions = int((np.diff(samples[SESSION].to_numpy()) != 0).sum()) + 1
    return SessionSample(
        rules=rules,
        samples=samples,
        bounds=order.bounds,
        spans=chosen.spans,
        has_ties=order.has_ties,
        num_train=order.num_train,
        linked_rows=rows,
        row_of={name: find_rows(samples[link_column(name)], table) for name, table in rows.items()},
        time_rank=time_rank,
        log=log,
        log_row_of={} if log is None else {n: find_rows(log[link_column(n)], table) for n, table in rows.items()},
        num_total=round(samples.num_rows / share),
        num_sessions_total=keys.num_sessions if source.gap_us is None else round(num_sessions / share),
        share=share,
        num_keyless=keys.num_keyless,
        is_cut=chosen.is_cut,
    )


def _estimate_dealing(connection: duckdb.DuckDBPyConnection, sql: str, keys: KeyCounts, options: Options) -> Dealing:
    """How the ETL would deal the sessions, judged by the keys of all samples and the size of the first ones."""
    first = pa.Table.from_batches(list(_read_batches(connection, f"select * from ({sql}) limit {BATCH_ROWS}")))
    sample_bytes = first.nbytes / max(first.num_rows, 1) + _KEY_BYTES
    return Dealing.estimate(keys.keys, keys.counts, keys.num_rows, sample_bytes, options.budget.shard_bytes)


def _usable_rows(source: Source, inspection: Inspection, has_session: bool) -> str:
    """The samples query, with a session for each sample, without the samples whose time the policy leaves out."""
    policy, sql = source.policy, inspection.samples
    if inspection.timed and policy.time == "drop":
        sql = f"select * from ({sql}) where {TIMESTAMP} between {policy.earliest_us} and {policy.latest_us}"
    return sql if has_session else f"select *, row_number() over () - 1 as {SESSION} from ({sql})"


def _key_query(sql: str, has_time: bool) -> str:
    time = TIMESTAMP if has_time else "0::bigint"
    return f"select {SESSION}, {time} as {TIMESTAMP} from ({sql})"


def _read_batches(
    connection: duckdb.DuckDBPyConnection, sql: str, report_rows: Callable[[int], None] = lambda _: None
) -> Iterator[pa.RecordBatch]:
    with engine.report_query_errors("samples query"):
        for batch in connection.sql(sql).to_arrow_reader(BATCH_ROWS):
            report_rows(batch.num_rows)
            yield batch


def _sort_as_table(read: pa.Table, rules: OrderRules, schema: Schema) -> tuple[pa.Table, TableOrder, I64]:
    """Sorts samples as the table would be; returns the order and each one's position in time, too."""
    order = rules.order(read, schema)
    time = read[TIMESTAMP].fill_null(0).to_numpy()[order.rows] if rules.has_time else order.rows
    by_time = np.lexsort((order.rows, time))
    time_rank = np.empty(len(by_time), np.int64)
    time_rank[by_time] = np.arange(len(by_time))
    place = read.column_names.index(SESSION)
    samples = _take(read.append_column(_KEY, read[SESSION]), pa.array(order.rows))
    return samples.set_column(place, SESSION, pa.array(order.session)), order, time_rank


def _take(table: pa.Table, rows: pa.Array) -> pa.Table:
    """Some rows of a table, taken column by column: only one of them is in memory twice."""
    names, columns = table.column_names, []
    for name in names:
        columns.append(table[name].combine_chunks().take(rows))
        table = table.drop_columns([name])
    return pa.Table.from_arrays(columns, names=names)


def _read_log(
    connection: duckdb.DuckDBPyConnection, sql: str, keys: KeyCounts, bytes_per_sample: float
) -> pa.Table | None:
    """Reads a few pieces of the log, each without gaps, in order of time; None where they have too few samples."""
    spans = keys.time_spans(int(min(_LOG_SAMPLES, _LOG_BYTES / bytes_per_sample)))
    is_inside = " or ".join(f"{TIMESTAMP} between {first} and {last}" for first, last in spans)
    batches, num_bytes = [], 0
    for raw in _read_batches(connection, f"select * from ({sql}) where ({is_inside})"):
        batch = take_usable(raw, keys.sample)
        batches.append(batch)
        num_bytes += batch.nbytes
        if num_bytes > 2 * _LOG_BYTES:  # many samples have the same time
            break
    table = pa.Table.from_batches(batches) if batches else None
    if table is None or table.num_rows < _MIN_LOG_SAMPLES:
        return None
    return table.take(pa.array(np.argsort(table[TIMESTAMP].to_numpy(), kind="stable")))
