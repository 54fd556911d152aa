"""Scores of a rank, gathered into parts that follow each other in the table, and written while it goes on.

::

    batches of two workers   [0 3) [50 53) [3 6) [53 56) ...      each comes with its scores
    open parts               [0 6)  [50 56)                       grow until they are full
    a thread                 keys of [0 262,144) beside its scores --> Parquet --> kept under its name
"""

import logging
import queue
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from recd_dist.reader.intervals import Interval
from recd_dist.train.score_directory import ScoreDirectory

logger = logging.getLogger(__name__)

_ROW_GROUP = 1 << 17  # samples of a row group of the scores
_WAITING = 1  # parts that wait to be written, beside the one that is: more would only take memory

Reduce = Callable[[pa.Table, int], pa.Table]
"""What becomes of the rows of a part, which begins with a sample of that number."""


class BesideScores(Protocol):
    """What stands beside scores."""

    @property
    def names(self) -> tuple[str, ...]:
        """The columns."""

    def read(self, start: int, end: int) -> Iterable[pa.Table]:
        """The rows of samples [start, end), in order."""


class ScoreParts:
    """The parts of a rank. A context manager: at its end all of them are written, unless it ends by an error.

    Args:
        directory: takes the parts.
        beside: what stands beside the scores; it is read by the thread that writes.
        widths: the columns of scores by name, with their width: 1 for a number, else a vector.
        num_samples: samples of a part, at most.
        reduce: what becomes of its rows before they are written; None keeps them all.
    """

    def __init__(
        self,
        directory: ScoreDirectory,
        beside: BesideScores,
        widths: Mapping[str, int],
        num_samples: int,
        reduce: Reduce | None = None,
    ) -> None:
        self._directory, self._beside, self._widths = directory, beside, dict(widths)
        self._most, self._reduce = num_samples, reduce
        self._open: dict[int, tuple[int, list[NDArray[np.float32]]]] = {}  # by the sample that would follow
        self._queue: queue.Queue[tuple[int, NDArray[np.float32]] | None] = queue.Queue(_WAITING)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="recd-scores", daemon=True)
        self._thread.start()

    def add(self, samples: Sequence[Interval], scores: NDArray[np.float32]) -> None:
        """Adds the scores of a batch.

        Args:
            samples: the intervals of its samples, in their order.
            scores: float32 [B, sum of widths].

        Raises:
            DataError: an earlier part cannot be written.
        """
        place = 0
        for start, end in samples:
            self._add_interval(start, end, scores[place : place + end - start])
            place += end - start

    def _add_interval(self, start: int, end: int, scores: NDArray[np.float32]) -> None:
        while len(scores):
            first, held = self._open.pop(start, (start, []))
            last = min(end, first + self._most)
            held.append(scores[: last - start])
            start, scores = last, scores[last - start :]
            if last - first == self._most:
                self._put((first, np.concatenate(held)))
            else:
                self._open[last] = (first, held)

    def _put(self, part: tuple[int, NDArray[np.float32]] | None) -> None:
        while self._error is None:
            try:
                self._queue.put(part, timeout=1)
            except queue.Full:
                continue
            return
        raise self._error

    def __enter__(self) -> "ScoreParts":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            for first, held in self._open.values():
                self._put((first, np.concatenate(held)))
            self._put(None)
            self._thread.join()
            if self._error is not None:
                raise self._error
        elif self._error is None:
            self._error = error or RuntimeError()  # the thread ends after the part that it writes

    def _run(self) -> None:
        try:
            while (part := self._queue.get()) is not None and self._error is None:
                self._write(*part)
        except BaseException as error:
            self._error = error

    def _write(self, start: int, scores: NDArray[np.float32]) -> None:
        draft, end = self._directory.draft(start), start + len(scores)
        columns = np.split(scores, np.cumsum([*self._widths.values()])[:-1], axis=1)
        by_name = {n: c[:, 0] if w == 1 else c for (n, w), c in zip(self._widths.items(), columns, strict=True)}
        write_scores(draft, self._beside, by_name, start, self._reduce)
        self._directory.keep(draft, start, end)


def write_scores(
    path: Path,
    beside: BesideScores,
    scores: Mapping[str, NDArray[np.float32]],
    start: int,
    reduce: Reduce | None = None,
) -> None:
    """Writes a file of samples that follow each other in the table.

    Args:
        path: the file.
        beside: the columns that stand beside the scores.
        scores: the columns by name, float32 [samples], or [samples, D] for vectors.
        start: where the samples begin in the table's order.
        reduce: what becomes of the rows before they are written.
    """
    waiting: list[pa.Table] = []
    writer: pq.ParquetWriter | None = None
    done, end = start, start + len(next(iter(scores.values())))
    try:
        for rows in beside.read(start, end):
            for name, column in scores.items():
                chosen = to_arrow(column[done - start : done - start + len(rows)])
                rows = rows.append_column(name, chosen)  # noqa: PLW2901
            waiting.append(rows)
            done += len(rows)
            if done == end or (reduce is None and sum(map(len, waiting)) >= _ROW_GROUP):
                table = pa.concat_tables(waiting, promote_options="permissive")
                table = table if reduce is None else reduce(table, start)
                writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd")
                writer.write_table(table.cast(writer.schema))
                waiting = []
    finally:
        if writer is not None:
            writer.close()


def to_arrow(numbers: NDArray[np.float32]) -> pa.Array:
    """A column of numbers, or of vectors as lists of one length.

    Args:
        numbers: float32 [samples] or [samples, D].
    """
    if numbers.ndim == 1:
        return pa.array(np.ascontiguousarray(numbers))
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(numbers).reshape(-1)), numbers.shape[1])
