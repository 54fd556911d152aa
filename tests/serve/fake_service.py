"""`recd serve` with workers that have the fake model, as a process: a script, and what starts and asks it."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from tests.serve.fake_worker import SAMPLE, write_export

from recd_dist import cli
from recd_dist.serve import service_run

ROOT = Path(__file__).parents[2]
START_S = 60
FAKE_WORKER = (sys.executable, str(Path(__file__).with_name("fake_worker.py")))


@dataclass
class FakeService:
    """A service that runs.

    Attributes:
        process: it.
        url, flight: where it listens.
        model: its export.
        log: the file with what it says.
    """

    process: subprocess.Popen[bytes]
    url: str
    flight: str
    model: Path
    log: Path

    def client(self, **more: Any) -> httpx.Client:
        """A client; to be closed."""
        return httpx.Client(base_url=self.url, timeout=30, **more)

    def get(self, path: str) -> httpx.Response:
        """Asks for a path."""
        with self.client() as client:
            return client.get(path)

    def post(self, path: str, value: Any = None, **more: Any) -> httpx.Response:
        """Sends a value as JSON."""
        with self.client() as client:
            return client.post(path, **({} if value is None else {"json": value}), **more)

    def score(self, *items: float, **more: Any) -> httpx.Response:
        """Scores items of the sample's user."""
        return self.post("/v1/score", request(*items), **more)

    def workers(self) -> list[int]:
        """Numbers of the worker processes."""
        return list(self.get("/v1/model").json()["workers"])

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels."""
        lines = self.get("/metrics").text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.partition(" ")[0].partition("{")[0] == name)

    def wait_for(self, name: str, value: float) -> None:
        """Waits until a metric has a value."""
        wait_until(lambda: self.metric(name) == value, f"{name} is {self.metric(name)}, not {value}")

    def hang_up(self, body: bytes, told_bytes: int | None = None) -> None:
        """Sends a request, perhaps a part of one, and does not wait for the answer."""
        host, _, port = self.url.removeprefix("http://").partition(":")
        length = len(body) if told_bytes is None else told_bytes
        head = f"POST /v1/score HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n"
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(head.encode() + body)

    def end(self) -> int:
        """Sends SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


def wait_until(holds: Any, otherwise: str) -> None:
    """Waits until something holds."""
    end = time.monotonic() + START_S
    while not holds():
        assert time.monotonic() < end, otherwise
        time.sleep(0.02)


def request(*items: float) -> dict[str, Any]:
    """A request of the sample's user."""
    return {"user": SAMPLE["user"], "candidates": {"item": list(items), "price": [1.0] * len(items)}}


@contextlib.contextmanager
def service(folder: Path, *arguments: str, step: int = 1, delay_ms: float = 0, **more: Any) -> Iterator[FakeService]:
    """Runs a service while the context lasts.

    Args:
        folder: for its export, its log and its addresses.
        arguments: of `recd serve`, but for the model and where it listens.
        step, delay_ms: of the export.
        more: ``env``; ``model``, a path other than that of the export; ``command`` of a worker.
    """
    export = write_export(folder / "export", step, delay_ms)
    model, log, announced = more.get("model", export), folder / "log", folder / "serve.json"
    announced.unlink(missing_ok=True)
    words = [f"model={model}", "--listen", "127.0.0.1:0", "--announce", str(announced), *arguments]
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.serve.fake_service", *words],
            stdout=out,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env=os.environ | more.get("env", {}) | {"WORKER": json.dumps(more.get("command", FAKE_WORKER))},
        )
    try:
        wait_until(lambda: announced.exists() or process.poll() is not None, "it does not start")
        assert announced.exists(), log.read_text()
        told: Mapping[str, str] = json.loads(announced.read_text())
        yield FakeService(process, told["http"], told.get("flight", ""), export, log)
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    service_run.WORKER = json.loads(os.environ["WORKER"])
    sys.exit(cli.main(["serve", *sys.argv[1:]]))
