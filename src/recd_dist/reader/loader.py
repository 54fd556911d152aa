"""The loop over batches: ``for batch in Loader(...)``.

Batches come from worker processes (torch's DataLoader hands them tasks in turn and returns their batches in that
order) or, with ``num_workers=0``, from one thread of this process. The main process does arithmetic only.
"""

import logging
import multiprocessing
import queue
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch.utils.data import DataLoader, Sampler

from recd_dist.reader.intervals import Deal, Position
from recd_dist.reader.order import Shuffle
from recd_dist.reader.transform import Transforms
from recd_dist.reader.transport import Packed
from recd_dist.reader.worker import BatchReader, Failure, ReaderOptions, Result, Task, Tasks, start_worker, unchanged
from recd_dist.table.clustered import ClusteredTable
from recd_dist.table.schema import Schema, Table
from recd_dist.tensors.batch import Batch

logger = logging.getLogger(__name__)
_PRELOAD = ["recd_dist.reader.forkserver"]


class Loader:
    """Batches of one rank, for one epoch at a time.

    Every rank has the same number of batches and every sample of the epoch is in exactly one of them. Iterating starts
    at the position given; when the epoch is trained, ``start_epoch`` goes on with the next.

    Args:
        table: one split, perhaps some of its partitions only.
        schema: features to read, all of the table's or fewer; those that it has in ``sample`` are read expanded.
        tables: embedding tables by name; ids are hashed or checked against them.
        transforms: fitted on the training table; none when absent.
        batch_size: largest batch of a rank.
        rank, world_size: place in the job.
        num_workers: reading processes of this rank; 0 reads in a thread.
        seed, shuffle, window: order of every epoch; a window is the row groups whose sessions are mixed.
        state: what ``state()`` returned in an earlier run, perhaps of another number of ranks and workers.
        expand: batches with nothing deduplicated (``dedup=off``), expanded where they are read.
        prefetch: batches read ahead by each worker.
        on_bad_id: ``error`` or ``drop`` an id outside its table.
        on_nan: ``error`` or ``zero`` for a dense value or a weight that is not finite.
        pin_memory: page-locked batches, for CUDA.
        start_method: of worker processes. A forkserver has no threads that a fork could catch holding a lock.

    Attributes:
        epoch: counted from 0.
        wait_s: time that this process was blocked waiting for a batch, since the start.
        counts: ids dropped, dense values and weights zeroed, per feature. A window read by two workers counts twice.

    Raises:
        ConfigError: options that do not fit each other, the table or the state.
        DataError: files that are missing or cut off.
    """

    def __init__(  # noqa: PLR0913  (each is an option of the reader; they have nothing to group by)
        self,
        table: ClusteredTable,
        schema: Schema,
        tables: Mapping[str, Table],
        transforms: Transforms | None = None,
        *,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        num_workers: int = 0,
        seed: int = 0,
        shuffle: bool = True,
        window: int = 8,
        state: Mapping[str, Any] | None = None,
        expand: bool = False,
        prefetch: int = 2,
        on_bad_id: str = "error",
        on_nan: str = "error",
        pin_memory: bool = False,
        start_method: str = "forkserver",
    ) -> None:
        order = Shuffle(seed, shuffle, window)
        self._manifest = table.manifest
        self._options = ReaderOptions(
            table, schema, tables, transforms or Transforms({}), order, expand, on_bad_id, on_nan
        )
        BatchReader.check(self._options)
        self._rank, self._batch_size, self._prefetch = rank, batch_size, max(prefetch, 1)
        self._world_size, self._num_workers = world_size, num_workers
        self._pin_memory, self._start_method = pin_memory, start_method
        self._loader: DataLoader[Result] | None = None
        self._reader: BatchReader | None = None
        self._results_taken: ThreadedResults | None = None
        self.wait_s = 0.0
        self.counts: Counter[str] = Counter()
        start = Position.start(self._manifest, order)
        self._begin(start if state is None else Position.from_json(state, self._manifest, order))

    def _begin(self, position: Position) -> None:
        self._position = position
        self._deal = Deal(position.remaining, self._world_size, max(self._num_workers, 1), self._batch_size)

    @property
    def epoch(self) -> int:
        """The epoch that iterating reads, counted from 0."""
        return self._position.epoch

    @property
    def num_samples(self) -> int:
        """Samples that were left in this epoch, of all ranks, where iterating starts."""
        return self._deal.num_samples

    def start_epoch(self, epoch: int) -> None:
        """Goes to the beginning of an epoch; workers stay alive."""
        self._begin(Position.start(self._manifest, self._options.shuffle, epoch))

    def state(self, num_trained: int) -> dict[str, Any]:
        """The position of the whole job when every rank has trained its first batches of this iteration.

        Args:
            num_trained: batches trained, not fetched. All of them is the beginning of the next epoch.
        """
        left = self._deal.after(num_trained)
        if not left:
            return Position.start(self._manifest, self._options.shuffle, self.epoch + 1).to_json()
        return Position(self.epoch, left, self._position.table, self._options.shuffle).to_json()

    def __len__(self) -> int:
        """Batches of this rank from where iterating starts to the end of the epoch."""
        return self._deal.num_batches

    def tasks(self) -> Iterator[Task]:
        """What this rank reads, batch after batch."""
        for number in range(len(self)):
            samples = self._deal.batch(self._rank, number)
            yield Task(self.epoch, samples, self._deal.until(self._rank, number))

    def __iter__(self) -> Iterator[Batch]:
        """The batches that are left in this epoch.

        Raises:
            DataError: what is read cannot be trained on.
            RuntimeError: a worker process has died.
        """
        with self._results() as results:
            while True:
                start = time.perf_counter()
                result = next(results, None)
                self.wait_s += time.perf_counter() - start
                if result is None:
                    return
                yield self._batch(*result)

    def _batch(self, batch: Batch | Packed | Failure, counts: Mapping[str, int]) -> Batch:
        """A batch that is whole; what was dropped is counted and said once per feature."""
        for name in counts.keys() - self.counts.keys():
            logger.warning("reader: %s: %d so far, dropped or set to 0", name, counts[name])
        self.counts.update(counts)
        if isinstance(batch, Failure):
            raise batch.error(batch.message)
        if isinstance(batch, Packed):
            return batch.batch()
        return batch.pin_memory() if self._pin_memory else batch

    @contextmanager
    def _results(self) -> "Iterator[Iterator[Result]]":
        """The results of this epoch's tasks, from processes or from a thread."""
        if self._num_workers:
            yield self._from_processes()
            return
        if self._results_taken is not None:  # an iteration left early and still referred to: one reader, one thread
            self._results_taken.close()
        self._results_taken = results = ThreadedResults(self._in_process(), self.tasks(), self._prefetch)
        try:
            yield iter(results)
        finally:
            results.close()

    def _in_process(self) -> BatchReader:
        if self._reader is None:
            self._reader = BatchReader(self._options)
        return self._reader

    def _from_processes(self) -> Iterator[Result]:
        try:
            yield from self._data_loader()
        except (RuntimeError, ConnectionError, EOFError) as error:
            # A worker killed while it hands a batch over shows as a connection that ended.
            if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
                raise
            raise RuntimeError(
                f"reader: a worker process of rank {self._rank} has died ({error}); out of memory, or /dev/shm is too "
                "small? Fewer reader.num_workers, a smaller reader.window or reader.num_workers=0 need less"
            ) from error

    def _data_loader(self) -> "DataLoader[Result]":
        if self._loader is None:
            context = multiprocessing.get_context(self._start_method)
            if self._start_method == "forkserver":
                context.set_forkserver_preload(_PRELOAD)
            self._loader = DataLoader(
                Tasks(self._options),
                sampler=EpochTasks(self),
                batch_size=None,
                collate_fn=unchanged,
                num_workers=self._num_workers,
                prefetch_factor=self._prefetch,
                persistent_workers=True,
                pin_memory=self._pin_memory,
                multiprocessing_context=context,
                worker_init_fn=start_worker,
            )
        return self._loader

    def close(self) -> None:
        """Ends worker processes and threads."""
        if self._results_taken is not None:
            self._results_taken.close()
        if self._reader is not None:
            self._reader.close()
        self._reader = self._loader = None


class EpochTasks(Sampler[Task]):
    """torch's view of the loader's tasks: those of the epoch that it stands in when iterating begins."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def __iter__(self) -> Iterator[Task]:
        return self._loader.tasks()

    def __len__(self) -> int:
        return len(self._loader)


class ThreadedResults:
    """Results of tasks, read ahead by one thread. An error of the thread is raised where results are taken.

    Args:
        reader: used by this thread alone while it runs.
        tasks: to read.
        size: results that may wait.
    """

    def __init__(self, reader: BatchReader, tasks: Iterator[Task], size: int) -> None:
        self._queue: queue.Queue[Result | BaseException | None] = queue.Queue(size)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(reader, tasks), name="recd-reader", daemon=True)
        self._thread.start()

    def _run(self, reader: BatchReader, tasks: Iterator[Task]) -> None:
        try:
            for task in tasks:
                if not self._put(reader.result(task)):
                    return
            self._put(None)
        except BaseException as error:
            self._put(error)

    def _put(self, item: "Result | BaseException | None") -> bool:
        """Waits for room; False when nobody takes results any more."""
        while not self._stopped.is_set():
            try:
                self._queue.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def __iter__(self) -> Iterator[Result]:
        while (item := self._queue.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item

    def close(self) -> None:
        """Ends the thread after the batch that it is reading; who still takes results gets an error, not a hang."""
        self._stopped.set()
        self._thread.join()
        while not self._queue.empty():
            self._queue.get_nowait()
        self._queue.put(RuntimeError("reader: this iteration was ended by a newer one or by close()"))
