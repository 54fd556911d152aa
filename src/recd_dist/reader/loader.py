"""The loader, which a training loop iterates over to get its batches.

Batches come from worker processes (torch's DataLoader hands them tasks in turn and returns their batches in that
order), from servers (``reader/tier``), or, with ``num_workers=0``, from one thread of this process. The main process
does arithmetic only.
"""

import logging
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch.utils.data import DataLoader, Sampler

from recd_dist.reader.cuts import BatchCutter
from recd_dist.reader.defaults import PREFETCH, SHUFFLE_WINDOW
from recd_dist.reader.intervals import Deal, Dealt, Interval
from recd_dist.reader.open_files import AnyTable
from recd_dist.reader.order import PARTITIONS, SESSIONS, TIME, Shuffle, partition_ends
from recd_dist.reader.position import Position
from recd_dist.reader.reader_pace import ReaderPace
from recd_dist.reader.reading_thread import ThreadedResults
from recd_dist.reader.result_source import ResultSource
from recd_dist.reader.segments import SegmentedDeal
from recd_dist.reader.time_slices import order_of, tell_cost
from recd_dist.reader.transform import Transforms
from recd_dist.reader.transport import PackedBatch
from recd_dist.reader.worker import (
    BatchReader,
    Failure,
    ReaderOptions,
    Result,
    Task,
    TaskResults,
    pass_on,
    start_worker,
)
from recd_dist.reader.worker_process import WorkerContext
from recd_dist.table.schema import Schema, Table
from recd_dist.tensors.batch import Batch

logger = logging.getLogger(__name__)

_DEAL = "deal"
WORK = "work"
"""Where a state has the costs by which batches are cut, if they are."""


class Loader:
    """Batches of one rank, for one epoch at a time.

    Every rank has the same number of batches and every sample of the epoch is in exactly one of them. Iterating starts
    at the position given; when the epoch is trained, ``start_epoch`` goes on with the next.

    Args:
        table: one split, perhaps some of its partitions only.
        schema: features to read, all of the table's or fewer. A feature that the schema has in ``sample``, and the
            table in a group, is read expanded.
        tables: embedding tables by name; ids are hashed into them or checked against them, or stay raw for mapped ones.
        transforms: fitted on the training table; absent where no feature has any.
        batch_size: largest batch of a rank.
        rank: this rank, in [0, world_size).
        world_size: ranks of the job.
        num_workers: reading processes of this rank; 0 reads in a thread.
        seed: one number from which the order of every epoch follows.
        order: in which order the samples of an epoch come, one of ``order.ORDERS``.
        window: row groups of a shuffle window, whose sessions are mixed.
        state: what ``state()`` returned in an earlier run, perhaps of another number of ranks and workers.
        expand: deduplicate nothing (``dedup=off``); batches are expanded where they are read.
        prefetch: batches that each worker reads ahead.
        windows: features whose rows stay windows in a batch where they are stored as such; of others it has lists.
        on_bad_id: ``error`` or ``drop``, for an id outside its table.
        on_nan: ``error`` or ``zero``, for a dense value or a weight that is not finite.
        pin_memory: put batches into page-locked memory, for CUDA.
        cutter: cuts batches by the work of their samples (``batch_size`` is then their largest mean), by ids, or where
            sessions begin. Every rank needs one, and deals together with the others: where a loader is made, and where
            an epoch begins.
        servers: read batches elsewhere; what ``num_workers`` processes would read, so many streams of them do.

    Attributes:
        counts: for each feature the ids dropped and the dense values and weights set to zero. What two workers read,
            because a shuffle window lies on their border, counts twice.
        pace: what reading has taken, by stage, since ``pace.take`` was called.

    Raises:
        ConfigError: options that do not fit each other, the table or the state.
        DataError: files that are missing or cut off.
    """

    def __init__(  # noqa: PLR0913  (each is an option of the reader; they have nothing to group by)
        self,
        table: AnyTable,
        schema: Schema,
        tables: Mapping[str, Table],
        transforms: Transforms | None = None,
        *,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        num_workers: int = 0,
        seed: int = 0,
        order: str = SESSIONS,
        window: int = SHUFFLE_WINDOW,
        state: Mapping[str, Any] | None = None,
        expand: bool = False,
        prefetch: int = PREFETCH,
        windows: Collection[str] = (),
        on_bad_id: str = "error",
        on_nan: str = "error",
        pin_memory: bool = False,
        cutter: BatchCutter | None = None,
        servers: ResultSource | None = None,
    ) -> None:
        shuffle = order_of(table, Shuffle(seed, order, window))
        if rank == 0:
            tell_cost(shuffle)
        self._manifest = table.manifest
        self._options = ReaderOptions(
            table,
            schema,
            tables,
            transforms or Transforms({}),
            shuffle,
            expand,
            on_bad_id,
            on_nan,
            tuple(sorted(windows)),
        )
        if servers is None:
            BatchReader.check(self._options)
        self._rank, self._batch_size, self._prefetch = rank, batch_size, max(prefetch, 1)
        self._world_size = world_size
        self._num_workers = num_workers if servers is None else servers.num_streams(num_workers)
        self._pin_memory, self._cutter, self._servers = pin_memory, cutter, servers
        self._loader: DataLoader[Result] | None = None
        self._reader: BatchReader | None = None
        self._threaded: ThreadedResults | None = None
        self._dealt: Dealt | None = None
        self.counts: Counter[str] = Counter()
        self.pace = ReaderPace()
        self._partition_ends = partition_ends(self._manifest, shuffle)
        start = Position.at_start(self._manifest, shuffle)
        if state is None:
            self._begin(start)
        else:
            self._begin(Position.from_json(state, self._manifest, shuffle), state.get(_DEAL))

    def _begin(self, position: Position, dealt: Mapping[str, Any] | None = None) -> None:
        """Deals what remains at a position, or goes on with a deal of the same shape; iterating starts there."""
        self._position, self._num_done = position, 0
        if dealt is not None:
            first = self._deal_out(tuple((int(start), int(end)) for start, end in dealt["intervals"]))
            if first.is_stored_as(dealt) and (first := self._cut(first)).is_continued(dealt, position.remaining):
                self._dealt, self._num_done = first, int(dealt["trained"])
                return
        self._dealt = self._cut(self._deal_out(position.remaining))

    def _deal_out(self, intervals: tuple[Interval, ...]) -> Dealt:
        """Samples of the epoch, dealt to the ranks and workers of this job by their number."""
        order, shape = self._options.shuffle.order, (self._world_size, max(self._num_workers, 1), self._batch_size)
        deal = Deal(intervals, *shape, order == TIME, self._cutter.rule if self._cutter else {})
        return SegmentedDeal.of(deal, self._partition_ends) if order == PARTITIONS else deal

    def _cut(self, dealt: Dealt) -> Dealt:
        """The deal with its batches cut by the rule of the cutter, where this loader has one; a collective then."""
        cutter = self._cutter
        return dealt.cut_by(lambda deal: cutter.cut(self.epoch, deal)) if cutter else dealt

    @property
    def _deal(self) -> Dealt:
        """The deal of the epoch; a new epoch is dealt when its first batch is wanted, and the last one has none."""
        if self._dealt is None:
            self._begin(self._position)
        return self._dealt  # type: ignore[return-value]  # mypy does not see that it was dealt

    @property
    def epoch(self) -> int:
        """The epoch that iterating reads, counted from 0."""
        return self._position.epoch

    @property
    def num_samples(self) -> int:
        """Samples of an epoch, of all ranks."""
        return self._manifest.num_samples

    def start_epoch(self, epoch: int) -> None:
        """Goes to the beginning of an epoch; workers stay alive."""
        self._position, self._num_done = Position.at_start(self._manifest, self._options.shuffle, epoch), 0
        self._dealt = None

    def state(self, num_trained: int) -> dict[str, Any]:
        """The position of the whole job when every rank has trained its first batches of this iteration.

        Args:
            num_trained: batches that were trained, not only fetched. When all were, the position is the beginning of
                the next epoch.

        Returns:
            A small JSON-ready dict, which ``state`` of a later Loader takes.
        """
        num_done = self._num_done + num_trained
        work = {WORK: self._cutter.rule[WORK]} if self._cutter and WORK in self._cutter.rule else {}
        left = self._deal.remaining_after(num_done) if num_done else self._position.remaining
        if not left:
            return {**Position.at_start(self._manifest, self._options.shuffle, self.epoch + 1).to_json(), **work}
        position = Position(self.epoch, left, self._position.table, self._options.shuffle)
        dealt = {_DEAL: self._deal.to_json(num_done)} if num_done else {}
        return {**position.to_json(), **dealt, **work}

    def __len__(self) -> int:
        """Batches of this rank from where iterating starts to the end of the epoch."""
        return self._deal.num_batches - self._num_done

    def tasks(self, first: int = 0, step: int = 1) -> Iterator[Task]:
        """What this rank reads, one task for each batch.

        Args:
            first: the task to begin with, of those that are left.
            step: 1 for all of them, n for every n-th.
        """
        deal = self._deal
        for number in range(self._num_done + first, deal.num_batches, step):
            yield Task(self.epoch, deal.batch(self._rank, number), deal.gapless_end(self._rank, number))

    def __iter__(self) -> Iterator[Batch]:
        """The batches that are left in this epoch.

        Raises:
            DataError: damaged files; values that cannot be trained on.
            RuntimeError: a worker process has died.
        """
        _ = self._deal  # in this thread: it may be a collective
        with self._open_results() as results:
            for result in results:
                yield self._take_batch(result)

    def _take_batch(self, result: Result) -> Batch:
        """Unpacks a batch, or raises its error; what was dropped is counted, and said once for each feature."""
        batch, counts = result.batch, result.counts
        for name in counts.keys() - self.counts.keys():
            logger.warning("reader: %s: %d so far, dropped or set to 0", name, counts[name])
        self.counts.update(counts)
        if isinstance(batch, Failure):
            raise batch.error(batch.message)
        is_packed = isinstance(batch, PackedBatch)  # then torch's loader has pinned it
        batch = batch.unpack() if isinstance(batch, PackedBatch) else batch
        self.pace.count(result, batch.batch_size)
        return batch.pin_memory() if self._pin_memory and not is_packed else batch

    @contextmanager
    def _open_results(self) -> "Iterator[Iterator[Result]]":
        """The results of this epoch's tasks, from servers, processes or a thread."""
        if self._servers is not None:
            streams = self._deal.num_workers
            tasks = [self.tasks(number, streams) for number in range(streams)]
            with self._servers.results(self._options, tasks, self._prefetch, self._pin_memory) as remote:
                yield remote
            return
        if self._num_workers:
            yield self._read_in_processes()
            return
        if self._threaded is not None:  # an iteration left early and still referred to: one reader, one thread
            self._threaded.close()
        self._threaded = results = ThreadedResults(self._open_reader(), self.tasks(), self._prefetch)
        try:
            yield iter(results)
        finally:
            results.close()

    def _open_reader(self) -> BatchReader:
        """The reader of this process, made at the first call."""
        if self._reader is None:
            self._reader = BatchReader(self._options)
        return self._reader

    def _read_in_processes(self) -> Iterator[Result]:
        """The results of this epoch's tasks, from worker processes."""
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
        """Torch's loader, made at the first call; its workers live as long as it does."""
        if self._loader is None:
            self._loader = DataLoader(
                TaskResults(self._options),
                sampler=EpochTasks(self),
                batch_size=None,
                collate_fn=pass_on,
                num_workers=self._num_workers,
                prefetch_factor=self._prefetch,
                persistent_workers=True,
                pin_memory=self._pin_memory,
                multiprocessing_context=WorkerContext(),
                worker_init_fn=start_worker,
            )
        return self._loader

    def close(self) -> None:
        """Ends worker processes and threads, and leaves servers."""
        if self._servers is not None:
            self._servers.close()
        if self._threaded is not None:
            self._threaded.close()
        if self._reader is not None:
            self._reader.close()
        self._reader = self._loader = None


class EpochTasks(Sampler[Task]):
    """The loader's tasks as torch wants them: those of the epoch that the loader is in when iterating begins.

    Args:
        loader: the tasks are its.
    """

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def __iter__(self) -> Iterator[Task]:
        return self._loader.tasks()

    def __len__(self) -> int:
        return len(self._loader)
