"""Which sessions a sample takes: as many as wanted, and as fit in memory.

::

    hash(session) % 65536     the bucket of a session      0 .. limit-1 are chosen, limit .. 65535 are not
    too many bytes            limit becomes limit / 2      sessions stay whole
    limit is 1                the sample ends where the memory does, and a session may be cut
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recd_dist.etl.source.inspection import SESSION, TIMESTAMP
from recd_dist.etl.write.distinct_ids import DistinctIds

NUM_BUCKETS = 1 << 16
"""Number of buckets that sessions are dealt into by hash."""

BUCKET = "__bucket"
"""The column that holds the bucket of a sample's session."""

_MAX_TIMES = 1 << 16
_WHOLE = 1.5  # a source of up to so many times the wanted samples is read whole
_MIDDLES = (0.1, 0.3, 0.5, 0.7, 0.9)  # where the spans of time lie between the earliest and the latest sample

I64 = npt.NDArray[np.int64]


@dataclass
class KeyCounts:
    """What the keys of all rows of a source say, in bounded memory.

    Attributes:
        num_rows: number of rows.
        num_keyless: number of rows without a session.
        bucket_counts: int64 [NUM_BUCKETS], rows whose session falls into each bucket.
        sessions: distinct sessions.
        times: timestamps of every ``step``-th row of each batch, in pieces.
        step: doubles whenever there are too many timestamps.
    """

    num_rows: int = 0
    num_keyless: int = 0
    bucket_counts: I64 = field(default_factory=lambda: np.zeros(NUM_BUCKETS, np.int64))
    sessions: DistinctIds = field(default_factory=DistinctIds)
    times: list[I64] = field(default_factory=list)
    step: int = 1

    @property
    def num_samples(self) -> int:
        """Number of rows that have a session."""
        return self.num_rows - self.num_keyless

    def add(self, batch: pa.RecordBatch) -> None:
        """Counts the session, bucket and timestamp of some rows."""
        self.num_rows += batch.num_rows
        self.num_keyless += batch.column(SESSION).null_count
        if batch.column(SESSION).null_count:
            batch = batch.filter(batch.column(SESSION).is_valid())
        self.bucket_counts += np.bincount(batch.column(BUCKET).to_numpy(), minlength=NUM_BUCKETS)
        self.sessions.add(batch.column(SESSION).to_numpy())
        self.times.append(batch.column(TIMESTAMP).drop_null().to_numpy()[:: self.step])
        if sum(map(len, self.times)) > 2 * _MAX_TIMES:
            self.times = [np.concatenate(self.times)[::2]]
            self.step *= 2

    def bucket_limit(self, num_samples: int) -> int:
        """The number of buckets that together hold about ``num_samples``; all if the source has few more."""
        if self.num_rows <= _WHOLE * num_samples:
            return NUM_BUCKETS
        return max(1, int(np.searchsorted(np.cumsum(self.bucket_counts), num_samples, side="right")))

    def time_spans(self, num_samples: int) -> list[tuple[int, int]]:
        """Spans of time, from early to late, that together hold about so many samples: (first, last) timestamp."""
        times = np.sort(np.concatenate(self.times))
        share = min(1.0, num_samples / max(self.num_rows, 1)) / len(_MIDDLES)
        spans = [(max(0.0, middle - share / 2), min(1.0, middle + share / 2)) for middle in _MIDDLES]
        return [(int(first), int(last)) for first, last in np.quantile(times, spans, method="nearest")]


class ChosenSessions:
    """Samples of the sessions in the first buckets; half of the buckets go when they need too much memory.

    Args:
        limit: number of buckets to begin with.
        max_bytes: bytes of Arrow memory that the samples may take.
    """

    def __init__(self, limit: int, max_bytes: int) -> None:
        self.limit = limit
        self.max_bytes = max_bytes
        self.batches: list[pa.RecordBatch] = []
        self.is_cut = False
        """Whether one bucket alone is too large, so that a session may be cut."""
        self._num_bytes = 0

    def add(self, batch: pa.RecordBatch) -> None:
        """Takes the samples of chosen sessions; chooses fewer sessions when memory is full."""
        batch = self._filter(batch)
        if batch.num_rows:
            self.batches.append(batch)
            self._num_bytes += batch.nbytes
        while self._num_bytes > self.max_bytes and not self.is_cut:
            self.halve()

    def halve(self) -> None:
        """Drops the sessions of half of the buckets; of a single bucket nothing is dropped, and ``is_cut`` is set."""
        if self.limit <= 1:
            self.is_cut = True
            return
        self.limit //= 2
        filtered = (self._filter(batch) for batch in self.batches)
        self.batches = [batch for batch in filtered if batch.num_rows] or self.batches[:1]
        self._num_bytes = sum(batch.nbytes for batch in self.batches)

    def table(self) -> pa.Table:
        """The samples taken so far, as they came."""
        return pa.Table.from_batches(self.batches)

    def _filter(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        is_chosen = batch.column(BUCKET).to_numpy() < self.limit
        return batch if is_chosen.all() else batch.filter(pa.array(is_chosen))
