"""Forks the ranks of a host from a process that has imported what they need: a rank starts in milliseconds.

    python -m recd_dist.ranks.rank_server FD MODULE

Importing torch, TorchRec and the training takes about six seconds of a core, for each rank at each start. Here it is
done once, while the job is checked, and a restart costs none of it. The launcher asks at the socket FD; the answers are
the ranks' process ids and, later, their exit codes. The server has no device and no thread of its own. Where CUDA
devices are, the launcher starts ranks from scratch, because a device's driver does not survive a fork.
"""

import importlib
import json
import os
import random
import select
import signal
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from recd_dist.files.json_text import json_text

MOST_BYTES = 1 << 20


def serve(connection: socket.socket, module: str) -> int:
    """Forks ranks until the launcher ends.

    Args:
        connection: to the launcher, a socket that keeps messages apart.
        module: what the ranks run; imported before the first of them, and its ``prepare()`` called if it has one.

    Returns:
        In a rank its exit code; in the server it does not return.
    """
    awake, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    for ignored in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):  # a scheduler sends them to every process of a job
        signal.signal(ignored, signal.SIG_IGN)
    with suppress(Exception):  # the rank imports it again, and says what is wrong with it
        importlib.import_module("recd_dist.ranks.rank")
        getattr(importlib.import_module(module), "prepare", lambda: None)()  # what it loads only when it runs
    watched = select.poll()  # select() refuses files whose number is above 1023
    for number in (connection.fileno(), awake):
        watched.register(number, select.POLLIN)
    while True:
        ready = {number for number, _ in watched.poll()}
        if awake in ready:
            os.read(awake, 4096)
            _report_ended(connection)
        if connection.fileno() in ready:
            request = connection.recv(MOST_BYTES)
            if not request:  # the launcher is gone; the kernel kills the ranks with this process
                os._exit(0)
            server = os.getpid()
            if pid := os.fork():
                connection.send(json_text({"started": pid}, indent=None).encode())
                continue
            os.close(awake)
            os.close(wake)
            connection.close()
            return _run(json.loads(request), server)


def _report_ended(connection: socket.socket) -> None:
    """Tells the launcher which ranks have ended."""
    with suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            connection.send(json_text({"ended": pid, "code": os.waitstatus_to_exitcode(status)}, indent=None).encode())


def _run(request: Mapping[str, Any], server: int) -> int:
    """A rank: like a new process, but for the modules that are there already."""
    signal.set_wakeup_fd(-1)
    for restored in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP):
        signal.signal(restored, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.setsid()
    for number, name in ((1, request["stdout"]), (2, request["stderr"])):
        if name:
            file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            os.dup2(file, number)
            os.close(file)
    os.environ.clear()
    os.environ.update(request["env"])
    random.seed()
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()
    from recd_dist.ranks.rank import die_with_parent, main

    die_with_parent()
    if os.getppid() != server:  # it ended before it could be asked to tell
        return 1
    sys.argv[1:] = request["args"]
    return main(request["args"])


if __name__ == "__main__":
    _server = os.getpid()
    _code = serve(socket.socket(fileno=int(sys.argv[1])), sys.argv[2])
    if os.getpid() != _server:
        from recd_dist.ranks.rank import leave

        leave(_code)
