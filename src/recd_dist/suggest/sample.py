"""A bounded sample of a source: whole sessions, chosen by hash, however large the files are.

::

    pass 1   session and time of every row           how many there are, how many buckets of sessions fit
    pass 2   rows whose session's bucket < limit     whole sessions; too many bytes halve the limit on the way
    pass 3   the rows of a group with its own query  only those that the chosen samples refer to
    pass 4   pieces of the log in order of time       what lies side by side there lies far apart in the sample

A sample of single rows would be useless: what repeats, repeats inside a session.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recd_dist.errors import DataError
from recd_dist.etl.source import duckdb_sql as engine
from recd_dist.etl.source.inspection import REQUEST, ROW_KEY, SESSION, TIMESTAMP, Inspection, link_column
from recd_dist.etl.write.measure import Distinct

SAMPLES = 200_000
"""Samples looked at, about; half as many again are taken if that is the whole source."""

BYTES = 256 << 20
"""The most Arrow memory of the sample, and of the rows of groups with their own query."""

I64 = npt.NDArray[np.int64]

_BUCKETS = 1 << 16
_BUCKET = "__bucket"
_BATCH_ROWS = 8192
_SLICE = 24576
_SPANS = (0.1, 0.3, 0.5, 0.7, 0.9)
_SLICE_BYTES = 64 << 20
_WHOLE = 1.5
_TIMES = 1 << 16


@dataclass(frozen=True)
class Sampled:
    """Sessions of a source.

    Attributes:
        samples: normalised samples query, [N] in clustered order: session, time, request, as they came.
        rows: per group with its own query, the rows that the samples refer to.
        place: per such group, int64 [N]: row of each sample, -1 where there is none.
        order: int64 [N], the samples' place in time, and in the source where times are equal.
        log: samples that are neighbours in time in the source, of a few spans of time; None if all samples are read.
        log_place: ``place`` for ``log``.
        num_total: samples of the source.
        num_sessions_total: sessions of the source (beyond 65,536 an estimate within 1%).
        share: of the sessions that were chosen, 0..1.
        num_keyless: rows without a session, left out.
        is_cut: one bucket of sessions was too large for memory, so that a session may be cut.
        has_session, has_time: the source names these keys.
    """

    samples: pa.Table
    rows: dict[str, pa.Table]
    place: dict[str, I64]
    order: I64
    log: pa.Table | None
    log_place: dict[str, I64]
    num_total: int
    num_sessions_total: int
    share: float
    num_keyless: int
    is_cut: bool
    has_session: bool
    has_time: bool

    @property
    def num_samples(self) -> int:
        """Samples looked at."""
        return int(self.samples.num_rows)


def sampled(
    found: Inspection,
    connection: duckdb.DuckDBPyConnection,
    num_samples: int = SAMPLES,
    max_bytes: int = BYTES,
    seen_rows: Callable[[int], None] = lambda _: None,
) -> Sampled:
    """Reads whole sessions of a source.

    Args:
        found: the source's queries.
        connection: an open DuckDB.
        num_samples: how many, about.
        max_bytes: of Arrow memory.
        seen_rows: called with the number of rows read, for a progress bar.

    Raises:
        DataError: no rows, or a query that fails.
    """
    schema = _names(connection, found.samples)
    base = _with_session(found.samples, SESSION in schema)
    keys = _Keys()
    for batch in _read(connection, _key_query(base, TIMESTAMP in schema)):
        keys.add(batch)
        seen_rows(batch.num_rows)
    if not keys.num_rows:
        raise DataError("the samples query returned no rows; check path and query")
    kept = _Kept(keys.limit(num_samples), max_bytes)
    hashed = f"(hash({SESSION}) % {_BUCKETS})::usmallint"
    condition = f"{SESSION} is not null" + ("" if kept.limit == _BUCKETS else f" and {hashed} < {kept.limit}")
    for batch in _read(connection, f"select *, {hashed} as {_BUCKET} from ({base}) where {condition}"):
        kept.add(batch)
        seen_rows(batch.num_rows)
        if kept.is_cut:
            break
    rows = {name: _rows(connection, sql, name, kept) for name, sql in found.groups.items()}
    samples, order = _clustered(kept.table())
    is_whole = samples.num_rows == keys.num_rows - keys.num_keyless
    log = (
        None if is_whole or TIMESTAMP not in schema else _log(connection, base, keys, samples.nbytes / samples.num_rows)
    )
    if log is not None:
        rows |= {name: _more_rows(connection, sql, name, log, rows[name]) for name, sql in found.groups.items()}
    return Sampled(
        samples=samples.drop_columns([_BUCKET]),
        rows=rows,
        place={name: _place(samples[link_column(name)], table) for name, table in rows.items()},
        order=order,
        log=log,
        log_place={} if log is None else {name: _place(log[link_column(name)], table) for name, table in rows.items()},
        num_total=keys.num_rows - keys.num_keyless,
        num_sessions_total=keys.sessions.stats().num_distinct,
        share=1.0 if is_whole else samples.num_rows / (keys.num_rows - keys.num_keyless),
        num_keyless=keys.num_keyless,
        is_cut=kept.is_cut,
        has_session=SESSION in schema,
        has_time=TIMESTAMP in schema,
    )


def _names(connection: duckdb.DuckDBPyConnection, sql: str) -> set[str]:
    return set(engine.describe_query(connection, sql, "samples query"))


def _with_session(sql: str, has_session: bool) -> str:
    """Without a session, every sample is one: the same as the ETL's reading."""
    return sql if has_session else f"select *, row_number() over () - 1 as {SESSION} from ({sql})"


def _key_query(base: str, has_time: bool) -> str:
    time = TIMESTAMP if has_time else "0::bigint"
    bucket = f"(hash({SESSION}) % {_BUCKETS})::usmallint"
    return f"select {SESSION}, {bucket} as {_BUCKET}, {time} as {TIMESTAMP} from ({base})"


def _read(connection: duckdb.DuckDBPyConnection, sql: str) -> Iterator[pa.RecordBatch]:
    try:
        yield from connection.sql(sql).to_arrow_reader(_BATCH_ROWS)
    except (duckdb.Error, pa.ArrowInvalid) as error:
        raise DataError(f"samples query: {engine.short_message(error)}") from error


@dataclass
class _Keys:
    """What the keys of all rows say, in bounded memory."""

    num_rows: int = 0
    num_keyless: int = 0
    buckets: I64 = field(default_factory=lambda: np.zeros(_BUCKETS, np.int64))
    sessions: Distinct = field(default_factory=Distinct)
    times: list[I64] = field(default_factory=list)
    step: int = 1

    def add(self, batch: pa.RecordBatch) -> None:
        self.num_rows += batch.num_rows
        self.num_keyless += batch.column(SESSION).null_count
        if batch.column(SESSION).null_count:
            batch = batch.filter(batch.column(SESSION).is_valid())
        self.buckets += np.bincount(batch.column(_BUCKET).to_numpy(), minlength=_BUCKETS)
        self.sessions.add(batch.column(SESSION).to_numpy())
        self.times.append(batch.column(TIMESTAMP).drop_null().to_numpy()[:: self.step])
        if sum(map(len, self.times)) > 2 * _TIMES:
            self.times = [np.concatenate(self.times)[::2]]
            self.step *= 2

    def limit(self, num_samples: int) -> int:
        """Buckets of sessions that together have about so many samples."""
        if self.num_rows <= _WHOLE * num_samples:
            return _BUCKETS
        return max(1, int(np.searchsorted(np.cumsum(self.buckets), num_samples, side="right")))

    def spans(self, num_samples: int) -> list[tuple[int, int]]:
        """Spans of time, from early to late, that together hold about so many samples."""
        times = np.sort(np.concatenate(self.times))
        share = min(1.0, num_samples / max(self.num_rows, 1)) / len(_SPANS)
        around = [(max(0.0, middle - share / 2), min(1.0, middle + share / 2)) for middle in _SPANS]
        return [(int(low), int(high)) for low, high in np.quantile(times, around, method="nearest")]


class _Kept:
    """Samples of the chosen buckets; half of the buckets go when they are too large."""

    def __init__(self, limit: int, max_bytes: int) -> None:
        self.limit = limit
        self.max_bytes = max_bytes
        self.batches: list[pa.RecordBatch] = []
        self.is_cut = False
        self._num_bytes = 0

    def add(self, batch: pa.RecordBatch) -> None:
        batch = self._chosen(batch)
        if batch.num_rows:
            self.batches.append(batch)
            self._num_bytes += batch.nbytes
        while self._num_bytes > self.max_bytes and not self.is_cut:
            self.halve()

    def halve(self) -> None:
        """Keeps the sessions of half of the buckets."""
        if self.limit <= 1:
            self.is_cut = True
            return
        self.limit //= 2
        chosen = (self._chosen(batch) for batch in self.batches)
        self.batches = [batch for batch in chosen if batch.num_rows] or self.batches[:1]
        self._num_bytes = sum(batch.nbytes for batch in self.batches)

    def table(self) -> pa.Table:
        return pa.Table.from_batches(self.batches)

    def _chosen(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        mask = batch.column(_BUCKET).to_numpy() < self.limit
        return batch if mask.all() else batch.filter(pa.array(mask))


def _rows(connection: duckdb.DuckDBPyConnection, sql: str, name: str, kept: _Kept) -> pa.Table:
    """Rows of a group's own query that the kept samples refer to; samples go until they fit."""
    while True:
        wanted = pa.table({"key": kept.table()[link_column(name)].unique()})
        rows = _wanted(connection, sql, wanted, kept.max_bytes)
        if rows is not None:
            return _one_per_key(rows, name)
        before = kept.limit
        kept.halve()
        if kept.limit == before:
            raise DataError(
                f"group '{name}': its rows need more than {kept.max_bytes >> 20} MiB; give a smaller --sample"
            )


def _more_rows(connection: duckdb.DuckDBPyConnection, sql: str, name: str, log: pa.Table, rows: pa.Table) -> pa.Table:
    """Rows of a group, and those that the piece of the log refers to, as far as they fit."""
    found = _wanted(connection, sql, pa.table({"key": log[link_column(name)].unique()}), _SLICE_BYTES)
    if found is None:
        return rows
    new = found.filter(pa.array(~np.isin(found[ROW_KEY].to_numpy(), rows[ROW_KEY].to_numpy())))
    return pa.concat_tables([rows, new])


def _wanted(connection: duckdb.DuckDBPyConnection, sql: str, keys: pa.Table, max_bytes: int) -> pa.Table | None:
    connection.register("__wanted", keys)
    try:
        query = connection.sql(f"select * from ({sql}) where {ROW_KEY} in (select key from __wanted)")
        reader = query.to_arrow_reader(_BATCH_ROWS)
        batches, num_bytes = [], 0
        for batch in reader:
            batches.append(batch)
            num_bytes += batch.nbytes
            if num_bytes > max_bytes:
                return None
        return pa.Table.from_batches(batches, reader.schema)
    except (duckdb.Error, pa.ArrowInvalid) as error:
        raise DataError(f"query of a group: {engine.short_message(error)}") from error
    finally:
        connection.unregister("__wanted")


def _one_per_key(rows: pa.Table, name: str) -> pa.Table:
    keys = np.sort(rows[ROW_KEY].to_numpy())
    repeated = np.flatnonzero(keys[1:] == keys[:-1])
    if len(repeated):
        raise DataError(
            f"query of group '{name}': {len(repeated)} keys come with more than one row (the first is "
            f"{keys[repeated[0]]}, perhaps hashed); return one row per key, with group by or distinct"
        )
    return rows


def _place(keys: pa.ChunkedArray, rows: pa.Table) -> I64:
    """Row of each key, int64 [N]; -1 where there is none."""
    if not rows.num_rows:
        return np.full(len(keys), -1, np.int64)
    wanted = keys.fill_null(0).to_numpy()
    known = rows[ROW_KEY].to_numpy()
    by_key = np.argsort(known, kind="stable")
    place = np.minimum(np.searchsorted(known[by_key], wanted), len(known) - 1)
    found = (known[by_key][place] == wanted) & keys.is_valid().to_numpy().astype(bool)
    return np.where(found, by_key[place], -1).astype(np.int64)


def _clustered(table: pa.Table) -> tuple[pa.Table, I64]:
    """Samples by session, time, request and as they came, and the place of each in time."""
    arrived = np.arange(table.num_rows, dtype=np.int64)
    session = table[SESSION].to_numpy()
    time = table[TIMESTAMP].fill_null(0).to_numpy() if TIMESTAMP in table.column_names else np.zeros_like(session)
    request = table[REQUEST].fill_null(0).to_numpy() if REQUEST in table.column_names else session
    order = np.lexsort((arrived, request, time, session))
    by_time = np.lexsort((arrived[order], time[order]))
    rank = np.empty(len(order), np.int64)
    rank[by_time] = np.arange(len(order))
    taken = pa.array(order)
    # Column by column: only one of them is in memory twice.
    names, columns = table.column_names, []
    for name in names:
        columns.append(table[name].combine_chunks().take(taken))
        table = table.drop_columns([name])
    return pa.Table.from_arrays(columns, names=names), rank


def _log(connection: duckdb.DuckDBPyConnection, base: str, keys: _Keys, width: float) -> pa.Table | None:
    """A few pieces of the log, each without gaps, in order of time."""
    spans = keys.spans(int(min(_SLICE, _SLICE_BYTES / width)))
    within = " or ".join(f"{TIMESTAMP} between {low} and {high}" for low, high in spans)
    query = f"select * from ({base}) where ({within}) and {SESSION} is not null"
    batches, num_bytes = [], 0
    for batch in _read(connection, query):
        batches.append(batch)
        num_bytes += batch.nbytes
        if num_bytes > 2 * _SLICE_BYTES:  # many samples of one time
            break
    table = pa.Table.from_batches(batches) if batches else None
    if table is None or table.num_rows < 1024:
        return None
    return table.take(pa.array(np.argsort(table[TIMESTAMP].to_numpy(), kind="stable")))
