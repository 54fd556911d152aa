"""Servers of scores as processes of their own: ours and the plain one."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

START_S = 120.0
_VALUE = re.compile(r"^(\w+)(?:\{([^}]*)\})? ([-+\w.]+)$", re.MULTILINE)


@dataclass(frozen=True)
class Server:
    """A server that answers.

    Attributes:
        port: of its HTTP, on loopback.
        process: the process that was started; its workers are below it.
    """

    port: int
    process: subprocess.Popen[bytes]

    def metrics(self) -> dict[str, float]:
        """The page /metrics: name, or name{labels}, -> value."""
        text = _get(self.port, "/metrics").decode()
        return {
            name + (f"{{{labels}}}" if labels else ""): float(value) for name, labels, value in _VALUE.findall(text)
        }

    def cpu_seconds(self) -> float:
        """The time that its processes have computed."""
        return sum(map(cpu_seconds, self.below()))

    def below(self) -> list[int]:
        """The process and all that it has started."""
        found = [self.process.pid]
        for process in found:
            for tasks in Path(f"/proc/{process}/task").glob("*/children"):
                found += [int(child) for child in tasks.read_text().split()]
        return found

    def kill(self) -> None:
        """Ends all its processes with SIGKILL."""
        for process in self.below():
            os.kill(process, signal.SIGKILL)
        self.process.wait()


def cpu_seconds(process: int) -> float:
    """The time that a process has computed."""
    after_name = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")


def ours(model: Path, port: int, *options: str) -> list[str]:
    """The command of our server."""
    listen = ["--listen", f"127.0.0.1:{port}"]
    return [sys.executable, "-m", "recd_dist.cli", "serve", f"model={model}", *listen, *options]


def plain(port: int, workers: int) -> list[str]:
    """The command of the plain server; its options stand in the environment."""
    uvicorn = ["-m", "uvicorn", "plain_server:app", "--port", str(port), "--workers", str(workers)]
    return [sys.executable, *uvicorn, "--loop", "uvloop", "--http", "httptools", "--no-access-log"]


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def served(
    command: Sequence[str], port: int, log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """A server that is ready, until the end of the block.

    Args:
        command: starts it.
        port: where it will listen.
        log: takes what it prints.
        environment: variables beside those of this process.

    Raises:
        SystemExit: it did not become ready; its output is shown.
    """
    beside = {"PYTHONSAFEPATH": "", "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path[1:]])}
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, env={**os.environ, **beside, **(environment or {})}
        )
    try:
        wait_until_ready(port, process, log)
        yield Server(port, process)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until_ready(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Waits until a server says that it would score a request."""
    end = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < end:
        try:
            _get(port, "/health/ready")
            return
        except OSError:
            time.sleep(0.1)
    process.kill()
    raise SystemExit(f"{json.dumps(process.args)}: not ready\n{log.read_text()[-3000:]}")


def _get(port: int, path: str) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        return bytes(answer.read())
