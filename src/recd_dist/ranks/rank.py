"""One rank of a job: runs a module's ``main(overrides)`` and records its error.

    python -m recd_dist.ranks.rank recd_dist.train.training data=tiny

The error goes to the file that the elastic agent names in TORCHELASTIC_ERROR_FILE, or to stderr without an agent. When
one rank fails, the other ranks fail after it; the launcher prints only the first error.
"""

import importlib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from recd_dist.ranks.failures import Failure
from recd_dist.ranks.quiet import quiet_libraries
from recd_dist.ranks.stop import Stopped

_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15


def die_with_parent() -> None:
    """Asks Linux to kill this process when the launcher dies, so that no rank outlives its job.

    SIGTERM would not do: a rank that waits for others answers it when they do. And the scheduler may start the launcher
    again at once, whose ranks need the run directory for themselves.
    """
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def name_process() -> None:
    """Gives this process a name of its own in ``ps`` and ``top``, where a forked rank looks like its server."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_NAME, f"recd-rank-{os.environ.get('RANK', '0')}".encode())


def be_silent() -> None:
    """Sends the output of this rank to files beside its error.json, unless it is rank 0 or writes to files already.

    torch numbers the hosts by their names and process ids. Rank 0, which the user wants to see, may be on any of them,
    and only the rank itself knows.
    """
    file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if file is None or os.environ.get("RANK", "0") == "0" or os.environ.get("LOCAL_RANK") != "0":
        return
    for name, stream in (("stdout", 1), ("stderr", 2)):
        log = os.open(Path(file).with_name(f"{name}.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(log, stream)
        os.close(log)


def main(argv: Sequence[str]) -> int:
    """Imports a module and calls its ``main`` with the overrides.

    Args:
        argv: the module's name, followed by the overrides.

    Returns:
        The exit code: 0 for success, 2 for an error that the user can mend, 130 after Ctrl-C, 143 where the module has
        answered SIGTERM, 1 for any other error.
    """
    die_with_parent()
    be_silent()
    name_process()
    module, *overrides = argv
    try:
        run = importlib.import_module(module).main
        quiet_libraries()  # after the import, during which they set the levels of their loggers
        run(overrides)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT  # the launcher reports it once for all ranks
    except (Exception, Stopped) as error:
        failure = Failure.of(error, int(os.environ.get("RANK", "0")))
        if file := os.environ.get("TORCHELASTIC_ERROR_FILE"):
            failure.write(Path(file))
        else:
            sys.stderr.write(f"recd: {'' if failure.stopped else 'error: '}{failure.message}\n")
        return failure.exit_code
    return 0


def leave(code: int) -> None:
    """Ends the process; a rank that has failed ends at once, where a normal end waits for threads and child processes.

    Args:
        code: what ``main`` has returned.
    """
    if code:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    leave(main(sys.argv[1:]))
