"""A load generator that costs little: some clients in one thread, each of which asks again when it has its answer.

Requests are bytes that are made before; of an answer only status and length are read. Latency is from the first byte
that is sent to the last one that has come, in the generator's eyes: where it has waited for its core, that counts too.
"""

import re
import selectors
import socket
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

_STATUS = re.compile(rb"HTTP/1\.[01] (\d+)")
_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")
_BUSY = (429, 503)
_SEND_BYTES = 1 << 20


@dataclass
class Load:
    """What a load came to.

    Attributes:
        seconds: of wall clock.
        cpu_seconds: of the generator.
        latencies_s: of each request that was answered with scores.
        statuses: status -> how often.
        answers: request -> body of its last answer with scores.
    """

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    latencies_s: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    answers: dict[int, bytes] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Requests with scores a second."""
        return len(self.latencies_s) / self.seconds

    def percentile_s(self, percent: float) -> float:
        """The latency that so many percent of the requests do not exceed."""
        ordered = sorted(self.latencies_s)
        return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


class _Client:
    """One connection."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BYTES)
        self.socket.setblocking(False)
        self.number, self.begun = 0, 0.0
        self._left = memoryview(b"")
        self._come, self._end = bytearray(), 0

    def ask(self, number: int, request: bytes) -> None:
        self.number, self.begun = number, time.perf_counter()
        self._left, self._come, self._end = memoryview(request), bytearray(), 0
        self.send()

    def send(self) -> bool:
        """Sends what the kernel takes; whether something is left."""
        if self._left:
            with suppress(BlockingIOError):
                self._left = self._left[self.socket.send(self._left) :]
        return bool(self._left)

    def receive(self) -> tuple[int, bytes] | None:
        """Status and body of an answer, once it is whole."""
        if not (chunk := self.socket.recv(1 << 18)):
            raise ConnectionError("the server has closed a connection of the load generator")
        self._come += chunk
        if not self._end and (head := self._come.find(b"\r\n\r\n")) >= 0:
            length = _LENGTH.search(self._come, 0, head + 2)
            if length is None:
                raise ValueError(f"an answer without a length: {bytes(self._come[:head])!r}")
            self._body = head + 4
            self._end = self._body + int(length[1])
        if not self._end or len(self._come) < self._end:
            return None
        status = _STATUS.match(self._come)
        return int(status[1]) if status else 0, bytes(self._come[self._body : self._end])


def http_request(body: bytes, path: str = "/v1/score") -> bytes:
    """A POST of JSON, as bytes of HTTP/1.1."""
    headers = f"Host: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return f"POST {path} HTTP/1.1\r\n{headers}\r\n\r\n".encode() + body


def closed_loop(
    port: int,
    requests: Sequence[bytes],
    num_clients: int,
    seconds: float,
    first: int = 0,
) -> Load:
    """Keeps some clients busy for a while; requests that are under way at the end are waited for.

    Args:
        port: of a server on loopback.
        requests: whole requests; each client takes the next one, and after the last the first.
        num_clients: how many.
        seconds: after so long no client asks again.
        first: the number of the request that is asked first.

    Returns:
        What it came to. A request that the server had no room for (429, 503) is counted, and another asked after it.
    """
    load, selector, number = Load(), selectors.DefaultSelector(), first
    clients = [_Client(port) for _ in range(num_clients)]
    begun, cpu = time.perf_counter(), time.process_time()

    def ask(client: _Client) -> None:
        nonlocal number
        client.ask(number % len(requests), requests[number % len(requests)])
        number += 1
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if client.send() else 0)
        selector.modify(client.socket, events, client)

    for client in clients:
        selector.register(client.socket, selectors.EVENT_READ, client)
        ask(client)
    busy = num_clients
    while busy:
        for key, events in selector.select(1.0):
            client = key.data
            if events & selectors.EVENT_WRITE and not client.send():
                selector.modify(client.socket, selectors.EVENT_READ, client)
            if not events & selectors.EVENT_READ or (answer := client.receive()) is None:
                continue
            now = time.perf_counter()
            status, body = answer
            load.statuses[status] += 1
            if status not in _BUSY:
                if status != 200:
                    raise ValueError(f"{status}: {body[:300]!r}")
                load.latencies_s.append(now - client.begun)
                load.answers[client.number] = body
            if now - begun < seconds:
                ask(client)
            else:
                busy -= 1
                selector.unregister(client.socket)
                client.socket.close()
    load.seconds, load.cpu_seconds = time.perf_counter() - begun, time.process_time() - cpu
    return load
