"""Run files: samples on disk, dealt into buckets of sessions, so that memory stays bounded whatever the logs' size.

::

    run-00000.arrow   bucket 0 | bucket 1 | ... | bucket 63      one record batch each, as far as there are samples
    run-00001.arrow   bucket 0 | ...
    shard             bucket 0 of every run                       every sample of a session is in one bucket

A run is written when its samples fill the buffer, by a thread beside the one that reads, and renamed when it is whole.
"""

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recd_dist.etl.deal.keys import KEY_COLUMNS, SIZE
from recd_dist.etl.deal.prepare import bucket_of
from recd_dist.etl.source.inspection import SESSION

_BUCKETS = b"recd.buckets"
_MAX_PENDING = 2


@dataclass(frozen=True)
class Runs:
    """Samples in run files.

    Attributes:
        directory: where they lie.
        num_rows, num_bytes: int64 [buckets], samples of each bucket and their size in memory.
    """

    directory: Path
    num_rows: npt.NDArray[np.int64]
    num_bytes: npt.NDArray[np.int64]

    def groups(self, limit: int) -> list[list[int]]:
        """Buckets of each shard: consecutive ones that together stay below a limit in bytes, none empty."""
        groups: list[list[int]] = []
        size = 0
        for bucket in np.flatnonzero(self.num_rows).tolist():
            if not groups or size + self.num_bytes[bucket] > limit:
                groups.append([])
                size = 0
            groups[-1].append(bucket)
            size += int(self.num_bytes[bucket])
        return groups

    def keys(self, buckets: Sequence[int]) -> pa.Table:
        """The key columns of some buckets, run after run."""
        return pa.concat_tables(self._batches(buckets, keys_only=True))

    def pieces(self, buckets: Sequence[int]) -> Iterator[pa.Table]:
        """All columns of some buckets, a piece at a time, in the order of ``keys``."""
        yield from self._batches(buckets)

    def _batches(self, buckets: Sequence[int], keys_only: bool = False) -> Iterator[pa.Table]:
        wanted = set(buckets)
        for path in sorted(self.directory.glob("run-*.arrow")):
            with pa.memory_map(str(path)) as file:
                schema = pa.ipc.open_file(file).schema
                options = pa.ipc.IpcReadOptions(use_threads=False)
                if keys_only:
                    places = [i for i, name in enumerate(schema.names) if name in KEY_COLUMNS]
                    options = pa.ipc.IpcReadOptions(use_threads=False, included_fields=places)
                reader = pa.ipc.open_file(file, options=options)
                for place, bucket in enumerate(json.loads(schema.metadata[_BUCKETS])):
                    if bucket in wanted:
                        yield pa.Table.from_batches([reader.get_batch(place)]).replace_schema_metadata(None)


class Spill:
    """Deals samples into run files.

    Args:
        directory: for the files; made here.
        limit: bytes of samples in memory before a run is written; twice as much is held while one is.
        num_buckets: a power of two.
    """

    def __init__(self, directory: Path, limit: int, num_buckets: int) -> None:
        self._directory, self._limit, self._num_buckets = directory, limit, num_buckets
        directory.mkdir(parents=True)
        self._tables: list[pa.Table] = []
        self._held = 0
        self._num_runs = 0
        self._num_rows = np.zeros(num_buckets, np.int64)
        self._num_bytes = np.zeros(num_buckets, np.int64)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="recd-spill")
        self._pending: list[Future[None]] = []

    def add(self, table: pa.Table) -> None:
        """Takes prepared samples."""
        if not table.num_rows:
            return
        sizes = table[SIZE].to_numpy()
        bucket = bucket_of(table[SESSION].to_numpy(), self._num_buckets)
        self._num_rows += np.bincount(bucket, minlength=self._num_buckets)
        self._num_bytes += np.bincount(bucket, sizes, self._num_buckets).astype(np.int64)
        self._tables.append(table)
        self._held += int(sizes.sum())
        if self._held > self._limit:
            self._flush()

    def finished(self) -> Runs:
        """The runs, once all are on disk."""
        self._flush()
        self._wait(0)
        self._writer.shutdown()
        return Runs(self._directory, self._num_rows, self._num_bytes)

    def close(self) -> None:
        """Ends the writing thread, whatever happened."""
        self._writer.shutdown(wait=True, cancel_futures=True)

    def _flush(self) -> None:
        if not self._tables:
            return
        self._wait(_MAX_PENDING - 1)
        tables, self._tables, self._held = self._tables, [], 0
        self._pending.append(self._writer.submit(self._write, tables, self._num_runs))
        self._num_runs += 1

    def _wait(self, left: int) -> None:
        while len(self._pending) > left:
            self._pending.pop(0).result()

    def _write(self, tables: list[pa.Table], number: int) -> None:
        """One run: the samples sorted by bucket, each bucket a record batch."""
        table = pa.concat_tables(tables).combine_chunks()
        tables.clear()
        bucket = bucket_of(table[SESSION].to_numpy(), self._num_buckets)
        order = np.argsort(bucket, kind="stable")
        ends = np.cumsum(np.bincount(bucket, minlength=self._num_buckets))
        there = np.flatnonzero(np.diff(ends, prepend=0)).tolist()
        schema = table.schema.with_metadata({_BUCKETS: json.dumps(there).encode()})
        path = self._directory / f"run-{number:05d}.arrow"
        partial = path.with_suffix(".partial")
        options = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)
        with pa.ipc.new_file(str(partial), schema, options=options) as writer:
            for place in there:
                start = int(ends[place - 1]) if place else 0
                rows = table.take(pa.array(order[start : int(ends[place])])).combine_chunks()
                writer.write_table(rows.replace_schema_metadata(schema.metadata))
        partial.rename(path)
