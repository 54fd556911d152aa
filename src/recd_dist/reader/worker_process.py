"""How worker processes start and end.

They are forked by a server that has no threads, which a fork could catch holding a lock, and has imported the reader
once for all of them (``reader/forkserver.py``). Nothing of the user's script is run in them, so that a script needs no
``if __name__ == "__main__"``: what workers need is in this package.
"""

import multiprocessing.context
import threading
from multiprocessing import popen_forkserver, spawn
from multiprocessing.process import BaseProcess
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
