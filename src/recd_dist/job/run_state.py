"""What state a run is in, as its directory tells: ``state.json`` says how it ended, a lock that it runs.

The lock goes with the process, however it ends, also over NFS. So a run that was killed is not taken for one that runs.
"""

import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any

from recd_dist.files.json_text import json_text
from recd_dist.files.whole_file import write_whole

STATE = "state.json"
_LOCK = ".running"


class State(StrEnum):
    """How far a run is."""

    RUNNING = "running"
    ENDED = "ended"
    STOPPED = "stopped"
    FAILED = "failed"
    KILLED = "killed"
    NEW = "not begun"
    WAITING = "waiting"
    DAMAGED = "damaged"


def _summarize(error: BaseException) -> str:
    """An error in one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[-1]


@contextmanager
def record_state(
    run_dir: Path, *, is_writer: bool = True, summarize: Callable[[BaseException], str] = _summarize
) -> Iterator[None]:
    """Writes into a run's directory that it runs, and at the end how it ended.

    Args:
        run_dir: the directory.
        is_writer: True on rank 0.
        summarize: says in one line why the run does not go on.
    """
    with ExitStack() as held:
        if is_writer:
            with suppress(OSError):  # where nothing can be written, the run's own checks say so
                held.enter_context(_lock(run_dir))
        began = {"host": socket.gethostname(), "pid": os.getpid(), "began_s": time.time()}
        write = partial(_write, run_dir, began) if is_writer else _write_nothing
        write(State.RUNNING)
        try:
            yield
        except BaseException as error:
            state = State.STOPPED if isinstance(error, KeyboardInterrupt | SystemExit) else State.FAILED
            write(state, summarize(error))
            raise
        write(State.ENDED)


@contextmanager
def _lock(run_dir: Path) -> Iterator[None]:
    """Holds the lock of a run, where its file system has locks; elsewhere the age of its files must tell."""
    run_dir.mkdir(parents=True, exist_ok=True)
    with (run_dir / _LOCK).open("w") as lock:
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def _write(run_dir: Path, began: dict[str, Any], state: State, message: str = "") -> None:
    """Writes the state, as far as the disk takes it: a full one must not hide why a run fails."""
    with suppress(OSError):
        told = {**began, "state": state, "message": message, "time_s": time.time()}
        write_whole(run_dir / STATE, json_text(told) + "\n")


def _write_nothing(state: State, message: str = "") -> None:
    """What ranks other than 0 write."""


def note_failure(run_dir: Path, message: str) -> None:
    """Writes why a run has failed, for those who know better than its first rank or saw it end before there was one.

    Args:
        run_dir: its directory.
        message: why, in one line.
    """
    if read_state(run_dir)[0] not in (State.KILLED, State.RUNNING):
        _write(run_dir, {"host": socket.gethostname()}, State.FAILED, message)


def read_state(run_dir: Path) -> tuple[State, str]:
    """The state of a run, and what it said when it ended.

    Args:
        run_dir: its directory.
    """
    try:
        told = json.loads((run_dir / STATE).read_text())
        state, message = State(told["state"]), str(told.get("message", ""))
    except FileNotFoundError:
        return (State.NEW if not (run_dir / "config.yaml").is_file() else State.STOPPED), ""
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return State.FAILED, f"{STATE} is damaged ({type(error).__name__})"
    if state is State.RUNNING and not _is_locked(run_dir):
        return State.KILLED, "ended without a word: killed, or out of memory"
    return state, message


def _is_locked(run_dir: Path) -> bool:
    """Whether a process holds the lock of the run."""
    try:
        with (run_dir / _LOCK).open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
