"""The work of a worker process or reading thread: it turns tasks into batches."""

import os
import signal
import threading
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from multiprocessing import connection, parent_process
from time import monotonic_ns, perf_counter_ns
from typing import Any, NamedTuple

import torch
from torch.utils.data import Dataset

from recd_dist.errors import UserError
from recd_dist.reader.batching import Batching, Empty, Piece
from recd_dist.reader.chunks.slabs import Slabs
from recd_dist.reader.decode_ahead import ShuffleWindowCache
from recd_dist.reader.intervals import Interval
from recd_dist.reader.made_features import group_of
from recd_dist.reader.open_files import AnyTable, open_files
from recd_dist.reader.order import Shuffle, ShuffleWindow, shuffle_windows
from recd_dist.reader.prepared_rows import RowPreparation
from recd_dist.reader.shared_blocks import SharedBlocks
from recd_dist.reader.shuffle_window import ShuffleWindowDecoder
from recd_dist.reader.stages import Stage, Stopwatch, measure
from recd_dist.reader.transform import Transforms
from recd_dist.reader.transport import PackedBatch
from recd_dist.table.schema import SAMPLE, Schema, Table
from recd_dist.tensors.batch import Batch


@dataclass(frozen=True)
class Task:
    """A batch to read.

    Attributes:
        epoch: counted from 0.
        samples: intervals of samples, by their numbers in the order of the epoch.
        gapless_end: the same worker goes on reading up to this sample of the epoch without a gap.
    """

    epoch: int
    samples: tuple[Interval, ...]
    gapless_end: int = 0


@dataclass(frozen=True)
class Failure:
    """An error that a user can mend, carried to the trainer as it is; torch would bury its message in a traceback.

    Attributes:
        error: the class of the error.
        message: the text of the error.
    """

    error: type[UserError]
    message: str


class Result(NamedTuple):
    """What reading a task gives.

    Attributes:
        batch: the batch, or why there is none.
        counts: for each feature what was dropped or set to zero since the last result.
        spent_ns: nanoseconds of each stage of the reader since the last result, of all its threads.
        ready_ns: when the batch was ready, on the machine's monotonic clock, which all its processes share.
    """

    batch: Batch | PackedBatch | Failure
    counts: dict[str, int]
    spent_ns: dict[Stage, int]
    ready_ns: int


@dataclass(frozen=True)
class ReaderOptions:
    """Everything that a worker needs to know; pickled once, when it starts.

    Attributes:
        table: one split, perhaps some of its partitions only.
        shuffle: how an epoch is ordered.
        schema, tables, transforms, expand, on_bad_id, on_nan, windows: the arguments of ``loader.Loader``.
    """

    table: AnyTable
    schema: Schema
    tables: Mapping[str, Table]
    transforms: Transforms
    shuffle: Shuffle
    expand: bool = False
    on_bad_id: str = "error"
    on_nan: str = "error"
    windows: tuple[str, ...] = ()

    @property
    def stored_schema(self) -> Schema:
        """The features in the groups of the table; ``schema`` may have moved some of them to ``sample``."""
        stored = self.table.manifest.schema
        features = tuple(
            replace(f, group=group_of(f, stored)) if f.group == SAMPLE and (f.name in stored or f.made_from) else f
            for f in self.schema.features
        )
        return replace(self.schema, features=features)

    @property
    def read_schema(self) -> Schema:
        """The features that are read from the table: those of ``schema``, and those from which others are made."""
        features = {f.name: f for f in self.stored_schema.features if not f.made_from}
        for name in (name for f in self.schema.features for name in f.made_from):
            features.setdefault(name, replace(self.table.manifest.schema[name], weights=None))
        return replace(self.schema, features=tuple(features.values()))


class BatchReader:
    """Reads batches of a table, with the shuffle windows in use kept in memory.

    Args:
        options: what to read and how.

    Attributes:
        stopwatch: what the threads that read for it have spent on each stage.

    Raises:
        ConfigError, DataError: options that do not fit the table.
    """

    def __init__(self, options: ReaderOptions) -> None:
        self.stopwatch = Stopwatch()
        self._options, self._preparation = options, _prepare(options)
        files = open_files(options.table, options.read_schema)
        decoder = ShuffleWindowDecoder(files, options.stored_schema, self._preparation, options.shuffle)
        self._cache = ShuffleWindowCache(self.stopwatch.timed("convert", decoder.decode))
        self._batching = Batching(options.schema, options.stored_schema, options.expand, options.windows)
        self._epoch = -1
        self._shuffle_windows: tuple[ShuffleWindow, ...] = ()
        self._starts: list[int] = []
        self._memory = Slabs()

    @staticmethod
    def check(options: ReaderOptions) -> None:
        """Refuses what cannot be read, before anything is decoded.

        Raises:
            ConfigError, DataError: options that do not fit the table; files that are missing or cut off.
        """
        files = open_files(options.table, options.read_schema)
        _prepare(options)
        files.check_sizes()

    def read(self, task: Task, empty: Empty | None = None) -> Batch:
        """Reads the batch of a task.

        Args:
            task: what to read.
            empty: gives the memory of each tensor of the batch; memory of this reader where it is absent.
        """
        if task.epoch != self._epoch:
            self._shuffle_windows = shuffle_windows(self._options.table.manifest, self._options.shuffle, task.epoch)
            self._starts, self._epoch = [s.start for s in self._shuffle_windows], task.epoch
        pieces: list[Piece] = []
        for start, end in task.samples:
            while start < end:
                number = bisect_right(self._starts, start) - 1
                shuffle_window = self._shuffle_windows[number]
                stop = min(end, shuffle_window.end)
                decoded = self._cache.fetch(task.epoch, shuffle_window, self._following(task, number))
                pieces.append((decoded, start - shuffle_window.start, stop - shuffle_window.start))
                start = stop  # noqa: PLW2901
        with self.stopwatch.bound(), measure("collate"):
            return self._batching.batch(pieces, empty or self._memory.empty)

    def _following(self, task: Task, number: int) -> ShuffleWindow | None:
        """The shuffle window to decode ahead: the next one, when this worker goes on beyond the one of that number."""
        end = max(task.gapless_end, task.samples[-1][1])
        return self._shuffle_windows[number + 1] if self._shuffle_windows[number].end < end else None

    def take_counts(self) -> dict[str, int]:
        """For each feature what was dropped or set to zero since the last call."""
        counts, self._preparation.counts = self._preparation.counts, Counter()
        return dict(counts)

    def read_result(self, task: Task, empty: Empty | None = None) -> Result:
        """Reads the batch of a task; an error that the user can mend is returned instead. Arguments are as above."""
        batch: Batch | Failure
        try:
            batch = self.read(task, empty)
        except UserError as error:
            batch = Failure(type(error), str(error))
        return Result(batch, self.take_counts(), self.stopwatch.take_ns(), monotonic_ns())

    def close(self) -> None:
        """Ends the decoding thread."""
        self._cache.close()


def _prepare(options: ReaderOptions) -> RowPreparation:
    """What makes the rows of a table ready."""
    schemas = options.stored_schema, options.read_schema
    return RowPreparation(*schemas, options.tables, options.transforms, options.on_bad_id, options.on_nan)


@dataclass
class TaskResults(Dataset[Result]):
    """The reader as torch wants it, indexed by tasks: what a worker process holds. Each opens its own files.

    Attributes:
        options: what to read and how.
    """

    options: ReaderOptions
    _reader: BatchReader | None = field(default=None, repr=False)
    _blocks: SharedBlocks = field(default_factory=SharedBlocks, repr=False)
    _given_ns: int | None = field(default=None, repr=False)
    """When the last result was given away; until the next task this process waits."""

    def __getitem__(self, task: Task) -> Result:
        if self._reader is None:
            try:
                self._reader = BatchReader(self.options)
            except UserError as error:
                return Result(Failure(type(error), str(error)), {}, {}, monotonic_ns())
        stopwatch = self._reader.stopwatch
        if self._given_ns is not None:
            stopwatch.add("queue", perf_counter_ns() - self._given_ns)
        block = self._blocks.open()
        result = self._reader.read_result(task, block.empty)
        if isinstance(result.batch, Batch):
            packed = stopwatch.timed("collate", self._blocks.pack)(result.batch, block)  # counted with the next result
            result = result._replace(batch=packed, ready_ns=monotonic_ns())
        self._given_ns = perf_counter_ns()
        return result


def start_worker(_number: int) -> None:
    """Sets up a worker process: one thread for torch, and an end when the trainer is killed.

    A forkserver's worker is no child of the trainer, so torch's own watch would not end it. SIGTERM to all processes of
    a job is not for it: the trainer wants a few more batches before it writes its last checkpoint.
    """
    torch.set_num_threads(1)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_exit_after, args=(parent.sentinel,), daemon=True).start()


def _exit_after(sentinel: int) -> None:
    """Ends this process when the process of a sentinel ends."""
    connection.wait([sentinel])
    os._exit(1)


def pass_on(result: Any) -> Any:
    """Collates nothing: what a worker reads is a batch already."""
    return result
