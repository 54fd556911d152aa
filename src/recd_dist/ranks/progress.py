"""What a rank does now, told to the launcher of its host, which notices a rank that hangs.

::

    rank:      step | reading a batch | step | saving a checkpoint | step      each with the seconds that it may take
                 '--> a file of 96 bytes, in place, about 2 microseconds each
    launcher:  reads the files of its ranks every second (``ranks/hung.py`` judges them)

A rank that waits in a collective for another one looks as stuck as that one. So a thread of the rank tells how many
collectives the rank has begun: those that wait have begun one more than the one that they wait for. The same thread
sees to connections on which a cut link leaves everything unacknowledged (``ranks/links.py``).

Nothing is written where no launcher asks for it. The module loads no torch.
"""

import faulthandler
import os
import signal
import struct
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from recd_dist.ranks.hung import STEP
from recd_dist.ranks.links import LinkWatch
from recd_dist.ranks.timeouts import STEP_FACTOR, Timeouts

FILE = "RECD_PROGRESS"
"""The environment variable that names a rank's file."""

STACK_SIGNAL = signal.SIGUSR2
"""Makes a rank write where its main thread is, into the file of its progress with the ending ``.stack``."""

START, READING, END = "the start", "a batch of the reader", "the end"
BEAT_S = 1.0
_MARK, _BEAT = struct.Struct("<ddq40s"), struct.Struct("<dqqq")
_UNKNOWN = -1
T = TypeVar("T")


@dataclass(frozen=True)
class Mark:
    """What a rank has told.

    Attributes:
        phase: what it does.
        since_s: the time at which it began that, by ``time.monotonic`` of its host.
        allowed_s: how long that may take.
        step: steps that are done.
        num_begun: collectives that the rank has begun; None where nobody counts.
        pid: its process.
        rank: its global rank.
    """

    phase: str
    since_s: float
    allowed_s: float
    step: int
    num_begun: int | None
    pid: int = 0
    rank: int = 0


class Progress:
    """Tells what this rank does.

    Args:
        path: the file that the launcher reads; None tells nobody.
        timeouts: how long which phase may take.
    """

    def __init__(self, path: Path | None = None, timeouts: Timeouts | None = None) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600) if path else None
        self._timeouts = timeouts or Timeouts()
        self._phase, self._since_s, self._longest_s = "", 0.0, 0.0
        self._step, self._has_stepped = 0, False
        self._rank = int(os.environ.get("RANK", "0"))
        self.beat(None)

    def begin(self, phase: str) -> str:
        """Goes over to another phase.

        Args:
            phase: what the rank does from now on.

        Returns:
            The phase that ends.
        """
        now_s, before = time.monotonic(), self._phase
        if before == STEP:
            self._longest_s = max(self._longest_s, now_s - self._since_s)
        allowed_s = self._timeouts.slow_s
        if phase == STEP and self._has_stepped:
            allowed_s = max(self._timeouts.step_s, STEP_FACTOR * self._longest_s)
        self._phase, self._since_s = phase, now_s
        if self._file is not None:
            os.pwrite(self._file, _MARK.pack(now_s, allowed_s, self._step, phase.encode()[:40]), 0)
        return before

    def count_step(self, step: int) -> None:
        """A step is done.

        Args:
            step: steps that are done.
        """
        if not self._has_stepped:  # the first one compiles and allocates: it says nothing of the others
            self._has_stepped, self._phase = True, START
        self._step = step
        self.begin(STEP)

    def beat(self, num_begun: int | None) -> None:
        """Tells how many collectives the rank has begun."""
        if self._file is not None:
            begun = _UNKNOWN if num_begun is None else num_begun
            os.pwrite(self._file, _BEAT.pack(time.monotonic(), begun, os.getpid(), self._rank), _MARK.size)


_current = Progress()


def start(timeouts: Timeouts) -> None:
    """Tells the launcher from now on what this rank does, beginning with the start of the job.

    Args:
        timeouts: how long which phase may take.
    """
    global _current  # noqa: PLW0603  (one process, one progress: passed on, it would go through every function)
    path = os.environ.get(FILE)
    _current = Progress(Path(path) if path else None, timeouts)
    _current.begin(START)


def count_step(step: int) -> None:
    """A step is done: see ``Progress.count_step``."""
    _current.count_step(step)


def end_steps() -> None:
    """No step follows: what comes now, such as waiting for the rank that writes the summary, may take ``slow_s``."""
    _current.begin(END)


@contextmanager
def phase(name: str) -> Iterator[None]:
    """What happens inside is not a step, and may take as long as ``timeouts.slow_s``.

    Args:
        name: what it is, as a message names it: "a checkpoint".
    """
    before = _current.begin(name)
    try:
        yield
    finally:
        _current.begin(before or START)


def reading(batches: Iterator[T]) -> Iterator[T]:
    """The same batches; while one is waited for, the rank is said to read.

    Args:
        batches: of the reader.
    """
    end = object()
    while True:
        with phase(READING):
            batch = next(batches, end)
        if batch is end:
            return
        yield batch  # type: ignore[misc]


def read_mark(path: Path) -> Mark | None:
    """What a rank has told; None where it has told nothing yet.

    Args:
        path: the rank's file.
    """
    with suppress(OSError, struct.error, UnicodeDecodeError):
        content = path.read_bytes()
        since_s, allowed_s, step, phase = _MARK.unpack_from(content)
        _, begun, pid, rank = _BEAT.unpack_from(content, _MARK.size)
        name = phase.rstrip(b"\0").decode()
        known = None if begun == _UNKNOWN else begun
        return Mark(name, since_s, allowed_s, step, known, pid, rank) if name else None
    return None


class Heartbeat(threading.Thread):
    """A rank's thread that counts its collectives and watches its links, once a second. A context manager.

    Args:
        link_s: see ``Timeouts``; None where all ranks are on this host.
    """

    def __init__(self, link_s: float | None) -> None:
        super().__init__(name="recd-heartbeat", daemon=True)
        self._ended = threading.Event()
        self._links = LinkWatch(link_s) if link_s is not None else None

    def __enter__(self) -> "Heartbeat":
        if path := os.environ.get(FILE):
            stack = Path(path).with_suffix(".stack").open("w")
            faulthandler.register(STACK_SIGNAL, stack, all_threads=False)
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join()

    def run(self) -> None:
        """Beats until the rank leaves its process group."""
        while not self._ended.wait(BEAT_S):
            _current.beat(_num_begun())
            if self._links is not None:
                self._links.look()


def _num_begun() -> int | None:
    """Collectives that this process has begun, of all its groups."""
    groups = sys.modules.get("torch.distributed.distributed_c10d")
    with suppress(AttributeError, RuntimeError):  # groups are made and left while this thread looks
        return sum(group._get_sequence_number_for_group() for group in list(groups._world.pg_map))  # type: ignore[union-attr]
    return None


def innermost_place(path: Path, wait_s: float = 0.5) -> str:
    """Where a rank's main thread is, as ``file.py:34 in forward``; empty where it does not say.

    Args:
        path: the rank's file of progress; its process was sent ``STACK_SIGNAL``.
        wait_s: how long to wait for the answer.
    """
    stack, deadline = path.with_suffix(".stack"), time.monotonic() + wait_s
    while time.monotonic() < deadline:
        with suppress(OSError, UnicodeDecodeError):
            if frames := [line for line in stack.read_text().splitlines() if line.strip().startswith("File ")]:
                own = [line for line in frames if "/torch/" not in line and "/torchrec/" not in line]
                _, file, rest = (own or frames)[0].split('"', 2)
                return f"{Path(file).name}:{rest.replace(', line ', '')}"
        time.sleep(0.05)
    return ""
