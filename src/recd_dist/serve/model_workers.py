"""The workers of one model: started, replaced when they die, and ended when another model has taken over."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from recd_dist.errors import ConfigError
from recd_dist.serve.scoring_process import AnsweredBatch, ScoringProcess
from recd_dist.serve.served_model import LoadedModel
from recd_dist.serve.waiting_requests import WaitingRequest

logger = logging.getLogger(__name__)

_LOADING = 5
"""How many times as long as a batch the loading of a model may take before it counts as hanging."""
_LONGEST_PAUSE_S = 5.0
_SETTLED_S = 30.0
"""Seconds after which a worker that dies is replaced without a pause."""


class WorkerStarts:
    """How workers are started; one is kept waiting without a model, since imports take seconds and a model less.

    Args:
        command: starts a worker.
        threads: threads that each computes with.
        dedup: whether equal rows are computed once.
        keep_spare: whether one is kept waiting.
    """

    def __init__(self, command: Sequence[str], threads: int, dedup: bool, keep_spare: bool) -> None:
        self._command, self._threads, self._dedup, self._keep_spare = command, threads, dedup, keep_spare
        self._spare: ScoringProcess | None = None
        self._of: dict[int, ModelWorkers] = {}
        self._is_closed = False

    def start(self, workers: "ModelWorkers") -> ScoringProcess:
        """A worker without a model, for the workers of one."""
        process, self._spare = self._spare or self._new(), None
        self._of[process.pid] = workers
        return process

    def prepare(self) -> None:
        """Starts the one that waits, where there is none."""
        if self._keep_spare and self._spare is None and not self._is_closed:
            self._spare = self._new()

    def close(self) -> None:
        """Ends the one that waits."""
        self._is_closed = True
        if self._spare is not None:
            self._spare.kill()

    def _new(self) -> ScoringProcess:
        return ScoringProcess(self._command, self._threads, self._dedup, self._answered, self._died)

    def _answered(self, process: ScoringProcess, batch: AnsweredBatch) -> None:
        self._of[process.pid].note_answer(batch)

    def _died(self, process: ScoringProcess) -> None:
        if process is self._spare:
            self._spare = None
        if (workers := self._of.pop(process.pid, None)) is not None:
            workers.note_death(process)


class ModelWorkers:
    """Workers that have one model.

    Args:
        directory: the export.
        starts: starts workers.
        num: how many there are to be.
        on_answer: called after each batch.
        on_room: called when a worker can take a batch.
        on_lost: takes what a worker had that has died.
    """

    def __init__(
        self,
        directory: str,
        starts: WorkerStarts,
        num: int,
        on_answer: Callable[[AnsweredBatch], None],
        on_room: Callable[[], None],
        on_lost: Callable[[ScoringProcess, Sequence[WaitingRequest]], None],
    ) -> None:
        self.directory = directory
        self._starts, self._num = starts, num
        self._on_answer, self._on_room, self._on_lost = on_answer, on_room, on_lost
        self._processes: list[ScoringProcess] = []
        self._replacing: set[asyncio.Task[None]] = set()
        self._num_quick_deaths = 0
        self.is_retired = False
        self.model: LoadedModel | None = None

    async def start(self) -> LoadedModel:
        """Starts them, and returns when all have the model.

        Raises:
            ConfigError: the export cannot be loaded; none of them is left.
        """
        self._processes = [self._starts.start(self) for _ in range(self._num)]
        loading = [asyncio.create_task(process.load(self.directory)) for process in self._processes]
        try:
            models = await asyncio.gather(*loading)
        except ConfigError:
            self.is_retired = True
            for process in self._processes:
                process.kill()
            await asyncio.gather(*loading, return_exceptions=True)
            raise
        self.model = models[0]
        return models[0]

    @property
    def num_ready(self) -> int:
        """Workers that have the model."""
        return sum(process.model is not None for process in self._processes)

    @property
    def pids(self) -> list[int]:
        """Numbers of the processes."""
        return [process.pid for process in self._processes]

    def with_room(self) -> ScoringProcess | None:
        """A worker that takes a batch."""
        return next((process for process in self._processes if process.can_take), None)

    def kill_hung(self, hang_s: float) -> None:
        """Ends workers that have owed an answer, or have loaded, for too long, as if they had died."""
        for process in self._processes:
            if process.busy_s() > hang_s:
                logger.warning("serve: worker %d has not answered for %g s; it is ended", process.pid, hang_s)
                process.kill()
            elif process.loading_s() > _LOADING * hang_s:
                logger.warning("serve: worker %d has loaded for %g s; it is ended", process.pid, _LOADING * hang_s)
                process.kill()

    async def retire(self) -> None:
        """Ends them when their batches are answered."""
        self.is_retired = True
        for task in self._replacing:
            task.cancel()
        for process in self._processes:
            process.end()
        await asyncio.gather(*(process.wait() for process in self._processes))

    def kill(self) -> None:
        """Ends them at once."""
        self.is_retired = True
        for process in self._processes:
            process.kill()

    def note_answer(self, batch: AnsweredBatch) -> None:
        """Takes what a worker has done."""
        self._on_answer(batch)
        self._on_room()

    def note_death(self, process: ScoringProcess) -> None:
        """Replaces a worker that has died, and hands on what it had."""
        self._processes.remove(process)
        lost = process.give_up()
        if self.is_retired and not lost:
            return
        if not self.is_retired and process.model is not None:
            self._replace(process)
        self._on_lost(process, lost)

    def _replace(self, process: ScoringProcess) -> None:
        is_quick = time.monotonic() - process.since < _SETTLED_S
        self._num_quick_deaths = self._num_quick_deaths + 1 if is_quick else 0
        task = asyncio.create_task(self._start_another())
        self._replacing.add(task)
        task.add_done_callback(self._replacing.discard)

    async def _start_another(self) -> None:
        """Starts a worker in the place of one; again and again, where that fails."""
        while not self.is_retired:
            if self._num_quick_deaths > 1:
                await asyncio.sleep(min(0.1 * 2**self._num_quick_deaths, _LONGEST_PAUSE_S))
            process = self._starts.start(self)
            self._processes.append(process)
            try:
                await process.load(self.directory)
            except ConfigError as error:
                logger.warning("serve: a worker cannot be started anew: %s", error)
                self._num_quick_deaths += 1
                process.kill()
                continue
            except asyncio.CancelledError:
                process.kill()
                raise
            self._starts.prepare()
            self._on_room()
            return
