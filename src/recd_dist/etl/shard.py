"""Samples from the query's stream into shards by session, so that memory stays bounded.

::

    time order:   a1 b1 a2 c1 b2 ...      (a..c: sessions)
    shard 0:      a1 a2 ...               every sample of a session is in one shard
    shard 1:      b1 c1 b2 ...            a shard is sorted in memory

What fits in one buffer never touches the disk and is one shard. Every row is looked at once on its way: missing keys
and labels end the run here; ranges of ids and missing values decide the table's types.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from recd_dist.errors import DataError
from recd_dist.etl.columns import REQUEST, SESSION, TEST, TIMESTAMP, link
from recd_dist.etl.lookup import Lookup
from recd_dist.schema import Feature, Schema

ORDER = "__order"
"""Position of a sample in the query's result: the last tie-break."""

NUM_BUCKETS = 64
_MIX = np.uint64(0x9E3779B97F4A7C15)  # Fibonacci hashing: neighbouring session ids spread over the buckets


@dataclass
class Seen:
    """What a feature's raw values were.

    Attributes:
        min_id, max_id: over its ids (0 and -1 when there is none).
        num_missing: rows without a value.
    """

    min_id: int = 0
    max_id: int = -1
    num_missing: int = 0

    def look(self, column: pa.Array) -> None:
        """Takes a column into account: int64 [N] or lists of integers, with nulls."""
        self.num_missing += column.null_count
        ids = column.flatten() if pa.types.is_list(column.type) else column
        if not pa.types.is_integer(ids.type):
            return
        extent = pc.min_max(ids).as_py()
        if extent["min"] is not None:
            none_yet = self.max_id < self.min_id
            self.min_id = extent["min"] if none_yet else min(self.min_id, extent["min"])
            self.max_id = extent["max"] if none_yet else max(self.max_id, extent["max"])


@dataclass
class Shards:
    """Samples dealt into shards.

    Attributes:
        load: for each shard, a function that reads it: a Table of its samples in no useful order.
        counts: int64 [num_shards, 2], train and test samples of each.
        test_sessions: sorted session ids of the test split where it is a share of the sessions, else None.
        seen: per feature.
        num_unlinked: per group with its own query, the samples that have no row there.
    """

    load: list[Callable[[], pa.Table]]
    counts: npt.NDArray[np.int64]
    test_sessions: npt.NDArray[np.int64] | None
    seen: dict[str, Seen]
    num_unlinked: dict[str, int] = field(default_factory=dict)

    @property
    def num_samples(self) -> int:
        """Samples of all shards."""
        return int(self.counts.sum())

    def is_test(self, shard: pa.Table) -> npt.NDArray[np.bool_]:
        """Which samples of a shard belong to the test split: bool [N]."""
        if self.test_sessions is not None:
            return np.isin(shard[SESSION].to_numpy(), self.test_sessions)
        if TEST in shard.column_names:
            return np.asarray(shard[TEST].to_numpy(), bool)
        return np.zeros(shard.num_rows, bool)


class _Tally:
    """Samples per bucket and split; with a share, per session until the last ones are known."""

    def __init__(self, share: float | None) -> None:
        self.share = share
        self.counts = np.zeros((NUM_BUCKETS, 2), np.int64)
        self.sessions: list[npt.NDArray[np.int64]] = []  # [3, n]: session, first time, samples

    def add(self, session: npt.NDArray[np.int64], time: npt.NDArray[np.int64], test: npt.NDArray[np.bool_]) -> None:
        if self.share is None:
            place = _bucket(session) * 2 + test
            self.counts += np.bincount(place, minlength=2 * NUM_BUCKETS).reshape(NUM_BUCKETS, 2)
        else:
            self.sessions.append(_per_session(session, time, np.ones(len(session), np.int64)))

    def finished(self) -> npt.NDArray[np.int64] | None:
        """Fills the counts where the split is a share; returns the sorted test sessions or None."""
        if self.share is None or not self.sessions:
            return None
        session, first, count = _per_session(*np.concatenate(self.sessions, axis=1))
        last = np.lexsort((session, first))[len(session) - round(self.share * len(session)) :]
        test = np.zeros(len(session), bool)
        test[last] = True
        np.add.at(self.counts, (_bucket(session), test.astype(int)), count)
        return np.asarray(session[test])


def _per_session(
    session: npt.NDArray[np.int64], time: npt.NDArray[np.int64], count: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Merges equal sessions: int64 [3, n] of session (ascending), first time, samples."""
    distinct, place = np.unique(session, return_inverse=True)
    first = np.full(len(distinct), np.iinfo(np.int64).max)
    np.minimum.at(first, place, time)
    return np.stack([distinct, first, np.bincount(place, count, len(distinct)).astype(np.int64)])


def _bucket(session: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return ((session.view(np.uint64) * _MIX) >> np.uint64(64 - NUM_BUCKETS.bit_length() + 1)).astype(np.int64)


def sharded(
    batches: Iterable[pa.RecordBatch],
    schema: Schema,
    lookups: dict[str, Lookup],
    share: float | None,
    work: Path,
    shard_bytes: int,
    seen_rows: Callable[[int], None],
) -> Shards:
    """Deals samples into shards.

    Args:
        batches: the normalised samples query's result.
        schema: of the source as inspected.
        lookups: of the groups with their own query.
        share: the share of sessions that are the test split, or None.
        work: directory for shard files.
        shard_bytes: samples held in memory at once, and the aim for a shard.
        seen_rows: called with the number of rows of each batch.

    Raises:
        DataError: no samples, or a sample without session, timestamp or label.
    """
    tally = _Tally(share)
    features = [f for f in schema.features if f.group not in lookups]
    seen = {f.name: Seen() for f in schema.features}
    num_unlinked = dict.fromkeys(lookups, 0)
    spill = _Spill(work, shard_bytes)
    num_rows = 0
    for batch in batches:
        if not batch.num_rows:
            continue
        table = _keyed(pa.Table.from_batches([batch]), schema.labels, num_rows)
        for group, lookup in lookups.items():
            rows = lookup.find(table[link(group)].combine_chunks())
            num_unlinked[group] += int((rows < 0).sum())
            table = table.set_column(table.column_names.index(link(group)), link(group), pa.array(rows))
        _look(table, features, seen)
        session, time = table[SESSION].to_numpy(), table[TIMESTAMP].to_numpy()
        test = table[TEST].to_numpy() if TEST in table.column_names else np.zeros(len(session), bool)
        tally.add(session, time if TIMESTAMP in batch.schema.names else table[ORDER].to_numpy(), test)
        spill.add(table)
        num_rows += batch.num_rows
        seen_rows(batch.num_rows)
    if not num_rows:
        raise DataError("the samples query returned no rows; check path and query")
    test_sessions = tally.finished()
    buckets, load = spill.finished()
    counts = np.stack([tally.counts[group].sum(axis=0) for group in buckets])
    return Shards(load, counts, test_sessions, seen, num_unlinked)


def _keyed(table: pa.Table, labels: tuple[str, ...], start: int) -> pa.Table:
    """The samples with every key column, after checking keys and labels."""
    order = pa.array(np.arange(start, start + table.num_rows, dtype=np.int64))
    for name, what in ((SESSION, "session id"), (REQUEST, "request id"), (TIMESTAMP, "timestamp")):
        if name in table.column_names and table[name].null_count:
            row = start + int(np.argmax(table[name].is_null().to_numpy()))
            raise DataError(
                f"samples query: row {row} (and perhaps more) has no {what} (null or empty); "
                "filter such rows in the SQL"
            )
    for name in labels:
        bad = pc.invert(pc.fill_null(pc.is_finite(table[name]), False))
        if pc.any(bad).as_py():
            row = pc.index(bad, True).as_py()
            value = "null" if (value := table[name][row].as_py()) is None else value
            raise DataError(
                f"samples query: label '{name}' is {value} in row {start + row} (and perhaps more); "
                "filter such rows in the SQL, or say what a missing label means with coalesce"
            )
    table = table.append_column(ORDER, order)
    if SESSION not in table.column_names:
        table = table.append_column(SESSION, order)
    if REQUEST not in table.column_names:
        table = table.append_column(REQUEST, table[SESSION])
    if TIMESTAMP not in table.column_names:
        table = table.append_column(TIMESTAMP, pa.array(np.zeros(table.num_rows, np.int64)))
    return table


def _look(table: pa.Table, features: list[Feature], seen: dict[str, Seen]) -> None:
    for feature in features:
        for chunk in table[feature.name].chunks:
            seen[feature.name].look(chunk)


class _Spill:
    """Samples in memory up to a limit, then in one Arrow file per bucket of sessions."""

    def __init__(self, work: Path, limit_bytes: int) -> None:
        self.work = work
        self.limit_bytes = limit_bytes
        self.tables: list[pa.Table] = []
        self.num_bytes = 0
        self.writers: list[pa.ipc.RecordBatchFileWriter] = []
        self.bucket_bytes = np.zeros(NUM_BUCKETS, np.int64)

    def add(self, table: pa.Table) -> None:
        self.tables.append(table)
        self.num_bytes += table.nbytes
        if self.num_bytes > self.limit_bytes:
            self._flush()

    def finished(self) -> tuple[list[list[int]], list[Callable[[], pa.Table]]]:
        """Buckets of each shard, and a function that loads it."""
        if not self.writers:
            table = pa.concat_tables(self.tables)
            self.tables = []
            return [list(range(NUM_BUCKETS))], [lambda: table]
        self._flush()
        for writer in self.writers:
            writer.close()
        groups = list(self._groups())
        return groups, [lambda g=group: self._load(g) for group in groups]  # type: ignore[misc]

    def _groups(self) -> Iterator[list[int]]:
        """Consecutive buckets that together stay near the limit and are not empty."""
        group: list[int] = []
        for bucket in np.flatnonzero(self.bucket_bytes).tolist():
            if group and self.bucket_bytes[[*group, bucket]].sum() > self.limit_bytes:
                yield group
                group = []
            group.append(bucket)
        yield group

    def _flush(self) -> None:
        if not self.tables:
            return
        table = pa.concat_tables(self.tables).combine_chunks()
        self.tables, self.num_bytes = [], 0
        if not self.writers:
            options = pa.ipc.IpcWriteOptions(compression="lz4")
            self.writers = [
                pa.ipc.new_file(str(self._path(bucket)), table.schema, options=options) for bucket in range(NUM_BUCKETS)
            ]
        bucket = _bucket(table[SESSION].to_numpy())
        order = np.argsort(bucket, kind="stable")
        ends = np.cumsum(np.bincount(bucket, minlength=NUM_BUCKETS))
        for number, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
            if end > start:
                piece = table.take(pa.array(order[start:end]))
                self.writers[number].write_table(piece)
                self.bucket_bytes[number] += piece.nbytes

    def _path(self, bucket: int) -> Path:
        return self.work / f"bucket-{bucket:02d}.arrow"

    def _load(self, buckets: list[int]) -> pa.Table:
        tables = []
        for bucket in buckets:
            with pa.OSFile(str(self._path(bucket))) as file:
                tables.append(pa.ipc.open_file(file).read_all())
        return pa.concat_tables(tables)
