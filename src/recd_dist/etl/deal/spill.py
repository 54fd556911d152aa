"""Run files: samples on disk in buckets of sessions, so that memory stays bounded.

::

    run-00000.arrow   bucket 0 | bucket 1 | ... | bucket 63      one record batch for each bucket that has samples
    run-00001.arrow   bucket 0 | ...
    shard             bucket 0 of every run file                  every sample of a session is in one bucket

A run file is written when samples fill the buffer, by a thread beside the one that reads, and renamed when it is whole.
"""

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from recd_dist.etl.deal.keys import I64, KEY_COLUMNS, SIZE
from recd_dist.etl.source.inspection import SESSION
from recd_dist.table.hash import GOLDEN

_MIN_BUCKETS, _MAX_BUCKETS = 64, 1024
_BUCKETS = b"recd.buckets"
_MAX_PENDING = 2


def num_buckets(memory_bytes: int, shard_bytes: int) -> int:
    """The number of buckets for raw logs of a size in memory: about four for each shard, and a power of two."""
    wanted = min(max(4 * memory_bytes // max(shard_bytes, 1), _MIN_BUCKETS), _MAX_BUCKETS)
    return 1 << int(wanted - 1).bit_length()


def bucket_of(session: I64, num_buckets: int) -> I64:
    """The bucket of each session key.

    Args:
        session: int64 [N], session keys.
        num_buckets: the number of buckets, a power of two.

    Returns:
        int64 [N] in [0, num_buckets).
    """
    shift = np.uint64(64 - (num_buckets.bit_length() - 1))
    if num_buckets == 1:
        return np.zeros(len(session), np.int64)
    # Fibonacci hashing: neighbouring session ids spread over the buckets.
    return ((session.view(np.uint64) * GOLDEN) >> shift).astype(np.int64)


@dataclass(frozen=True)
class BucketSizes:
    """How much each bucket holds.

    Attributes:
        num_rows: int64 [buckets], the number of samples of each bucket.
        num_bytes: int64 [buckets], the bytes of these samples in memory.
    """

    num_rows: I64
    num_bytes: I64

    def group_by_shard(self, shard_bytes: int) -> list[list[int]]:
        """The buckets of each shard: neighbours that have samples and together are not larger than a limit in bytes."""
        shards: list[list[int]] = []
        size = 0
        for bucket in np.flatnonzero(self.num_rows).tolist():
            if not shards or size + self.num_bytes[bucket] > shard_bytes:
                shards.append([])
                size = 0
            shards[-1].append(bucket)
            size += int(self.num_bytes[bucket])
        return shards


@dataclass(frozen=True)
class RunFiles:
    """Samples in run files.

    Attributes:
        directory: the directory of the files.
        sizes: how much each bucket holds over all files.
    """

    directory: Path
    sizes: BucketSizes

    def read_keys(self, buckets: Sequence[int]) -> pa.Table:
        """The key columns of the samples of some buckets, file after file."""
        return pa.concat_tables(self._read_batches(buckets, keys_only=True))

    def read_samples(self, buckets: Sequence[int]) -> Iterator[pa.Table]:
        """All columns of the same samples in the same order, a table for each bucket of a file."""
        yield from self._read_batches(buckets)

    def _read_batches(self, buckets: Sequence[int], keys_only: bool = False) -> Iterator[pa.Table]:
        wanted = set(buckets)
        options = pa.ipc.IpcReadOptions(use_threads=False)
        for number, path in enumerate(sorted(self.directory.glob("run-*.arrow"))):
            with pa.memory_map(str(path)) as file:
                if keys_only and number == 0:  # all files have the same columns, and to open one takes a millisecond
                    names = pa.ipc.open_file(file).schema.names
                    options.included_fields = [i for i, name in enumerate(names) if name in KEY_COLUMNS]
                reader = pa.ipc.open_file(file, options=options)
                for place, bucket in enumerate(json.loads(reader.schema.metadata[_BUCKETS])):
                    if bucket in wanted:
                        yield pa.Table.from_batches([reader.get_batch(place)]).replace_schema_metadata(None)


class Spill:
    """Deals samples into run files.

    Args:
        directory: the directory for the files, which is made here.
        buffer_bytes: the bytes of samples in memory that make a run file. Twice as much is held while a file is
            written.
        num_buckets: the number of buckets, a power of two.
    """

    def __init__(self, directory: Path, buffer_bytes: int, num_buckets: int) -> None:
        self._directory, self._buffer_bytes, self._num_buckets = directory, buffer_bytes, num_buckets
        directory.mkdir(parents=True)
        self._tables: list[pa.Table] = []
        self._held_bytes = 0
        self._num_files = 0
        self._num_rows = np.zeros(num_buckets, np.int64)
        self._num_bytes = np.zeros(num_buckets, np.int64)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="recd-spill")
        self._pending: list[Future[None]] = []

    def add(self, table: pa.Table) -> None:
        """Adds prepared samples."""
        if not table.num_rows:
            return
        sizes = table[SIZE].to_numpy()
        bucket = bucket_of(table[SESSION].to_numpy(), self._num_buckets)
        self._num_rows += np.bincount(bucket, minlength=self._num_buckets)
        self._num_bytes += np.bincount(bucket, sizes, self._num_buckets).astype(np.int64)
        self._tables.append(table)
        self._held_bytes += int(sizes.sum())
        if self._held_bytes > self._buffer_bytes:
            self._flush()

    def finish(self) -> RunFiles:
        """Writes what is left, waits until all is on disk, and returns the run files."""
        self._flush()
        self._wait(0)
        self._writer.shutdown()
        return RunFiles(self._directory, BucketSizes(self._num_rows, self._num_bytes))

    def close(self) -> None:
        """Ends the writing thread, whatever happened."""
        self._writer.shutdown(wait=True, cancel_futures=True)

    def _flush(self) -> None:
        if not self._tables:
            return
        self._wait(_MAX_PENDING - 1)
        tables, self._tables, self._held_bytes = self._tables, [], 0
        self._pending.append(self._writer.submit(self._write, tables, self._num_files))
        self._num_files += 1

    def _wait(self, max_pending: int) -> None:
        while len(self._pending) > max_pending:
            self._pending.pop(0).result()

    def _write(self, tables: list[pa.Table], number: int) -> None:
        """Writes one run file: the samples sorted by bucket, each bucket a record batch."""
        bucket = bucket_of(np.concatenate([t[SESSION].to_numpy() for t in tables]), self._num_buckets)
        sizes = np.bincount(bucket, minlength=self._num_buckets)
        buckets = np.flatnonzero(sizes)
        rows = _take_rows(tables, np.argsort(bucket, kind="stable"))
        schema = rows.schema.with_metadata({_BUCKETS: json.dumps(buckets.tolist()).encode()})
        path = self._directory / f"run-{number:05d}.arrow"
        partial = path.with_suffix(".partial")
        options = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)
        with pa.ipc.new_file(str(partial), schema, options=options) as writer:
            for start, size in zip(np.cumsum(sizes)[buckets] - sizes[buckets], sizes[buckets], strict=True):
                writer.write_batch(rows.slice(int(start), int(size)))
        partial.rename(path)


def _take_rows(tables: list[pa.Table], order: I64) -> pa.RecordBatch:
    """Rows of all tables in an order, column by column, so that only one column is there twice; empties the list."""
    schema = tables[0].schema
    columns = [[chunk for table in tables for chunk in table.column(i).chunks] for i in range(len(schema))]
    tables.clear()
    places, taken = pa.array(order), []
    for column in columns:
        taken.append((pa.concat_arrays(column) if len(column) > 1 else column[0]).take(places))
        column.clear()
    return pa.RecordBatch.from_arrays(taken, schema=schema)
