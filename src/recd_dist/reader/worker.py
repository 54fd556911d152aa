"""What a worker process (or the reading thread) does: a task in, a batch out."""

import os
import threading
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from multiprocessing import connection, parent_process
from typing import Any

import torch
from torch.utils.data import Dataset

from recd_dist.errors import UserError
from recd_dist.reader.batching import Piece, to_batch
from recd_dist.reader.intervals import Interval
from recd_dist.reader.order import Shuffle, Window, epoch_windows
from recd_dist.reader.shuffle_window import WindowCache, WindowDecoder
from recd_dist.reader.table_files import TableFiles
from recd_dist.reader.transform import Transforms
from recd_dist.reader.transport import Packed, pack
from recd_dist.table.clustered import ClusteredTable
from recd_dist.table.schema import SAMPLE, Schema, Table
from recd_dist.tensors.batch import Batch


@dataclass(frozen=True)
class Task:
    """A batch to read.

    Attributes:
        epoch: counted from 0.
        samples: intervals of the epoch's stream.
        until: the same worker reads on from here to this sample of the stream without a gap.
    """

    epoch: int
    samples: tuple[Interval, ...]
    until: int = 0


@dataclass(frozen=True)
class Failure:
    """An error of the user's, carried to the trainer as it is (torch would bury its message in a traceback)."""

    error: type[UserError]
    message: str


Result = tuple[Batch | Packed | Failure, dict[str, int]]
"""A batch and what was dropped or zeroed since the last one, per feature."""


@dataclass(frozen=True)
class ReaderOptions:
    """Everything that a worker needs to know; pickled once, when it starts. See ``loader.Loader``."""

    table: ClusteredTable
    schema: Schema
    tables: Mapping[str, Table]
    transforms: Transforms
    shuffle: Shuffle
    expand: bool = False
    on_bad_id: str = "error"
    on_nan: str = "error"

    @property
    def stored(self) -> Schema:
        """The features in the groups of the table; ``schema`` may have moved some of them to ``sample``."""
        there = self.table.manifest.schema
        features = tuple(
            replace(f, group=there[f.name].group) if f.group == SAMPLE and f.name in there else f
            for f in self.schema.features
        )
        return replace(self.schema, features=features)


class BatchReader:
    """Reads batches of a table, with the windows in use kept in memory.

    Args:
        options: what to read and how.

    Raises:
        ConfigError, DataError: options that do not fit the table.
    """

    def __init__(self, options: ReaderOptions) -> None:
        self._options, self._stored = options, options.stored
        files = TableFiles(options.table, options.stored)
        self._decoder = WindowDecoder(
            files, options.tables, options.transforms, options.shuffle, options.on_bad_id, options.on_nan
        )
        self._cache = WindowCache(self._decoder.decode)
        self._epoch = -1
        self._windows: tuple[Window, ...] = ()
        self._starts: list[int] = []

    @staticmethod
    def check(options: ReaderOptions) -> None:
        """Raises what reading would: options that do not fit the table, files missing or truncated. Decodes nothing."""
        files = TableFiles(options.table, options.stored)
        WindowDecoder(files, options.tables, options.transforms, options.shuffle, options.on_bad_id, options.on_nan)
        files.check_sizes()

    def read(self, task: Task) -> Batch:
        """The batch of a task."""
        if task.epoch != self._epoch:
            self._windows = epoch_windows(self._options.table.manifest, self._options.shuffle, task.epoch)
            self._starts, self._epoch = [w.start for w in self._windows], task.epoch
        pieces: list[Piece] = []
        for start, end in task.samples:
            while start < end:
                number = self._number(start)
                window = self._windows[number]
                stop = min(end, window.end)
                decoded = self._cache.window(task.epoch, window, self._following(task, number))
                pieces.append((decoded, decoded.order[start - window.start : stop - window.start]))
                start = stop  # noqa: PLW2901
        return to_batch(pieces, self._options.schema, self._options.expand, self._stored)

    def _number(self, sample: int) -> int:
        """The window that holds a sample of the stream."""
        return bisect_right(self._starts, sample) - 1

    def _following(self, task: Task, number: int) -> Window | None:
        """The window to decode ahead: the next one when this worker goes on beyond this one."""
        until = max(task.until, task.samples[-1][1])
        return self._windows[number + 1] if self._windows[number].end < until else None

    def counts(self) -> dict[str, int]:
        """What was dropped or zeroed since the last call, per feature."""
        counts, self._decoder.counts = self._decoder.counts, Counter()
        return dict(counts)

    def result(self, task: Task) -> Result:
        """The batch of a task, or the user's error that it met."""
        try:
            return self.read(task), self.counts()
        except UserError as error:
            return Failure(type(error), str(error)), self.counts()

    def close(self) -> None:
        """Ends the decoding thread."""
        self._cache.close()


@dataclass
class Tasks(Dataset[Result]):
    """torch's view of the reader, indexed by tasks: what a worker process holds. Each opens its own files."""

    options: ReaderOptions
    _reader: BatchReader | None = field(default=None, repr=False)

    def __getitem__(self, task: Task) -> Result:
        if self._reader is None:
            try:
                self._reader = BatchReader(self.options)
            except UserError as error:
                return Failure(type(error), str(error)), {}
        batch, counts = self._reader.result(task)
        return pack(batch) if isinstance(batch, Batch) else batch, counts


def start_worker(_number: int) -> None:
    """Sets up a worker process: one thread for torch, and an end when the trainer is killed.

    A forkserver's worker is no child of the trainer, so torch's own watch would not end it.
    """
    torch.set_num_threads(1)
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)


def unchanged(result: Any) -> Any:
    """What is read is a batch already: nothing to collate."""
    return result
