"""What a proposal would save: storage by encoding the sample, reader, wire and compute by counting a batch of 4096.

::

    storage   bytes of Parquet files, written with the table's own encodings and scaled to all samples
    reader    bytes that are decoded, and rows that are gathered into tensors
    wire      ids and lengths out to the embeddings, pooled vectors back
    compute   embedding rows looked up, rows pooled, keys and values of attention over histories

The base line is the flat table in order of time, zstd-3, with the best encoding per column. Where only some sessions
were read, it is a piece of the log without gaps that is encoded: in the sample, repeats lie nearer together.
"""

import tempfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from recd_dist.etl.source.inspection import REQUEST, SESSION, TIMESTAMP
from recd_dist.etl.write.part_files import PartWriter, required_table
from recd_dist.etl.write.stored_types import convert_column
from recd_dist.suggest.features import ROW_GROUP, Columns, Flags, Look, stream
from recd_dist.suggest.propose_groups import Proposed
from recd_dist.table.schema import REQUEST_ID, SAMPLE_ID, SESSION_ID
from recd_dist.table.schema import TIMESTAMP as TIMESTAMP_COLUMN
from recd_dist.table.stats.table_stats import DIM

BATCH = 4096
"""Samples of the batch that reader, wire and compute are counted for: one rank's."""

BATCH_SIZES = (512, 1024, 2048, 4096, 8192, 16384, 32768, 65536)
"""Batch sizes of the curves."""

HISTORY_LENGTH = 4
_WINDOW = 8  # where it begins in the stream
"""Mean length from which a list counts as a history, for attention and windows."""

_CHUNK_BYTES = 105  # footer of one column of one row group, measured
_ENCODED_BYTES = 24 << 20  # of one column: beyond, row groups are chosen evenly
_FLAT = "zstd"  # level 3: what the flat table is compared in, whatever ours is written in
_ROW_NUMBER = 8
_LENGTH = 4
_WINDOW = 8  # where it begins in the stream

I64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Estimate:
    """What a proposal comes to: storage of the whole table, all else of a batch of 4096 samples.

    Attributes:
        storage_bytes: of the table's files.
        windowed_bytes: the same, with windows for the histories that shift.
        decoded_bytes: read from disk, once decompressed.
        windowed_decoded_bytes: the same, with windows.
        gathered_rows: rows of features that become tensors.
        ids: that are sent and looked up.
        sent_bytes: ids and lengths.
        vector_bytes: pooled vectors that come back, float32 of width ``dim``.
        pooled_rows: rows of ids that are pooled.
        attention_rows: ids in histories, for each of which attention makes a key and a value.
    """

    storage_bytes: float
    windowed_bytes: float
    decoded_bytes: float
    windowed_decoded_bytes: float
    gathered_rows: float
    ids: float
    sent_bytes: float
    vector_bytes: float
    pooled_rows: float
    attention_rows: float


def clustered_at(flags: Flags, size: int) -> float | None:
    """Samples per unique row in batches of neighbours; None for a batch larger than the sample."""
    if size > len(flags):
        return None
    return len(flags) / int(_in_batches(flags, size).sum())


def in_time_at(flags: Flags, order: I64, size: int, share: float) -> float | None:
    """Samples per unique row in batches in order of time, if only rows of one session are told to be the same.

    Args:
        flags: bool [N], where a row begins, clustered.
        order: int64 [N], place of each sample in time.
        size: samples of a batch of the whole log; of the sampled sessions it holds ``size * share``.
        share: of the samples that were read.
    """
    window = max(1, round(size * share))
    if window > len(flags):
        return None
    row = np.cumsum(flags)
    pairs = np.sort(row * (len(flags) // window + 1) + order // window)
    return len(flags) / (1 + int((pairs[1:] != pairs[:-1]).sum()))


def _in_batches(flags: Flags, size: int) -> Flags:
    """A row that goes on in the next batch is unique in both."""
    marked = flags.copy()
    marked[::size] = True
    return marked


class Storage:
    """Bytes of columns on disk, measured by writing them; what was measured once is remembered.

    Args:
        columns: of the sample.
        looks: every feature.
        labels: of the source.
        compression: ``zstd`` or ``lz4``.
        done: called after each column.
    """

    def __init__(
        self,
        columns: Columns,
        looks: Sequence[Look],
        labels: tuple[str, ...],
        compression: str,
        done: Callable[[], None] = lambda: None,
    ) -> None:
        self.columns = columns
        self.sampled = columns.sampled
        self.looks = {look.name: look for look in looks}
        self.labels = labels
        self.compression = compression
        self.done = done
        self._known: dict[tuple[str, int], float] = {}
        self._in_time = np.argsort(self.sampled.order)

    def rows(self, name: str, flags: Flags) -> float:
        """Bytes of a feature's flagged rows, of the whole table."""
        key = (name, zlib.crc32(np.packbits(flags).tobytes()))
        if key not in self._known:
            num_bytes = self.looks[name].num_values(flags) * self.looks[name].width
            chosen = _chosen(list(self.columns.row_groups()), num_bytes)
            chunks = (required_table([name], [self.columns.rows(name, s, e, flags)]) for s, e in chosen)
            self._known[key] = self._scaled(self._written(chunks), int(flags.sum()), self._num(chosen, flags))
            self.done()
        return self._known[key]

    def windows(self, name: str, flags: Flags) -> float:
        """Bytes of a history as a stream of ids with a start and a length per row."""
        key = (f"{name}/window", zlib.crc32(np.packbits(flags).tobytes()))
        if key not in self._known:
            look = self.looks[name]
            chosen = _chosen(list(self.columns.row_groups()), look.num_values(flags) * look.width)
            total = 0.0
            for index in range(2):  # the stream and its windows are files of different length
                chunks = (self._windowed(name, flags, s, e)[index] for s, e in chosen)
                total += self._written(chunks)
            self._known[key] = self._scaled(total, int(flags.sum()), self._num(chosen, flags))
            self.done()
        return self._known[key]

    def _windowed(self, name: str, flags: Flags, start: int, end: int) -> tuple[pa.Table, pa.Table]:
        rows = self.columns.rows(name, start, end, flags)
        same_session = ~self.columns.new_session[start:end][flags[start:end]]
        ids, new = stream(rows, same_session)
        lengths = np.diff(rows.offsets.to_numpy())
        starts = pa.array(np.cumsum(new) - lengths)
        return required_table(["ids"], [ids]), required_table(["start_row", "length"], [starts, pa.array(lengths)])

    def numbers(self, flags: Flags) -> float:
        """Bytes of a group's row numbers: one per row, and one per sample."""
        row = pa.array(np.cumsum(flags) - 1)
        key = ("row", zlib.crc32(np.packbits(flags).tobytes()))
        if key not in self._known:
            per_sample = (required_table(["row"], [row.slice(s, e - s)]) for s, e in self.columns.row_groups())
            kept = row.filter(pa.array(flags))
            per_row = (
                required_table(["row"], [kept.slice(s, ROW_GROUP)]) for s in range(0, max(len(kept), 1), ROW_GROUP)
            )
            self._known[key] = self._scaled(self._written(per_sample) + self._written(per_row), 1, 1)
        return self._known[key]

    def keys(self, clustered: bool) -> float:
        """Bytes of keys and labels, in clustered order or in order of time."""
        key = ("keys", int(clustered))
        if key not in self._known:
            order = np.arange(self.sampled.num_samples) if clustered else self._in_time
            names = [n for n in (SESSION, REQUEST, TIMESTAMP) if n in self.sampled.samples.column_names]
            chunks = []
            for start, end in self.columns.row_groups():
                taken = self.sampled.samples.select([*names, *self.labels]).take(pa.array(order[start:end]))
                arrays = [taken[n].combine_chunks().fill_null(0) for n in names]
                if clustered:  # keys that the source lacks stand in the table all the same
                    missing = [n for n in (REQUEST, TIMESTAMP) if n not in names]
                    arrays += [
                        arrays[0] if n == REQUEST else pa.array(np.zeros(end - start, np.int64)) for n in missing
                    ]
                    arrays.append(pa.array(np.arange(start, end)))
                    columns = [*names, *missing, SAMPLE_ID]
                else:
                    columns = list(names)
                arrays += [taken[n].combine_chunks().fill_null(0).cast(pa.float32()) for n in self.labels]
                chunks.append(required_table([_KEYS.get(n, n) for n in (*columns, *self.labels)], arrays))
            self._known[key] = self._scaled(self._written(chunks, None if clustered else _FLAT), 1, 1)
        return self._known[key]

    def flat(self, name: str) -> float:
        """Bytes of a feature in the flat table, in order of time."""
        key = ("flat", zlib.crc32(name.encode()))
        if key not in self._known:
            look, log = self.looks[name], self.sampled.log
            num = self.sampled.num_samples if log is None else log.num_rows
            num_bytes = int(look.num_values() * look.width * num / self.sampled.num_samples)
            bounds = [*range(0, max(num - ROW_GROUP // 2, 1), ROW_GROUP), num]
            chosen = _chosen(list(pairwise(bounds)), num_bytes)
            written = self._written((required_table([name], [self._flat_rows(name, s, e)]) for s, e in chosen), _FLAT)
            self._known[key] = written * self.sampled.num_total / sum(e - s for s, e in chosen)
            self.done()
        return self._known[key]

    def _flat_rows(self, name: str, start: int, end: int) -> pa.Array:
        log, origin = self.sampled.log, self.columns.origin[name]
        if origin is not None:
            place = self.sampled.place[origin][self._in_time] if log is None else self.sampled.log_place[origin]
            return self.columns.linked(name, place[start:end])
        if log is None:
            return self.columns.whole(name).take(pa.array(self._in_time[start:end]))
        feature = self.columns.features[name]
        stored = self.columns.stored(name)
        wide = pa.int64() if feature.is_sparse else stored  # ids that the sample lacks may need the width
        if pa.types.is_list(stored):
            wide = pa.list_(pa.field("element", pa.int64(), nullable=False))
        chunk = log[name].slice(start, end - start)
        if chunk.null_count and not pa.types.is_list(wide):
            chunk = chunk.combine_chunks().fill_null(0)
        array, _ = convert_column(chunk, feature.kind, wide)
        try:
            return array.cast(stored)
        except pa.ArrowInvalid:
            return array

    def _num(self, chosen: list[tuple[int, int]], flags: Flags) -> int:
        return int(sum(flags[start:end].sum() for start, end in chosen))

    def _scaled(self, num_bytes: float, num_rows: int, num_written: int) -> float:
        """From the rows that were written to the sample's, and from the sample to the source."""
        return num_bytes * num_rows / max(num_written, 1) * self.sampled.num_total / self.sampled.num_samples

    def _written(self, row_groups: Iterable[pa.Table], compression: str | None = None) -> float:
        """Bytes of columns in a file's row groups, with their share of its footer."""
        with tempfile.TemporaryDirectory(prefix="recd-suggest-") as directory:
            writer = PartWriter(Path(directory), 0, compression or self.compression)
            tables = list(row_groups)
            bounds = np.cumsum([0, *(rows.num_rows for rows in tables)])
            writer.write("samples", pa.concat_tables(tables).combine_chunks(), bounds)
            part = writer.close()
            metadata = pq.read_metadata(Path(directory) / part.samples.path)
        groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
        sizes = [group.column(j).total_compressed_size for group in groups for j in range(metadata.num_columns)]
        return float(sum(sizes) + _CHUNK_BYTES * len(sizes))


_KEYS = {SESSION: SESSION_ID, REQUEST: REQUEST_ID, TIMESTAMP: TIMESTAMP_COLUMN}


def _chosen(bounds: list[tuple[int, int]], num_bytes: int) -> list[tuple[int, int]]:
    """All row groups, or some at even distances that together have about ``_ENCODED_BYTES``."""
    num = max(1, min(len(bounds), round(len(bounds) * _ENCODED_BYTES / max(num_bytes, 1))))
    places = np.linspace(0, len(bounds) - 1, num).round().astype(int) if num > 1 else [len(bounds) // 2]
    return [bounds[i] for i in dict.fromkeys(int(place) for place in places)]


def shifting(look: Look) -> bool:
    """A history whose changes mostly append: windows pay."""
    if look.lengths is None or not look.num_shifts:
        return False
    num_stored = look.num_values(look.flags)
    return (
        num_stored >= HISTORY_LENGTH * look.flags.sum() and look.shift_rate >= 0.5 and look.num_new < 0.8 * num_stored
    )


def estimate(groups: Sequence[Proposed], looks: Sequence[Look], storage: Storage, in_time: bool = False) -> Estimate:
    """What a proposal comes to.

    Args:
        groups: deduplicated; every other feature is in ``sample``.
        looks: every feature.
        storage: measures bytes on disk.
        in_time: the flat table as it is, in order of time, without groups.
    """
    flags_of = {name: group.flags for group in groups for name in group.features}
    every = np.ones(len(looks[0].flags), np.bool_)
    stored = windowed = storage.keys(clustered=not in_time)
    not_decoded = 0
    for look in looks:
        flags = flags_of.get(look.name, every)
        num_bytes = storage.flat(look.name) if in_time else storage.rows(look.name, flags)
        stored += num_bytes
        has_window = look.name in flags_of and shifting(look)
        windowed += min(num_bytes, storage.windows(look.name, flags)) if has_window else num_bytes
        if has_window:
            of_stream = look.num_new * look.width + _WINDOW * int(flags.sum())
            not_decoded += max(0, look.num_values(flags) * look.width - of_stream)
    numbers = sum(storage.numbers(group.flags) for group in groups)
    counted = [_counted(look, flags_of.get(look.name, every)) for look in looks]
    per_batch = BATCH / len(every)
    decoded = sum(c.decoded_bytes for c in counted) + sum(
        _ROW_NUMBER * (len(every) + group.num_rows) for group in groups
    )
    return Estimate(
        storage_bytes=stored + numbers,
        windowed_bytes=windowed + numbers,
        decoded_bytes=decoded * per_batch,
        windowed_decoded_bytes=(decoded - not_decoded) * per_batch,
        gathered_rows=sum(c.rows for c in counted) * per_batch,
        ids=sum(c.ids for c in counted) * per_batch,
        sent_bytes=sum(c.sent_bytes for c in counted) * per_batch,
        vector_bytes=sum(c.pooled_rows for c in counted) * DIM * 4 * per_batch,
        pooled_rows=sum(c.pooled_rows for c in counted) * per_batch,
        attention_rows=sum(c.attention_rows for c in counted) * per_batch,
    )


@dataclass(frozen=True)
class _Counted:
    """One feature over the whole sample, cut into batches."""

    decoded_bytes: int
    rows: int
    ids: int
    sent_bytes: int
    pooled_rows: int
    attention_rows: int


def _counted(look: Look, flags: Flags) -> _Counted:
    in_batches = _in_batches(flags, BATCH)
    num_rows, num_values = int(in_batches.sum()), look.num_values(in_batches)
    offsets = _LENGTH * int(flags.sum()) if look.lengths is not None else 0
    decoded = look.num_values(flags) * look.width + offsets
    if not look.feature.is_sparse:
        return _Counted(decoded, num_rows, 0, 0, 0, 0)
    is_history = look.lengths is not None and look.num_values() >= HISTORY_LENGTH * len(flags)
    return _Counted(
        decoded, num_rows, num_values, num_values * look.width + _LENGTH * num_rows, num_rows, num_values * is_history
    )
