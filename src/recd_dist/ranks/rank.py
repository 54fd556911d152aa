"""One rank of a job: runs a module's ``main(overrides)`` and records its error.

    python -m recd_dist.ranks.rank recd_dist.train.training data=tiny

The error goes to the file that the elastic agent names in TORCHELASTIC_ERROR_FILE, or to stderr without an agent. When
one rank fails, the other ranks fail after it; the launcher prints only the first error.
"""

import importlib
import json
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from recd_dist.errors import UserError
from recd_dist.files.whole_file import write_whole
from recd_dist.ranks.quiet import quiet_libraries
from recd_dist.ranks.stop import Stopped
from recd_dist.redaction.credentials import redact

USER_ERROR = 2  # exit code
LOST_PEER = re.compile(r"gloo|nccl|tcpstore|connection (closed|reset|refused)|broken pipe", re.IGNORECASE)


@dataclass(frozen=True)
class Failure:
    """Why a rank failed.

    Attributes:
        rank: the global rank.
        message: one line for an error that the user can mend, a traceback for a bug.
        user: whether the user can mend it.
        lost_peer: whether the rank failed only because another rank had ended.
        stopped: whether SIGTERM ended it, and the message says what the next run goes on from.
        time_s: the time of the failure, in seconds since the epoch.
    """

    rank: int
    message: str
    user: bool = False
    lost_peer: bool = False
    stopped: bool = False
    time_s: float = 0.0

    @property
    def exit_code(self) -> int:
        """The exit code of the rank, and of the launcher when this failure caused the others."""
        return USER_ERROR if self.user else 128 + signal.SIGTERM if self.stopped else 1

    @classmethod
    def of(cls, error: BaseException, rank: int) -> "Failure":
        """Describes an exception.

        Args:
            error: the exception that ended the rank.
            rank: the global rank.
        """
        if isinstance(error, Stopped):
            return cls(rank, error.message, stopped=True, time_s=time.time())
        user = isinstance(error, UserError)
        message = str(error) if user else redact("".join(traceback.format_exception(error)).rstrip())
        lost_peer = not user and LOST_PEER.search(f"{type(error).__name__}: {error}") is not None
        return cls(rank, message, user, lost_peer, time_s=time.time())

    @classmethod
    def read(cls, path: Path) -> "Failure":
        """Reads a failure that ``write`` wrote.

        Args:
            path: the file, error.json.
        """
        return cls(**json.loads(path.read_text()))

    def write(self, path: Path) -> None:
        """Writes the failure for the launcher, whole or not at all.

        Args:
            path: the file, error.json.
        """
        write_whole(path, json.dumps(asdict(self)))


def die_with_parent() -> None:
    """Asks Linux to send SIGTERM to this process when the launcher dies, so that no rank outlives its job."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # 1: PR_SET_PDEATHSIG


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


if __name__ == "__main__":
    code = main(sys.argv[1:])
    if code:
        # A failed rank ends at once. A normal end waits for threads and child processes, which may wait for dead ranks.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
