"""A worker of a service: a process that loads an export and scores batches of requests.

::

    front                                       worker
    load DIR             ------------------->   reads tables and weights, scores the sample request
                         <-------------------   loaded: name, step, features; or failed: why
    score 3 requests     ------------------->   checks and transforms each, scores all that are good in one batch
                         <-------------------   scores of each, or what is wrong with it
    (end of the socket)                         ends

It does not end by a signal that a scheduler or Ctrl-C sends to all processes: the front ends it when its batches are
done.
"""

import logging
import os
import queue
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from recd_dist.errors import UserError
from recd_dist.redaction.credentials import redact, screen_handler, show_traceback
from recd_dist.serve.body_columns import read_candidates, read_user, write_candidates, write_user
from recd_dist.serve.frames import Bytes, Frame, receive_frame, send_frame
from recd_dist.serve.served_model import ServedModel

logger = logging.getLogger(__name__)

LOAD, SCORE, LOADED, FAILED, SCORES = "load", "score", "loaded", "failed", "scores"
"""Kinds of frames."""

_END = object()


@dataclass
class _Batch:
    """Requests that were read.

    Attributes:
        number: the front's number of the batch.
        requests: what the model made of each; None where it is refused.
        answers: of each what is wrong, or empty.
        read_s: seconds it took.
    """

    number: int
    requests: list[Any] = field(default_factory=list)
    answers: list[dict[str, Any]] = field(default_factory=list)
    read_s: float = 0.0


class ScoringWorker:
    """Answers the front over a socket, until the front is gone.

    Args:
        connection: the socket.
        load: loads the export in a directory; the second argument says whether equal rows are computed once.
    """

    def __init__(self, connection: socket.socket, load: Callable[[str, bool], ServedModel]) -> None:
        self._connection, self._load = connection, load
        self._model: ServedModel | None = None
        self._waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def run(self) -> None:
        """Works until the front is gone."""
        threading.Thread(target=self._receive, daemon=True).start()
        while (work := self._waiting.get()) is not _END:
            if isinstance(work, _Batch):
                self._answer(work)
            else:
                self._load_model(str(work.header["model"]), bool(work.header["dedup"]))

    def _receive(self) -> None:
        """Takes frames from the front, and reads the requests in them."""
        while frame := receive_frame(self._connection):
            if frame.kind == LOAD:
                self._waiting.put(frame)
            else:
                self._waiting.put(self._read(frame))
        os._exit(0)  # the front is gone, and nobody waits for what is being computed

    def _load_model(self, directory: str, dedup: bool) -> None:
        start = time.monotonic()
        try:
            self._model = self._load(directory, dedup)
            told = self._model.told
            if told.sample is not None:
                self._model.score([self._model.read(*as_they_come(told.sample))])
        except (UserError, OSError) as error:
            self._send(Frame({"kind": FAILED, "message": redact(str(error))}))
        except Exception as error:
            logger.exception("serve: %s cannot be loaded", directory)
            self._send(Frame({"kind": FAILED, "message": redact(f"{directory}: cannot be loaded ({error!r})")}))
        else:
            self._send(Frame({"kind": LOADED, "model": told.to_json(), "load_s": time.monotonic() - start}))

    def _read(self, frame: Frame) -> _Batch:
        start, batch = time.perf_counter(), _Batch(int(frame.header["batch"]))
        for user, candidates in zip(frame.parts[::2], frame.parts[1::2], strict=True):
            request, wrong = self._read_one(user, candidates)
            batch.requests.append(request)
            batch.answers.append(wrong)
        batch.read_s = time.perf_counter() - start
        return batch

    def _read_one(self, user: Bytes, candidates: Bytes) -> tuple[Any, dict[str, Any]]:
        if self._model is None:
            raise RuntimeError("a batch before a model")
        try:
            return self._model.read(read_user(user), read_candidates(candidates)), {}
        except ValueError as error:  # a request of somebody, whose values do not fit
            return None, _refusal(error)
        except Exception as error:
            logger.exception("serve: a request cannot be read")
            return None, {"failure": redact(repr(error))}

    def _answer(self, batch: _Batch) -> None:
        start = time.perf_counter()
        good = [number for number, answer in enumerate(batch.answers) if not answer]
        scores = self._score([batch.requests[number] for number in good])
        parts: list[Bytes] = []
        for number, scored in zip(good, scores, strict=True):
            if isinstance(scored, ValueError):
                batch.answers[number] = _refusal(scored)
            elif isinstance(scored, Exception):
                batch.answers[number] = {"failure": redact(repr(scored))}
            else:
                batch.answers[number] = {"rows": len(scored)}
                parts.append(np.ascontiguousarray(scored, np.float32).tobytes())
        told = {"batch": batch.number, "answers": batch.answers, "read_s": batch.read_s}
        told |= {
            "score_s": time.perf_counter() - start,
            "counts": self._model.counts if self._model is not None else None,
        }
        self._send(Frame({"kind": SCORES, **told}, parts))

    def _score(self, requests: Sequence[Any]) -> Sequence[np.ndarray | Exception]:
        """Scores requests in one batch; where that fails each alone, so that one does not spoil the others."""
        if not requests or self._model is None:
            return []
        try:
            return self._model.score(requests)
        except Exception as error:
            if len(requests) == 1:
                if not isinstance(error, ValueError):
                    logger.exception("serve: a request cannot be scored")
                return [error]
        return [self._score([request])[0] for request in requests]

    def _send(self, frame: Frame) -> None:
        try:
            send_frame(self._connection, frame)
        except ConnectionError:
            self._waiting.put(_END)


def _refusal(error: ValueError) -> dict[str, Any]:
    """What a client is told of a request whose values do not fit."""
    return {"message": redact(str(error)), "feature": getattr(error, "feature", None)}


def as_they_come(request: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Sequence[Any]]]:
    """User and candidates of a request in JSON, as a worker gets them."""
    most = sys.maxsize
    candidates, _ = write_candidates(request["candidates"], most, most)
    return read_user(write_user(request["user"], most)), read_candidates(candidates)


def main(load: Callable[[str, bool], ServedModel]) -> None:
    """Runs a worker on the socket whose number is the process's one argument.

    Args:
        load: loads the export in a directory; the second argument says whether equal rows are computed once.
    """
    logging.basicConfig(level=logging.WARNING, handlers=[screen_handler()])
    logging.getLogger("recd_dist").setLevel(logging.INFO)
    sys.excepthook = show_traceback
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    ScoringWorker(socket.socket(fileno=int(sys.argv[1])), load).run()
