"""A client of the scoring server: candidates in, scores out, over connections that stay open.

A request for scores changes nothing, so that it may be sent again: after 429 and 503, after a connection that was
refused or broke off, until a deadline. What the server refuses for good is raised with the server's words.

    client = ScoringClient("127.0.0.1:8080")
    scores = client.score({"region": 3, "history_item": [7, 9]}, {"candidate_item": np.array([5, 6])})
    scores["label"]  # float32 [2]
"""

import http.client
import json
import math
import random
import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from recd_dist.files.json_text import json_text

_BUSY = (429, 502, 503, 504)
"""Statuses after which the same request may be answered: a full queue, a server that starts, a proxy without one."""

_FIRST_WAIT_S, _MOST_WAIT_S = 0.05, 2.0
_CHUNK = 1 << 16


class ScoringError(Exception):
    """The server gave no scores.

    Args:
        message: what was asked of whom, and the server's words.
        status: the status of the answer; None where there was none.
        code: the server's word for what is wrong, for programs, such as ``user_unknown``; None where it gave none.
        feature: the feature at fault, where the server names one.
    """

    def __init__(
        self, message: str, status: int | None = None, code: str | None = None, feature: str | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.feature = status, code, feature


class RequestRefused(ScoringError, ValueError):
    """The server will not answer this request, however often it is sent: its words say why."""


class ServerUnavailable(ScoringError, ConnectionError):
    """Nobody answered before the deadline."""


@dataclass(frozen=True)
class Scores:
    """What the candidates of one request came to.

    Attributes:
        tasks: task -> float32 [candidates], in the order of the request.
        model: what the server says of the model that computed them, such as its name and step.
    """

    tasks: Mapping[str, NDArray[np.float32]]
    model: Mapping[str, Any]

    def __getitem__(self, task: str) -> NDArray[np.float32]:
        """The scores of one task."""
        return self.tasks[task]


class ScoringClient:
    """Asks one server. Threads may share a client: each call has a connection of its own, kept for the next one.

    Args:
        address: ``HOST:PORT``, or a URL with ``http://`` or ``https://``, perhaps with a path before the server's own.
        token: sent as ``Authorization: Bearer``; None for a server without one.
        deadline_s: how long a call may take, with all that is sent again.
        certificates: a file of certificates to trust in place of the system's, for ``https://``.

    Raises:
        ValueError: the address is none.
    """

    def __init__(
        self, address: str, token: str | None = None, *, deadline_s: float = 10.0, certificates: str | None = None
    ) -> None:
        parts = urlsplit(address if "://" in address else f"http://{address}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{address}: not an address; HOST:PORT or https://HOST:PORT is one")
        self.address = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
        self.deadline_s = deadline_s
        self._host, self._port, self._prefix = parts.hostname, parts.port, parts.path.rstrip("/")
        self._tls = ssl.create_default_context(cafile=certificates) if parts.scheme == "https" else None
        self._headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        self._idle: list[http.client.HTTPConnection] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections that wait for a next call."""
        while self._idle:
            self._idle.pop().close()

    def score(
        self,
        user: Mapping[str, Any] | None,
        candidates: Mapping[str, Sequence[Any]],
        *,
        user_key: str | None = None,
        user_version: str | int | None = None,
        deadline_s: float | None = None,
    ) -> Scores:
        """Scores the candidates of one user.

        Args:
            user: feature -> value, or list of values; arrays are taken as lists. None for the row that the server keeps
                under ``user_key``.
            candidates: feature -> a value or a list for each candidate, as list or array; an undefined number (nan) is
                sent as null.
            user_key: under which the server may keep the user's row, for requests without it.
            user_version: of that row; a request with another one is refused, with the code ``user_other_version``.
            deadline_s: how long this call may take; that of the client when absent.

        Raises:
            RequestRefused: the server says what is wrong with the request or the token.
            ServerUnavailable: no answer before the deadline.
            ScoringError: the server failed.
        """
        body = request_body(user, candidates, user_key=user_key, user_version=user_version)
        found = self._ask("POST", "/v1/score", body, self.deadline_s if deadline_s is None else deadline_s)
        tasks = {task: np.array(scores, np.float32) for task, scores in found["scores"].items()}
        return Scores(tasks, found.get("model", {}))

    def model(self) -> dict[str, Any]:
        """What the server says of its model: name, step, features, tasks."""
        return self._ask("GET", "/v1/model", None, self.deadline_s)

    def reload(self, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Asks the server to load the newest export; it answers when that one is in use.

        Args:
            body: sent along, as the page of the server's API has it.
        """
        sent = json_text({} if body is None else dict(body), indent=None).encode()
        return self._ask("POST", "/v1/reload", sent, self.deadline_s)

    def is_ready(self) -> bool:
        """Whether the server would score a request now; False also where nobody listens."""
        with suppress(OSError, http.client.HTTPException):
            status, _, _ = self._exchange("GET", "/health/ready", None, time.monotonic() + self.deadline_s)
            return status == http.HTTPStatus.OK
        return False

    def _ask(self, method: str, path: str, body: bytes | None, deadline_s: float) -> dict[str, Any]:
        """Sends a request until it is answered; what came back, as JSON."""
        what, end = f"{method} {self.address}{path}", time.monotonic() + deadline_s
        for wait in _waits():
            status, asked, problem = None, 0.0, ""
            try:
                status, retry_after, answer = self._exchange(method, path, body, end)
            except ssl.SSLCertVerificationError as error:
                raise ServerUnavailable(f"{what}: {error.verify_message}") from error
            except (OSError, http.client.HTTPException) as error:
                problem = str(error) or type(error).__name__
            else:
                if status < http.HTTPStatus.MULTIPLE_CHOICES:
                    return _object(what, answer)
                said = _said(answer)
                problem, asked = f"{status}: {said['message']}", retry_after
                if status not in _BUSY:
                    kind = RequestRefused if status < http.HTTPStatus.INTERNAL_SERVER_ERROR else ScoringError
                    raise kind(f"{what}: {problem}", status, said.get("code"), said.get("feature"))
            pause = max(wait, asked)
            if time.monotonic() + pause >= end:
                raise ServerUnavailable(f"{what}: no answer within {deadline_s:g} s; the last one: {problem}", status)
            time.sleep(pause)
        raise AssertionError("there is always a next wait")

    def _exchange(self, method: str, path: str, body: bytes | None, end: float) -> tuple[int, float, bytes]:
        """Sends a request once: status, the seconds that the server asks to wait, and body of the answer."""
        while self._idle:
            with suppress(IndexError):  # another thread took it
                connection = self._idle.pop()
                # A server closes what has been idle for long; that is seen only when a request is sent.
                with suppress(ConnectionError, http.client.BadStatusLine):
                    return self._exchange_over(connection, method, path, body, end)
        return self._exchange_over(self._connection(), method, path, body, end)

    def _connection(self) -> http.client.HTTPConnection:
        if self._tls is not None:
            return http.client.HTTPSConnection(self._host, self._port, context=self._tls)
        return http.client.HTTPConnection(self._host, self._port)

    def _exchange_over(
        self, connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None, end: float
    ) -> tuple[int, float, bytes]:
        try:
            connection.timeout = _left(end)
            if connection.sock is not None:
                connection.sock.settimeout(_left(end))
            try:
                connection.request(method, self._prefix + path, body, self._headers)
            except (BrokenPipeError, ConnectionResetError):
                # What is too large, say, is refused before all of it was read: the answer may have come all the same.
                if connection.sock is None:
                    raise
            answer = connection.getresponse()
            chunks = []
            while chunk := answer.read(_CHUNK):
                chunks.append(chunk)
                if connection.sock is not None:
                    connection.sock.settimeout(_left(end))
            if answer.length:  # read() says nothing where the connection ended early
                raise http.client.IncompleteRead(b"", answer.length)
        except BaseException:
            connection.close()
            raise
        if answer.will_close:
            connection.close()
        else:
            self._idle.append(connection)
        return answer.status, _seconds(answer.getheader("Retry-After")), b"".join(chunks)


def request_body(user: Mapping[str, Any] | None, candidates: Mapping[str, Sequence[Any]], **beside: Any) -> bytes:
    """The JSON of a request, of lists and arrays; what is None is left out."""
    given = {"user": user, "candidates": candidates, **beside}
    request = {name: value for name, value in given.items() if value is not None}
    try:
        import orjson
    except ImportError:
        return json_text(_plain(request), indent=None).encode()
    return orjson.dumps(request, default=_plain, option=orjson.OPT_SERIALIZE_NUMPY)


def _plain(value: Any) -> Any:
    """Mappings, sequences and arrays as what JSON knows."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if value is None or isinstance(value, str | int | float):
        return value
    raise TypeError(f"{value!r:.80}: a {type(value).__name__} cannot be sent; numbers, texts, lists and arrays can")


def _waits() -> Iterator[float]:
    """Seconds before each further try: twice as many each time, and not the same for clients that failed together."""
    longest = _FIRST_WAIT_S
    while True:
        yield random.uniform(longest / 2, longest)
        longest = min(2 * longest, _MOST_WAIT_S)


def _left(end: float) -> float:
    """The seconds until a time of the monotonic clock."""
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return left


def _seconds(header: str | None) -> float:
    """What Retry-After asks for; 0 where it names a date, or nothing."""
    with suppress(TypeError, ValueError):
        seconds = float(header)  # type: ignore[arg-type]
        return seconds if math.isfinite(seconds) and seconds > 0 else 0.0
    return 0.0


def _object(what: str, answer: bytes) -> dict[str, Any]:
    """The JSON object of a successful answer."""
    with suppress(ValueError):
        if isinstance(found := json.loads(answer), dict):
            return found
    raise ScoringError(f"{what}: the answer is not that of recd serve: {_beginning(answer)}")


def _said(answer: bytes) -> dict[str, Any]:
    """What the server says in an answer that is no success: ``message``, perhaps ``code`` and ``feature``."""
    with suppress(ValueError, KeyError, TypeError):
        said = json.loads(answer)["error"]
        return {**said, "message": str(said["message"])}
    return {"message": _beginning(answer)}


def _beginning(answer: bytes) -> str:
    """The first words of an answer that is of another form, such as that of a proxy."""
    return " ".join(answer[:300].decode(errors="replace").split()) or "without a message"
