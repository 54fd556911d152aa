"""Raw logs that are dealt to shards by session compress better than at random (RecD's O1).

::

    arrival     a1 b1 c1 a2 d1 b2 c2 a3 ...
    by session  shard 0: a1 a2 a3 ...   shard 1: b1 b2 ...       a block of a shard holds a session's samples together
    at random   shard 0: a1 c1 b2 ...   shard 1: b1 a2 a3 ...

A log service gets one message per sample, appends it to a block of its shard, and compresses the block when it is full.
It does not know columns. Here a message is a line of JSON or, more compactly, a row of an Arrow record batch, and a
block is compressed whole with zstd-3. Both ways of dealing use the same messages in the same order of arrival.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from rm1 import Raw, files_of

from recd_dist.table.hash import GOLDEN

CODEC = pa.Codec("zstd", compression_level=3)
SHARDS = (16, 64, 256)
BLOCK_MIB = (1, 4)
_BATCH = 8192


@dataclass
class Shards:
    """Shards that messages are added to, block by block.

    Attributes:
        num_shards: the number of shards.
        block_bytes: the size at which a block of messages is full, and is compressed.
        num_bytes: the size of the compressed blocks so far.
        plain_bytes: the size of the messages in these blocks.
    """

    num_shards: int
    block_bytes: int
    num_bytes: int = 0
    plain_bytes: int = 0
    _waiting: dict[int, list[pa.RecordBatch]] = field(default_factory=dict)
    _sizes: dict[int, int] = field(default_factory=dict)

    def add(self, messages: pa.RecordBatch, bounds: npt.NDArray[np.int64]) -> None:
        """Appends messages to their shards.

        Args:
            messages: the messages [N], shard after shard, and within a shard in the order of arrival.
            bounds: int64 [number of shards + 1], where each shard's messages begin and end.
        """
        for number in np.flatnonzero(np.diff(bounds)).tolist():
            self._append(number, messages.slice(int(bounds[number]), int(bounds[number + 1] - bounds[number])))

    def close(self) -> None:
        """Compresses the blocks that are not full."""
        for number in list(self._waiting):
            self._flush(number)

    def _append(self, number: int, messages: pa.RecordBatch) -> None:
        step = max(1, messages.num_rows * self.block_bytes // (8 * max(messages.nbytes, 1)))
        for start in range(0, messages.num_rows, step):  # an eighth of a block at a time
            piece = messages.slice(start, step)
            self._waiting.setdefault(number, []).append(piece)
            self._sizes[number] = self._sizes.get(number, 0) + piece.nbytes
            if self._sizes[number] >= self.block_bytes:
                self._flush(number)

    def _flush(self, number: int) -> None:
        block = _block(pa.Table.from_batches(self._waiting.pop(number)))
        self._sizes[number] = 0
        self.plain_bytes += len(block)
        self.num_bytes += len(CODEC.compress(block))


def _block(messages: pa.Table) -> pa.Buffer:
    """The bytes that are compressed: the lines, or the record batch."""
    whole = messages.combine_chunks().to_batches()[0]
    if whole.schema.names == ["line"]:
        lines = whole.column(0)
        offsets = np.frombuffer(lines.buffers()[1], np.int32)[lines.offset : lines.offset + len(lines) + 1]
        return lines.buffers()[2].slice(int(offsets[0]), int(offsets[-1] - offsets[0]))
    return whole.serialize()


def logs_of(raw: Raw, form: str) -> Iterator[tuple[npt.NDArray[np.int64], pa.RecordBatch]]:
    """The session ids int64 [N] and messages [N] of batches, in the order of arrival.

    Args:
        raw: the logs.
        form: ``json`` or ``arrow``.
    """
    if form == "arrow":
        for file in files_of(raw.path):
            for batch in pq.ParquetFile(file).iter_batches(_BATCH):
                yield batch.column("session_id").to_numpy(), batch
        return
    with duckdb.connect() as connection:
        query = f"select session_id, to_json(r) || chr(10) as line from read_parquet('{raw.path}/part-*.parquet') as r"
        for batch in connection.sql(query).to_arrow_reader(_BATCH):
            lines = batch.column("line").cast(pa.string())
            yield batch.column("session_id").to_numpy(), pa.record_batch([lines], ["line"])


def by_session(session: npt.NDArray[np.int64], num_shards: int) -> npt.NDArray[np.int64]:
    """The shard of each message by a hash of its session, int64 [N]."""
    mixed = session.view(np.uint64) * GOLDEN
    return ((mixed >> np.uint64(32)) % np.uint64(num_shards)).astype(np.int64)


def measure_logs(raw: Raw, form: str, shards: tuple[int, ...] = SHARDS) -> list[dict[str, float]]:
    """Measures the compressed shards, dealt both ways, for several numbers of shards and block sizes."""
    random = np.random.default_rng(0)
    dealt = {(way, n): [Shards(n, mib << 20) for mib in BLOCK_MIB] for n in shards for way in ("session", "random")}
    for session, messages in logs_of(raw, form):
        for (way, n), sides in dealt.items():
            shard = by_session(session, n) if way == "session" else random.integers(0, n, len(session))
            order = np.argsort(shard, kind="stable")
            by_shard = messages.take(pa.array(order))
            for side in sides:
                side.add(by_shard, np.searchsorted(shard[order], np.arange(n + 1)))
    cases = []
    for n in shards:
        for mib, by_session_, at_random in zip(BLOCK_MIB, dealt["session", n], dealt["random", n], strict=True):
            by_session_.close()
            at_random.close()
            row = {"shards": n, "block_MiB": mib, "plain_MB": at_random.plain_bytes / 1e6}
            row |= {"session_MB": by_session_.num_bytes / 1e6, "random_MB": at_random.num_bytes / 1e6}
            cases.append(row | {"ratio": at_random.num_bytes / by_session_.num_bytes})
    return cases
