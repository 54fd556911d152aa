"""One stream of a rank: a thread asks servers for its tasks in their order, and fills a queue of bounded length.

A call asks for as many batches as there is room for. A trainer that is slow lets the queue fill: the thread then asks
for nothing, and the server reads nothing ahead but two batches. A task is asked for until it is answered, so that no
answer is missing, and none comes twice.
"""

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from recd_dist.errors import ConfigError
from recd_dist.reader.tier.blocks import ArrivingBlocks
from recd_dist.reader.tier.messages import AHEAD
from recd_dist.reader.tier.server_address import Address
from recd_dist.reader.tier.server_choice import ServerChoice
from recd_dist.reader.tier.server_connection import ServerConnection, ServerLost, find_reason
from recd_dist.reader.tier.servers import Servers
from recd_dist.reader.worker import Result, Task

_LOOK_S = 0.1
"""Seconds between two looks whether there is a server to ask, or room in the queue."""

_FAST_S = 0.5
"""A server that takes longer for a batch is asked for one at a time: the time limit of a call is meant for one."""

_END_S = 2.0
"""What a thread may take to end; one that waits for a server longer is left alone, with its connections."""


class RemoteStream:
    """Results of some tasks, in their order.

    Args:
        servers: the servers of the job.
        choice: how they do.
        home: the number of the stream among those of all ranks.
        opening: makes the message that opens a session.
        tasks: what to ask for.
        prefetch: results that may wait to be taken.
        blocks: memory for batches.
        connections: those of an earlier epoch.
    """

    def __init__(
        self,
        servers: Servers,
        choice: ServerChoice,
        home: int,
        opening: Callable[[], Mapping[str, Any]],
        tasks: Iterator[Task],
        prefetch: int,
        blocks: ArrivingBlocks,
        connections: dict[Address, ServerConnection],
    ) -> None:
        self._servers, self._choice, self._home = servers, choice, home
        self._opening, self._tasks, self._blocks = opening, tasks, blocks
        self._connections = connections
        self._is_fast = True
        self._stopped = threading.Event()
        self._queue: queue.Queue[Result | BaseException | None] = queue.Queue(prefetch)
        self._thread = threading.Thread(target=self._run, name="recd-remote", daemon=True)
        self._thread.start()

    def take(self) -> Result | None:
        """The next result; None when all tasks are answered.

        Raises:
            ConfigError: no server has answered for too long; or one refuses this trainer.
        """
        result = self._queue.get()
        if isinstance(result, BaseException):
            raise result
        return result

    def _run(self) -> None:
        """Asks for the tasks until all are answered or nobody takes results any more."""
        try:
            waiting: deque[Task] = deque()
            while not self._stopped.is_set():
                room = max(self._queue.maxsize - self._queue.qsize(), 1) if self._is_fast else 1
                waiting.extend(islice(self._tasks, room + AHEAD - len(waiting)))
                if not waiting:
                    self._put(None)
                    return
                tasks = list(waiting)
                for result in self._ask(tasks[:room], tasks[room:]):
                    waiting.popleft()
                    if not self._put(result):
                        return
        except BaseException as error:
            self._put(error)

    def _put(self, item: "Result | BaseException | None") -> bool:
        """Waits for room and puts a result there; False when nobody takes results any more."""
        while not self._stopped.is_set():
            try:
                self._queue.put(item, timeout=_LOOK_S)
            except queue.Full:
                continue
            return True
        return False

    def _ask(self, tasks: Sequence[Task], following: Sequence[Task]) -> Iterator[Result]:
        """Asks one server after the other until one answers, with the first of some tasks or with more of them."""
        give_up, reason = time.monotonic() + self._servers.wait_s, "there is none"
        while not self._stopped.is_set():
            server = self._choice.choose(self._home)
            if server is not None:
                num_answers, asked = 0, time.monotonic()
                try:
                    for result in self._connect(server).read(self._opening, tasks, following, self._blocks):
                        num_answers += 1
                        yield result
                except ServerLost as error:
                    del self._connections[server]
                    known = self._choice.has_answered(server)
                    reason = str(error) if known else find_reason(server, self._servers.tls_ca)
                    self._choice.report_failure(server, reason)
                else:
                    self._choice.report_answer(server)
                self._is_fast = num_answers > 0 and time.monotonic() - asked < _FAST_S * num_answers
                if num_answers:
                    return
            if time.monotonic() > give_up:
                raise ConfigError(self._explain(reason))
            if server is None:
                self._stopped.wait(_LOOK_S)
        raise RuntimeError("reader: this iteration was ended")

    def _connect(self, server: Address) -> ServerConnection:
        """The connection to a server, made at the first call."""
        if server not in self._connections:
            call_s = self._servers.call_s or self._servers.wait_s / 2
            self._connections[server] = ServerConnection(server, self._servers.access, call_s)
        return self._connections[server]

    def _explain(self, reason: str) -> str:
        asked = ", ".join(map(str, self._servers.find())) or f"none in {self._servers.directory}"
        return (
            f"reader: no server has sent a batch for {self._servers.wait_s:g} s (servers: {asked}; last: {reason}); "
            "start them with `recd reader`, give them longer with timeouts.server_s, or read here: reader.servers=[]"
        )

    def stop(self) -> None:
        """Tells the thread to end; whoever still takes results gets an error, not a hang."""
        self._stopped.set()

    def join(self) -> dict[Address, ServerConnection]:
        """Waits for the thread, and returns the connections that another stream may use."""
        self._thread.join(_END_S)
        while not self._queue.empty():
            self._queue.get_nowait()
        self._queue.put(RuntimeError("reader: this iteration was ended by a newer one or by close()"))
        return {} if self._thread.is_alive() else self._connections
