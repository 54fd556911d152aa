"""The front's side of a worker: its process, the batch that it has, and what it answers.

A worker has one batch at a time. With a second one sent ahead it would read the one while it computes the other, but
batches would be half as large, and fewer requests be answered.
"""

import asyncio
import logging
import os
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from recd_dist.errors import ConfigError
from recd_dist.serve.frames import Bytes, Frame, read_frame
from recd_dist.serve.refused import BAD_REQUEST, SCORING_FAILED, RefusedError
from recd_dist.serve.scoring_worker import FAILED, LOAD, LOADED, SCORE
from recd_dist.serve.served_model import LoadedModel
from recd_dist.serve.waiting_requests import Scored, WaitingRequest

logger = logging.getLogger(__name__)

_SLEEPING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0", "KMP_BLOCKTIME": "0"}
"""Threads that wait for each other sleep. Spinning, they keep the cores from the front and from each other."""


@dataclass(frozen=True)
class SentBatch:
    """A batch that a worker has.

    Attributes:
        requests: its requests.
        sent: when it was sent.
    """

    requests: Sequence[WaitingRequest]
    sent: float


@dataclass(frozen=True)
class AnsweredBatch:
    """What is counted of a batch.

    Attributes:
        num_requests, num_candidates: what was in it.
        read_s, score_s: seconds of the worker.
        total_s: seconds from sending to the answer.
        counts: what the model counted: rows, samples, unknown ids; or None.
    """

    num_requests: int
    num_candidates: int
    read_s: float
    score_s: float
    total_s: float
    counts: Mapping[str, Any] | None


class ScoringProcess:
    """A worker process. It is started without a model, and then loads one.

    Args:
        command: starts it; the number of its socket is added.
        threads: threads that it computes with.
        dedup: whether equal rows are computed once.
        on_answer: takes each answered batch; the worker then has room for another.
        on_death: called once when the process has ended, whatever the reason.
    """

    def __init__(
        self,
        command: Sequence[str],
        threads: int,
        dedup: bool,
        on_answer: Callable[["ScoringProcess", AnsweredBatch], None],
        on_death: Callable[["ScoringProcess"], None],
    ) -> None:
        self._on_answer, self._on_death, self._dedup = on_answer, on_death, dedup
        here, there = socket.socketpair()
        variables = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), "PYTHONSAFEPATH": "1"}
        with there:
            self._process = subprocess.Popen(
                [*command, str(there.fileno())],
                pass_fds=[there.fileno()],
                stdin=subprocess.DEVNULL,
                env=_SLEEPING | os.environ | variables,
            )
        here.setblocking(False)
        self._socket = here
        self._writer: asyncio.StreamWriter | None = None
        self._loaded: asyncio.Future[LoadedModel] = asyncio.get_running_loop().create_future()
        self._number, self._batch = 0, SentBatch((), 0.0)
        self._load_began: float | None = None
        self.model: LoadedModel | None = None
        self.is_ending = False
        self.since = time.monotonic()
        self._listening = asyncio.create_task(self._listen())

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    @property
    def can_take(self) -> bool:
        """Whether it takes a batch."""
        return self.model is not None and not self.is_ending and not self._batch.requests

    def busy_s(self) -> float:
        """Seconds since which it has owed an answer."""
        return time.monotonic() - self._batch.sent if self._batch.requests else 0.0

    def loading_s(self) -> float:
        """Seconds since which it has been loading an export."""
        return 0.0 if self._load_began is None or self._loaded.done() else time.monotonic() - self._load_began

    async def load(self, directory: str) -> LoadedModel:
        """Loads an export.

        Raises:
            ConfigError: it cannot be loaded, or the process has ended meanwhile.
        """
        self._load_began = time.monotonic()
        while self._writer is None and not self._loaded.done():
            await asyncio.sleep(0.005)
        if self._writer is not None:
            self._write(Frame({"kind": LOAD, "model": directory, "dedup": self._dedup}))
        self.model = await asyncio.shield(self._loaded)
        self.since = time.monotonic()
        return self.model

    def send(self, requests: Sequence[WaitingRequest]) -> None:
        """Sends a batch."""
        now, parts = time.monotonic(), list[Bytes]()
        for request in requests:
            request.sent = now
            parts += [request.columns.user, request.columns.candidates]
        self._number += 1
        self._batch = SentBatch(requests, now)
        self._write(Frame({"kind": SCORE, "batch": self._number}, parts))

    def give_up(self) -> Sequence[WaitingRequest]:
        """Takes what it had from a process that has ended."""
        batch, self._batch = self._batch, SentBatch((), 0.0)
        return batch.requests

    def end(self) -> None:
        """Ends the process, at once where it has no batch, and otherwise when that is answered."""
        self.is_ending = True
        if not self._batch.requests and self._writer is not None:
            self._writer.close()
        elif self._writer is None:
            self.kill()

    def kill(self) -> None:
        """Ends the process at once."""
        self._process.kill()

    async def wait(self) -> None:
        """Waits until the process has ended."""
        await self._listening

    def _write(self, frame: Frame) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.writelines(frame.to_bytes())

    async def _listen(self) -> None:
        reader, self._writer = await asyncio.open_unix_connection(sock=self._socket)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                self._hear(await read_frame(reader))
        self._writer.close()
        await self._reap()
        if not self._loaded.done():
            self._loaded.set_exception(ConfigError(f"a worker has ended while it loaded ({self._how()})"))
            self._loaded.exception()  # somebody may not ask for it
        self._on_death(self)

    async def _reap(self) -> None:
        """Waits for the end of the process; one that has closed its socket and goes on is killed."""
        for _ in range(200):
            if self._process.poll() is not None:
                return
            await asyncio.sleep(0.01)
        self.kill()
        self._process.wait()

    def _how(self) -> str:
        code = self._process.returncode
        return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"

    def _hear(self, frame: Frame) -> None:
        if frame.kind == LOADED:
            self._loaded.set_result(LoadedModel.from_json(frame.header["model"]))
        elif frame.kind == FAILED:
            self._loaded.set_exception(ConfigError(str(frame.header["message"])))
        else:
            self._settle(frame)

    def _settle(self, frame: Frame) -> None:
        """Gives the requests of a batch their answers."""
        if frame.header["batch"] != self._number:
            return
        batch, self._batch = self._batch, SentBatch((), 0.0)
        model, now = self.model, time.monotonic()
        parts = iter(frame.parts)
        for request, answer in zip(batch.requests, frame.header["answers"], strict=True):
            if "rows" in answer and model is not None:
                scores = np.frombuffer(next(parts), np.float32).reshape(answer["rows"], -1)
                if request.is_wanted:
                    request.answer.set_result(Scored(scores, model, request.sent - request.came, now - request.sent))
            elif "failure" in answer:
                message = f"the request could not be scored ({answer['failure']}); the log of the service says more"
                request.fail(RefusedError(SCORING_FAILED, message))
            else:
                request.fail(RefusedError(BAD_REQUEST, answer["message"], answer["feature"]))
        num = sum(request.columns.num_candidates for request in batch.requests)
        read_s, score_s = frame.header["read_s"], frame.header["score_s"]
        answered = AnsweredBatch(
            len(batch.requests), num, read_s, score_s, now - batch.sent, frame.header.get("counts")
        )
        if self.is_ending and self._writer is not None:
            self._writer.close()
        self._on_answer(self, answered)
