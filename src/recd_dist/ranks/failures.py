"""Why ranks failed: each writes it for its launcher, and the launchers find the failure that caused the others."""

import json
import re
import signal
import socket
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from recd_dist.errors import UserError
from recd_dist.files.json_text import json_text
from recd_dist.files.whole_file import write_whole
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
        host: the name of the rank's host.
    """

    rank: int
    message: str
    user: bool = False
    lost_peer: bool = False
    stopped: bool = False
    time_s: float = 0.0
    host: str = ""

    @property
    def exit_code(self) -> int:
        """The exit code of the rank, and of the launcher when this failure caused the others."""
        return USER_ERROR if self.user else 128 + signal.SIGTERM if self.stopped else 1

    @property
    def summary(self) -> str:
        """The message in one line: of a traceback the last one."""
        return self.message.strip().rpartition("\n")[2]

    @classmethod
    def of(cls, error: BaseException, rank: int) -> "Failure":
        """Describes an exception.

        Args:
            error: the exception that ended the rank.
            rank: the global rank.
        """
        host = socket.gethostname()
        if isinstance(error, Stopped):
            return cls(rank, error.message, stopped=True, time_s=time.time(), host=host)
        user = isinstance(error, UserError)
        message = str(error) if user else redact("".join(traceback.format_exception(error)).rstrip())
        lost_peer = not user and LOST_PEER.search(f"{type(error).__name__}: {error}") is not None
        return cls(rank, message, user, lost_peer, time_s=time.time(), host=host)

    @classmethod
    def of_exit_code(cls, rank: int, code: int) -> "Failure":
        """Describes a rank that died without a word.

        Args:
            rank: the global rank.
            code: its exit code; -n after signal n.
        """
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"
        hint = " (out of memory?)" if code == -signal.SIGKILL else ""
        # The launcher sends SIGTERM to the ranks that still run, and SIGKILL after it.
        lost = code == -signal.SIGTERM
        return cls(rank, f"rank {rank} {how}{hint}", lost_peer=lost, time_s=time.time(), host=socket.gethostname())

    @classmethod
    def parse(cls, text: str | bytes) -> "Failure":
        """Reads a failure from its JSON."""
        return cls(**json.loads(text))

    def to_json(self) -> str:
        """The failure as JSON."""
        return json_text(asdict(self), indent=None)

    @classmethod
    def read(cls, path: Path) -> "Failure":
        """Reads a failure that ``write`` wrote.

        Args:
            path: the file, error.json.
        """
        return cls.parse(path.read_text())

    def write(self, path: Path) -> None:
        """Writes the failure for the launcher, whole or not at all.

        Args:
            path: the file, error.json.
        """
        write_whole(path, self.to_json())


def summarize(error: BaseException) -> str:
    """Why a rank ended, in one line; it may only have noticed that another one is gone.

    Args:
        error: the exception that ended it.
    """
    failure = Failure.of(error, rank=0)
    if failure.lost_peer:
        return "another rank ended; the output of the job says why"
    return failure.summary if str(error) or failure.stopped else type(error).__name__


def root_cause(failures: Sequence[Failure]) -> Failure:
    """The failure that caused the others.

    It is an error that the user can mend if there is one, then a failure that is not a lost peer, then the earliest.
    """
    return min(failures, key=lambda failure: (not failure.user, failure.lost_peer, failure.time_s, failure.rank))


def read_failures(directory: Path, exit_codes: Mapping[int, int], ended_by_us: bool = False) -> list[Failure]:
    """Reads the failures that the ranks of this host wrote, and adds those of ranks that died without writing one.

    Args:
        directory: the launcher's log directory; ranks of attempt n write ``*/attempt_n/<local rank>/error.json``.
        exit_codes: the exit codes, by global rank, of the ranks that the agent found dead; -n after signal n.
        ended_by_us: leave out the ranks that died without a word: the launcher has ended them.
    """
    attempts = sorted(directory.glob("*/attempt_*"), key=lambda path: int(path.name.rpartition("_")[2]))
    failures = [Failure.read(path) for path in attempts[-1].glob("*/error.json")] if attempts else []
    reported = {failure.rank for failure in failures}
    if not ended_by_us:
        dead = ((rank, code) for rank, code in exit_codes.items() if rank not in reported and code)
        failures += [Failure.of_exit_code(rank, code) for rank, code in dead]
    return failures
