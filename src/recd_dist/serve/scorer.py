"""Requests to scores: a queue, workers that score batches of it, and a change of the model while it goes on.

::

    score --> WaitingRequests --> ModelWorkers of the model --> scores
                   ^                    |  a worker dies: what it had goes back, first in the queue
                   '--------------------'
    reload: workers of the new export load and score its sample, then take over; the old ones answer what they have

No request is lost with a worker: the front has it until it is answered. One that was in the batch of a worker that died
is scored alone next; when two workers die of it alone, its client is told so.
"""

import asyncio
import logging
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from recd_dist.errors import ConfigError
from recd_dist.job.serve_options import ServeConfig
from recd_dist.serve.body_columns import RequestColumns
from recd_dist.serve.model_workers import ModelWorkers, WorkerStarts
from recd_dist.serve.refused import (
    DEADLINE,
    NOT_READY,
    RELOAD_FAILED,
    RELOADING,
    SCORING_FAILED,
    RefusedError,
)
from recd_dist.serve.scoring_process import AnsweredBatch, ScoringProcess
from recd_dist.serve.served_model import LoadedModel
from recd_dist.serve.service_metrics import ServiceMetrics
from recd_dist.serve.waiting_requests import Scored, WaitingRequest, WaitingRequests

logger = logging.getLogger(__name__)

_MOST_DEATHS = 2
_LOOK_S = 0.5


class HungUpError(Exception):
    """The client of a request is gone."""


class Scorer:
    """Scores requests with the newest model.

    Args:
        config: how many workers, batches and limits.
        command: starts a worker.
        metrics: what is counted.
    """

    def __init__(self, config: ServeConfig, command: Sequence[str], metrics: ServiceMetrics) -> None:
        self._config, self._metrics = config, metrics
        batch = config.batch
        self._waiting = WaitingRequests(config.limits.queue, batch.max_candidates, batch.max_requests)
        self._starts = WorkerStarts(command, config.threads, config.dedup, config.spare)
        self._workers: ModelWorkers | None = None
        self._loading: ModelWorkers | None = None
        self._reloading = asyncio.Lock()
        self._retiring: dict[asyncio.Task[None], ModelWorkers] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._looking: asyncio.Task[None] | None = None
        self.is_draining = False
        metrics.watch(lambda: len(self._waiting), lambda: self.num_ready)

    async def start(self, directory: str) -> LoadedModel:
        """Loads the first model.

        Raises:
            ConfigError: it cannot be loaded.
        """
        workers = self._new_workers(directory)
        model = await workers.start()
        self._take_over(workers, model)
        self._looking = asyncio.create_task(self._look())
        return model

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def model(self) -> LoadedModel:
        """The model that scores new requests.

        Raises:
            RefusedError: none is loaded yet.
        """
        if self._workers is None or self._workers.model is None:
            raise RefusedError(NOT_READY, "the model is being loaded; ask again", retry_after_s=1)
        return self._workers.model

    @property
    def directory(self) -> str:
        """The export that new requests are scored with, links resolved."""
        return self._workers.directory if self._workers is not None else ""

    @property
    def num_ready(self) -> int:
        """Workers that score."""
        return self._workers.num_ready if self._workers is not None else 0

    @property
    def pids(self) -> list[int]:
        """Numbers of the worker processes."""
        return self._workers.pids if self._workers is not None else []

    async def score(
        self, columns: RequestColumns, timeout_s: float, hung_up: "Awaitable[object] | None" = None
    ) -> Scored:
        """Scores a request.

        Args:
            columns: the request.
            timeout_s: seconds after which it is given up.
            hung_up: ends when the client is gone.

        Raises:
            RefusedError: there are no scores, and why.
            HungUpError: the client is gone; the request is not scored where it has still waited.
        """
        if self._workers is None:
            raise RefusedError(NOT_READY, "the model is being loaded; ask again", retry_after_s=1)
        request = WaitingRequest(columns, asyncio.get_running_loop().create_future())
        self._waiting.put(request)
        self._send()
        gone = asyncio.ensure_future(hung_up) if hung_up is not None else None
        try:
            waited: set[asyncio.Future[Any]] = {request.answer, *([gone] if gone is not None else [])}
            await asyncio.wait(waited, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if request.answer.done():
                return request.answer.result()
            if gone is not None and gone.done():
                raise HungUpError
            raise RefusedError(
                DEADLINE, f"no scores within {timeout_s:g} s; ask again, wait longer, or start more workers", None, 1
            )
        finally:
            request.answer.cancel()
            if gone is not None:
                gone.cancel()

    async def reload(self, directory: str) -> LoadedModel:
        """Loads another export, or the same one again, and scores new requests with it.

        Args:
            directory: the export; a link is followed now, so that workers which start later load the same.

        Raises:
            RefusedError: it cannot be loaded, and the old one goes on; or another one is being loaded.
        """
        if self._reloading.locked():
            raise RefusedError(RELOADING, "another model is being loaded; ask again when it is there", None, 5)
        async with self._reloading:
            workers = self._loading = self._new_workers(directory)
            try:
                model = await workers.start()
            except ConfigError as error:
                self._metrics.count_reload(False)
                self._starts.prepare()
                kept = self._workers.model.identity if self._workers and self._workers.model else {}
                logger.warning("serve: %s is not taken: %s", directory, error)
                text = f"{error}; step {kept.get('step')} of {kept.get('name')} goes on"
                raise RefusedError(RELOAD_FAILED, text) from error
            finally:
                self._loading = None
            self._take_over(workers, model)
            self._metrics.count_reload(True)
            return model

    async def close(self, wait_s: float) -> None:
        """Ends the workers, when all that waits is answered, or after some seconds."""
        self.is_draining = True
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                while len(self._waiting):
                    await asyncio.sleep(0.02)
                if self._workers is not None:
                    await self._workers.retire()
                await asyncio.gather(*self._retiring)
        self._waiting.fail_all(RefusedError(NOT_READY, "the service ends; ask another one", None, 1))
        if self._looking is not None:
            self._looking.cancel()
        self._starts.close()
        for workers in self._all_workers():
            workers.kill()

    def _new_workers(self, directory: str) -> ModelWorkers:
        resolved = str(Path(directory).resolve())
        return ModelWorkers(
            resolved, self._starts, self._config.workers, self._note_answer, self._send, self._take_back
        )

    def _take_over(self, workers: ModelWorkers, model: LoadedModel) -> None:
        old, self._workers = self._workers, workers
        self._metrics.set_model(model)
        if old is not None:
            logger.info("serve: step %d of %s (%s) has taken over", model.step, model.name, workers.directory)
            task = asyncio.create_task(old.retire())
            self._retiring[task] = old
            task.add_done_callback(self._retiring.pop)
        self._starts.prepare()
        self._send()

    def _send(self) -> None:
        """Gives batches to workers that can take some."""
        wait_s = self._config.batch.max_wait_ms / 1000
        while len(self._waiting) and self._workers is not None:
            process = self._workers.with_room()
            if process is None:
                return
            left_s = wait_s - self._waiting.oldest_s()
            if wait_s and left_s > 0 and not self.is_draining and not self._waiting.is_full():
                self._send_later(left_s)
                return
            if batch := self._waiting.take():
                process.send(batch)

    def _send_later(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._send)

    def _note_answer(self, batch: AnsweredBatch) -> None:
        self._metrics.count_batch(batch)
        self._waiting.note_pace(batch.num_requests, batch.total_s)

    def _take_back(self, process: ScoringProcess, lost: Sequence[WaitingRequest]) -> None:
        """Puts what a dead worker had first in the queue, under suspicion."""
        self._metrics.count_death()
        back: list[WaitingRequest] = []
        for request in (request for request in lost if request.is_wanted):
            request.num_deaths += len(lost) == 1
            request.is_suspect = True
            if request.num_deaths < _MOST_DEATHS:
                back.append(request)
                continue
            num, size = request.columns.num_candidates, len(request.columns.candidates) + len(request.columns.user)
            logger.error("serve: workers died of a request of %d candidates, %d bytes; it is given up", num, size)
            text = f"{_MOST_DEATHS} workers have died of this request; the log of the service says more"
            request.fail(RefusedError(SCORING_FAILED, text))
        logger.warning(
            "serve: worker %d has ended; %d requests that it had are scored by another", process.pid, len(back)
        )
        self._waiting.put_back(back)
        self._send()

    async def _look(self) -> None:
        """Ends workers that hang."""
        while True:
            await asyncio.sleep(_LOOK_S)
            for workers in self._all_workers():
                workers.kill_hung(self._config.hang_s)

    def _all_workers(self) -> list[ModelWorkers]:
        """The workers of the newest model, of one that is loaded, and of those before that answer what they have."""
        return [workers for workers in (self._workers, self._loading, *self._retiring.values()) if workers is not None]
