"""Requests that wait for a worker: put together to batches, in the order in which they came.

A batch is whatever waits when a worker is free, up to so many candidates: where clients wait for answers, batches grow
with the load by themselves, and nobody waits for company. ``max_wait_ms`` waits for some, where requests come by
chance.
"""

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field

import numpy as np

from recd_dist.serve.body_columns import RequestColumns
from recd_dist.serve.refused import QUEUE_FULL, RefusedError
from recd_dist.serve.served_model import LoadedModel


@dataclass(frozen=True)
class Scored:
    """The answer to a request.

    Attributes:
        scores: float32 [candidates, tasks].
        model: the model that has scored it.
        queue_s, compute_s: seconds that it waited, and that a worker had it.
    """

    scores: np.ndarray
    model: LoadedModel
    queue_s: float
    compute_s: float


@dataclass(eq=False)
class WaitingRequest:
    """A request on its way.

    Attributes:
        columns: the request.
        answer: what its client waits for.
        came: when it came, by the monotonic clock.
        sent: when a worker last got it.
        num_deaths: workers that died when they had this request alone.
        is_suspect: whether a worker died that had it in a batch; it is then scored alone, so that the request that
            kills workers is known, and others live.
    """

    columns: RequestColumns
    answer: "asyncio.Future[Scored]"
    came: float = field(default_factory=time.monotonic)
    sent: float = 0.0
    num_deaths: int = 0
    is_suspect: bool = False

    @property
    def is_wanted(self) -> bool:
        """Whether somebody still waits for the answer."""
        return not self.answer.done()

    def fail(self, error: RefusedError) -> None:
        """Tells its client that there are no scores."""
        if self.is_wanted:
            self.answer.set_exception(error)


class WaitingRequests:
    """Requests in the order in which they came.

    Args:
        most: how many may wait.
        max_candidates: candidates of a batch, unless one request has more.
        max_requests: requests of a batch.
    """

    def __init__(self, most: int, max_candidates: int, max_requests: int) -> None:
        self._most, self._max_candidates, self._max_requests = most, max_candidates, max_requests
        self._waiting: deque[WaitingRequest] = deque()
        self._pace_s = 0.0

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, request: WaitingRequest) -> None:
        """Adds a request.

        Raises:
            RefusedError: too many wait.
        """
        if len(self._waiting) >= self._most:
            self._waiting = deque(r for r in self._waiting if r.is_wanted)
        if len(self._waiting) >= self._most:
            seconds = max(1, round(self._pace_s * self._most))
            raise RefusedError(
                QUEUE_FULL,
                f"{self._most} requests wait already (limits.queue); ask again in {seconds} s, or start more workers",
                retry_after_s=seconds,
            )
        self._waiting.append(request)

    def put_back(self, requests: list[WaitingRequest]) -> None:
        """Puts requests first, which a worker had and has not answered."""
        self._waiting.extendleft(reversed(requests))

    def take(self) -> list[WaitingRequest]:
        """The next batch; those for which nobody waits any more are left out."""
        batch: list[WaitingRequest] = []
        num_candidates = 0
        while self._waiting and len(batch) < self._max_requests:
            first = self._waiting[0]
            if first.is_wanted:
                num_candidates += first.columns.num_candidates
                if batch and (num_candidates > self._max_candidates or first.is_suspect):
                    break
                batch.append(first)
            self._waiting.popleft()
            if first.is_suspect and batch:
                break
        return batch

    def is_full(self) -> bool:
        """Whether a whole batch waits."""
        if len(self._waiting) >= self._max_requests:
            return True
        num = 0
        for request in self._waiting:
            num += request.columns.num_candidates
            if num >= self._max_candidates or request.is_suspect:
                return True
        return False

    def oldest_s(self) -> float:
        """Seconds for which the first has waited."""
        return time.monotonic() - self._waiting[0].came if self._waiting else 0.0

    def note_pace(self, num: int, seconds: float) -> None:
        """Notes how long a worker took for some requests, for the time after which clients ask again."""
        pace = seconds / max(num, 1)
        self._pace_s = pace if not self._pace_s else 0.9 * self._pace_s + 0.1 * pace

    def fail_all(self, error: RefusedError) -> None:
        """Answers all that wait with an error."""
        while self._waiting:
            self._waiting.popleft().fail(error)
