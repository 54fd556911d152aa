"""Sessions of a server: each reads the batches of one stream of a trainer, and two batches ahead.

What a server holds for a trainer is bounded by the trainer's questions: the batch that was sent last, two that were
read ahead, and the two shuffle windows of a BatchReader. A trainer that asks no more stops the reading.
"""

import logging
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice, zip_longest
from typing import Any

import numpy as np
import torch

from recd_dist.errors import ConfigError
from recd_dist.reader.batching import Empty
from recd_dist.reader.shared_blocks import BlockWriter
from recd_dist.reader.tier.arrow_batches import count_bytes
from recd_dist.reader.tier.lent_memory import BorrowedMemory
from recd_dist.reader.tier.messages import AHEAD
from recd_dist.reader.tier.served_counts import ServedCounts
from recd_dist.reader.transport import BatchLayout
from recd_dist.reader.worker import BatchReader, ReaderOptions, Result, Task
from recd_dist.tensors.batch import Batch

logger = logging.getLogger(__name__)

IDLE_S = 600.0
"""A session of which nothing is asked for so long is closed; a trainer that comes back opens another one."""


@dataclass(eq=False)
class _Reading:
    """A batch that is read, or waits to be.

    Attributes:
        task: what it is.
        name: the name of memory of the trainer.
        block: that memory, in which the batch is made; None: in that of this process.
        result: what reading gives.
        read_at: when it was read; 0 before.
        is_asked: whether the trainer has asked for it.
        is_given: whether it goes to the trainer.
    """

    task: Task
    name: Mapping[str, Any] | None
    block: BlockWriter | None
    result: "Future[Result]"
    read_at: float = 0.0
    is_asked: bool = False
    is_given: bool = False


class Session:
    """Reads the tasks of one stream in the order in which they are asked for.

    Args:
        options: what to read and how.
        client: who asks.
        compression: of the bodies of batches.
        total: counts of the whole server.

    Attributes:
        memory: that which the trainer lends.

    Raises:
        ConfigError, DataError: options that do not fit the table.
    """

    def __init__(self, options: ReaderOptions, client: str, compression: str, total: ServedCounts) -> None:
        BatchReader.check(options)
        self.options, self.client, self.compression = options, client, compression
        self.counts = ServedCounts(total)
        self.last_used = time.monotonic()
        self.is_closed = False
        self._reader = BatchReader(options)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="recd-session")
        self.memory = BorrowedMemory()
        self._readings: list[_Reading] = []  # of the task that was asked for last, and of those after it
        self._call = 0
        self._lock = threading.Lock()

    def begin_call(self) -> int:
        """The number of a call, which is greater than those before it: an older call gets no further answers."""
        with self._lock:
            self._call += 1
            return self._call

    def answer(
        self, tasks: Sequence[Task], blocks: Sequence[Mapping[str, Any] | None] = (), call: int | None = None
    ) -> tuple[Result, BatchLayout | None]:
        """Waits for the batch of a task. The last one can be asked for again: its answer may not have arrived.

        Args:
            tasks: what to read, and what will be asked for next; the reading of that begins.
            blocks: for each of them the name of memory that its batch may be made in.
            call: the call that asks, see ``begin_call``; None: the newest.

        Returns:
            The result, and where its batch lies in that memory; None if it does not.

        Raises:
            CancelledError: a newer call has begun, or the session is closed.
        """
        asked = time.monotonic()
        with self._lock:
            if call is not None and call != self._call:
                raise CancelledError
            readings = [self._find(*each) for each in islice(zip_longest(tasks, blocks[: len(tasks)]), 1 + AHEAD)]
            wanted = readings[0]
            if wanted.read_at and not wanted.is_asked:
                self.counts.add(batch_waited_s=asked - wanted.read_at)
            wanted.is_asked = True
            for reading in self._readings:
                if reading not in readings:
                    reading.result.cancel()
            self._readings = readings
        result = wanted.result.result()
        self.last_used = time.monotonic()
        self.counts.add(trainer_waited_s=self.last_used - asked)
        if wanted.block is None or not isinstance(result.batch, Batch):
            return result, None
        return result, wanted.block.find(result.batch)

    def _find(self, task: Task, name: Mapping[str, Any] | None) -> _Reading:
        """The reading of a task, begun unless it was.

        What was made in memory of the trainer is given once, and there alone; then it is made again: the trainer may
        have used that memory since.
        """
        for reading in self._readings:
            is_there = reading.block is None or (reading.name == name and not reading.is_given)
            if reading.task == task and is_there:
                return reading
        return self._begin(task, name)

    def _begin(self, task: Task, name: Mapping[str, Any] | None) -> _Reading:
        """Begins to read a task after those that were begun before."""
        memory = self.memory.find(name)
        block = None if memory is None else BlockWriter(torch.from_numpy(memory))
        reading = _Reading(
            task, name, block, self._thread.submit(self._read, task, np.empty if block is None else block.empty)
        )
        reading.result.add_done_callback(lambda _: setattr(reading, "read_at", time.monotonic()))
        return reading

    def _read(self, task: Task, empty: Empty) -> Result:
        start = time.monotonic()
        result = self._reader.read_result(task, empty)
        self.counts.add(decode_s=time.monotonic() - start)
        return result

    def give(self, task: Task) -> None:
        """Notes that the batch of a task goes out."""
        for reading in self._readings:
            reading.is_given |= reading.task == task

    def count_sent(self, batch: Batch, seconds: float) -> None:
        """Counts a batch that went out.

        Args:
            batch: the batch.
            seconds: what sending took.
        """
        self.counts.add(batches=1, samples=batch.batch_size, bytes=count_bytes(batch), send_s=seconds)

    def to_json(self) -> dict[str, Any]:
        """What the server tells of it."""
        manifest = self.options.table.manifest
        return {
            "client": self.client,
            "table": f"{manifest.name}/{manifest.split}",
            "counts": self.counts.to_json(),
            "idle_s": time.monotonic() - self.last_used,
        }

    def close(self) -> None:
        """Ends its threads after the batch that is being read."""
        self.is_closed = True
        self._thread.shutdown(wait=True, cancel_futures=True)
        self._readings = []
        self._reader.close()
        self.memory.close()


class Sessions:
    """The sessions of a server, by names that nobody guesses.

    Args:
        most: sessions at a time.
        idle_s: what a session may be idle before it is closed.
    """

    def __init__(self, most: int, idle_s: float = IDLE_S) -> None:
        self.most, self.total = most, ServedCounts()
        self._idle_s = idle_s
        self._sessions: dict[str, Session] = {}
        self._lock = threading.Lock()

    def open(self, make: Callable[[ServedCounts], Session]) -> str:
        """Opens a session.

        Args:
            make: makes it, with the counts of the server.

        Returns:
            Its name.

        Raises:
            ConfigError: there are as many as there may be; or it cannot be made.
        """
        self.close_idle()
        with self._lock:
            if len(self._sessions) >= self.most:
                raise ConfigError(
                    f"the server has {self.most} sessions, as many as --max-sessions allows; start another server, or "
                    "this one with more"
                )
        session = make(self.total)
        name = secrets.token_hex(16)
        with self._lock:
            self._sessions[name] = session
        logger.info("reader: %s opens %s", session.client, session.to_json()["table"])
        return name

    def find(self, name: str) -> Session | None:
        """The session of a name; None where it was closed, or belongs to a server that ran before."""
        with self._lock:
            return self._sessions.get(name)

    def close(self, name: str) -> None:
        """Closes a session that may be there."""
        with self._lock:
            session = self._sessions.pop(name, None)
        if session is not None:
            session.close()
            logger.info("reader: %s leaves", session.client)

    def close_idle(self) -> None:
        """Closes sessions whose trainers are gone."""
        now = time.monotonic()
        with self._lock:
            idle = [name for name, s in self._sessions.items() if now - s.last_used > self._idle_s]
        for name in idle:
            self.close(name)

    def close_all(self) -> None:
        """Closes all sessions."""
        with self._lock:
            names = list(self._sessions)
        for name in names:
            self.close(name)

    def to_json(self) -> list[dict[str, Any]]:
        """What the server tells of them."""
        with self._lock:
            return [session.to_json() for session in self._sessions.values()]
