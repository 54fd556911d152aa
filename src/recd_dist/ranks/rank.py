"""One rank of a job: runs a module's ``main(overrides)`` and leaves its error where the launcher finds it.

    python -m recd_dist.ranks.rank recd_dist.train.training data=tiny

The error goes to the file that the elastic agent names in TORCHELASTIC_ERROR_FILE, else to stderr. The ranks of a job
fail together; the launcher prints the one error that the others follow from.
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

USER_ERROR = 2  # exit code
LOST_PEER = re.compile(r"gloo|nccl|tcpstore|connection (closed|reset|refused)|broken pipe", re.IGNORECASE)


@dataclass(frozen=True)
class Failure:
    """Why a rank ended.

    Args:
        rank: global rank.
        message: one line for an error of the user's, a traceback for a bug.
        user: the user can mend it.
        lost_peer: it only noticed that another rank had gone.
        time_s: when, in seconds since the epoch.
    """

    rank: int
    message: str
    user: bool = False
    lost_peer: bool = False
    time_s: float = 0.0

    @classmethod
    def of(cls, error: BaseException, rank: int) -> "Failure":
        """Describe an exception.

        Args:
            error: what ended the rank.
            rank: global rank.
        """
        user = isinstance(error, UserError)
        message = str(error) if user else "".join(traceback.format_exception(error)).rstrip()
        lost_peer = not user and LOST_PEER.search(f"{type(error).__name__}: {error}") is not None
        return cls(rank, message, user, lost_peer, time.time())

    @classmethod
    def read(cls, path: Path) -> "Failure":
        """Read what ``write`` wrote.

        Args:
            path: an error.json.
        """
        return cls(**json.loads(path.read_text()))

    def write(self, path: Path) -> None:
        """Write it for the launcher, whole or not at all.

        Args:
            path: the file.
        """
        write_whole(path, json.dumps(asdict(self)))


def die_with_parent() -> None:
    """Ask Linux for SIGTERM when the launcher dies, even by SIGKILL: no rank outlives its job."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # 1: PR_SET_PDEATHSIG


def main(argv: Sequence[str]) -> int:
    """Run ``argv[0]``'s main with the rest.

    Args:
        argv: a module's name, then its overrides.

    Returns:
        The exit code: 0, 2 for an error of the user's, 130 after Ctrl-C, 1 for any other.
    """
    die_with_parent()
    module, *overrides = argv
    try:
        run = importlib.import_module(module).main
        quiet_libraries()  # after the import, in which they set levels of their own
        run(overrides)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT  # the launcher says it once for all ranks
    except Exception as error:
        failure = Failure.of(error, int(os.environ.get("RANK", "0")))
        if file := os.environ.get("TORCHELASTIC_ERROR_FILE"):
            failure.write(Path(file))
        else:
            sys.stderr.write(f"recd: error: {failure.message}\n")
        return USER_ERROR if failure.user else 1
    return 0


if __name__ == "__main__":
    code = main(sys.argv[1:])
    if code:
        # A failed rank leaves at once: the usual end waits for threads and children that may wait for dead peers.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
