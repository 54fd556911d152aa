"""A stopwatch for the stages of the reader, so that the dashboard can say where its time goes.

::

    io         bytes from a disk or a store              transform   transforms, hashing, checks of ids and numbers
    decode     Parquet to Arrow                          collate     batches of unique rows, and their shared memory
    convert    Arrow to columns; a window laid out       queue       waiting for room, or for the trainer's next task

A thread of a reader is bound to that reader's stopwatch by ``Stopwatch.timed``; code below it only says what it does::

    with stages.measure("decode"):
        table = file.read_row_group(...)

A stage inside another one stops the outer one: each nanosecond counts for one stage of a thread. Threads add up, so
that the stages of a reader may take more than a second each second. Outside a bound thread ``measure`` counts nothing.
It takes about a microsecond: measure row groups and batches, never rows.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter_ns
from typing import Literal, ParamSpec, TypeVar, get_args

Stage = Literal["io", "decode", "convert", "transform", "collate", "queue"]
STAGES: tuple[Stage, ...] = get_args(Stage)
"""The stages, in the order in which data pass them."""

WORK: tuple[Stage, ...] = STAGES[:-1]
"""The stages in which a reader is busy; in ``queue`` it waits for others."""

P = ParamSpec("P")
R = TypeVar("R")


class Stopwatch:
    """Nanoseconds that the threads of one reader have spent in each stage."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spent_ns = dict.fromkeys(STAGES, 0)

    def add(self, stage: Stage, spent_ns: int) -> None:
        """Counts time that was measured elsewhere.

        Args:
            stage: what it was spent on.
            spent_ns: how long, in nanoseconds.
        """
        with self._lock:
            self._spent_ns[stage] += spent_ns

    def take_ns(self) -> dict[Stage, int]:
        """Nanoseconds of each stage since the last call; a stage that goes on counts when it ends."""
        with self._lock:
            spent_ns, self._spent_ns = self._spent_ns, dict.fromkeys(STAGES, 0)
        return spent_ns

    def timed(self, stage: Stage, function: Callable[P, R]) -> Callable[P, R]:
        """The same function, whose thread counts for this stopwatch while it runs.

        Args:
            stage: what the function does, but for the stages that are measured inside it.
            function: any.
        """

        def run(*args: P.args, **kwargs: P.kwargs) -> R:
            with self.bound(), measure(stage):
                return function(*args, **kwargs)

        return run

    @contextmanager
    def bound(self) -> Iterator[None]:
        """Inside, what this thread measures counts here. A stage that another stopwatch measures meanwhile stops."""
        before, stage = _thread.stopwatch, _switch(None)
        _thread.stopwatch = self
        try:
            yield
        finally:
            _switch(None)
            _thread.stopwatch = before
            _switch(stage)


class _Thread(threading.local):
    """What a thread is doing: for which stopwatch, in which stage, and since when."""

    stopwatch: Stopwatch | None = None
    stage: Stage | None = None
    since_ns: int = 0


_thread = _Thread()


def _switch(stage: Stage | None) -> Stage | None:
    """Ends the stage of this thread, begins another one, and returns the one that ended."""
    now_ns, ended = perf_counter_ns(), _thread.stage
    if _thread.stopwatch is not None and ended is not None:
        _thread.stopwatch.add(ended, now_ns - _thread.since_ns)
    _thread.stage, _thread.since_ns = stage, now_ns
    return ended


@contextmanager
def measure(stage: Stage) -> Iterator[None]:
    """Counts the time inside for a stage of the reader whose thread this is.

    Args:
        stage: what is done inside.
    """
    outer = _switch(stage)
    try:
        yield
    finally:
        _switch(outer)
