"""How worker processes start and end.

They are forked by a server that has no threads, which a fork could catch holding a lock, and has imported the reader
once for all of them (``reader/forkserver.py``). Nothing of the user's script is run in them, so that a script needs no
``if __name__ == "__main__"``: what workers need is in this package.

Python starts that server as a new process, which imports torch: several seconds of a core for each rank, at each start.
A rank that was itself forked has imported everything, so that it forks the server too (``fork_server``), as long as it
has no other threads.
"""

import multiprocessing.context
import os
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing import forkserver, popen_forkserver, spawn, util
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

_PRELOAD = ["recd_dist.reader.forkserver"]
_one_launch = threading.Lock()


class _Popen(popen_forkserver.Popen):
    """Starts a worker."""

    def _launch(self, process_obj: BaseProcess) -> None:
        """Starts it without the user's script, which Python would otherwise run in it first."""
        with _one_launch:
            of_python = spawn.get_preparation_data
            spawn.get_preparation_data = _without_script(of_python)
            try:
                super()._launch(process_obj)  # type: ignore[misc]  # not in the stubs
            finally:
                spawn.get_preparation_data = of_python

    def terminate(self) -> None:
        """Ends it at once; workers are deaf to SIGTERM, which a scheduler sends to all processes of a job."""
        self.kill()


def _without_script(of_python: Any) -> Any:
    """What Python tells a process that starts, but for the script to run in it."""
    return lambda name: {k: v for k, v in of_python(name).items() if not k.startswith("init_main_")}


class WorkerProcess(multiprocessing.context.ForkServerProcess):
    """A worker process."""

    @staticmethod
    def _Popen(process_obj: BaseProcess) -> Any:
        return _Popen(process_obj)


class WorkerContext(multiprocessing.context.ForkServerContext):
    """What torch's DataLoader makes its worker processes with."""

    Process = WorkerProcess

    def __init__(self) -> None:
        super().__init__()
        self.set_forkserver_preload(_PRELOAD)


def fork_server() -> bool:
    """Forks the server of this process's workers instead of starting a new process, where that is safe.

    Returns:
        False where it is not, and Python will start the server when the first worker is wanted: this process has other
        threads, one of which could hold a lock.
    """
    if len(list(Path("/proc/self/task").glob("*"))) != 1:
        return False
    WorkerContext()
    of_python = util.spawnv_passfds
    util.spawnv_passfds = _fork_passing  # type: ignore[assignment]
    try:
        forkserver.ensure_running()
    finally:
        util.spawnv_passfds = of_python
    return True


def _fork_passing(_path: Any, args: Sequence[Any], passed: Sequence[int]) -> int:
    """What Python would run as a new process, its server or resource tracker, runs in a fork, with the same files."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()  # what stands in them would be written twice
    if pid := os.fork():
        return pid
    try:
        signal.set_wakeup_fd(-1)
        with suppress(OSError):
            Path("/proc/self/comm").write_text("recd-reader")
        for number in {int(name) for name in os.listdir("/proc/self/fd")} - {0, 1, 2, *passed}:
            with suppress(OSError):  # the one that listed them
                os.close(number)
        exec(args[-1], {})  # noqa: S102  (Python's own line: main() of its server)
    finally:
        os._exit(0)
