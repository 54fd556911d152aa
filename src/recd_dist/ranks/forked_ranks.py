"""The launcher's side of the process that forks ranks (``ranks/rank_server.py``). It loads no torch."""

import json
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from recd_dist.files.json_text import json_text
from recd_dist.ranks.rank_server import MOST_BYTES

SERVER = "recd_dist.ranks.rank_server"


@contextmanager
def open_server(module: str) -> "Iterator[RankServer | None]":
    """A server of ranks while it is needed; None where ranks cannot be forked."""
    # A device's driver does not survive a fork.
    if sys.platform != "linux" or Path("/dev/nvidiactl").exists():
        yield None
        return
    server = RankServer(module)
    try:
        yield server
    finally:
        server.close()


_LONGEST_MS = 1 << 30
"""Poll takes no more milliseconds than fit into 31 bits."""


class RankServer:
    """The launcher's side of ``ranks/rank_server.py``. It begins to import at once.

    Args:
        module: what the ranks run.
    """

    def __init__(self, module: str) -> None:
        self._module = module
        self._ended: dict[int, int] = {}
        self._start()

    def _start(self) -> None:
        self._connection, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-m", SERVER, str(theirs.fileno()), self._module]
            self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], start_new_session=True)

    def fork(self, args: list[str], env: dict[str, str], stdout: str | None, stderr: str | None) -> "ForkedRank":
        """Starts a rank.

        Args:
            args: the module's name, followed by the overrides.
            env: its whole environment.
            stdout: file for what it writes; None where the launcher writes.
            stderr: the same for errors.
        """
        if self._process.poll() is not None:  # killed, with the ranks of the attempt before
            self.close()
            self._start()
        request = {"args": args, "env": env, "stdout": stdout, "stderr": stderr}
        self._connection.send(json_text(request, indent=None).encode())
        while (message := self._take(None)) is not None:
            if pid := message.get("started"):
                return ForkedRank(self, pid)
        raise RuntimeError("the process that starts the ranks of this host has died; out of memory?")

    def exit_code(self, pid: int, wait_s: float = 0.0) -> int | None:
        """How a rank has ended, -n after signal n; None while it runs.

        Args:
            pid: its process.
            wait_s: how long to wait for its end.
        """
        deadline = time.monotonic() + wait_s
        while pid not in self._ended:
            left_s = max(0.0, deadline - time.monotonic())
            watched = select.poll()  # select() refuses files whose number is above 1023
            watched.register(self._connection, select.POLLIN)
            if not watched.poll(min(1000 * left_s, _LONGEST_MS)):
                return None
            if self._take(left_s) is None:
                return -signal.SIGKILL  # its server is gone, and it with it
        return self._ended[pid]

    def _take(self, wait_s: float | None) -> dict[str, int] | None:
        """The next message of the server; None where it is gone."""
        self._connection.settimeout(wait_s or None)
        with suppress(ConnectionError):
            if text := self._connection.recv(MOST_BYTES):
                message: dict[str, int] = json.loads(text)
                if "ended" in message:
                    self._ended[message["ended"]] = message["code"]
                return message
        return None

    def close(self) -> None:
        """Ends the server, and every rank that it has started."""
        self._connection.close()
        self._process.kill()
        self._process.wait()


class ForkedRank:
    """A rank as ``subprocess.Popen`` would show it."""

    def __init__(self, server: RankServer, pid: int) -> None:
        self._server, self.pid = server, pid

    def poll(self) -> int | None:
        """Its exit code; None while it runs."""
        return self._server.exit_code(self.pid)

    def wait(self, timeout: float | None = None) -> int:
        """Waits for its end.

        Raises:
            subprocess.TimeoutExpired: it still runs.
        """
        code = self._server.exit_code(self.pid, 1e9 if timeout is None else timeout)
        if code is None:
            raise subprocess.TimeoutExpired("rank", timeout or 0.0)
        return code
