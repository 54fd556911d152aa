"""The load generator and the made requests, and the kills with few requests."""

import importlib
import json
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
BODY = b'{"scores": {"label": [0.5]}}'


def answer_all(peer: socket.socket, read: list[bytes], lock: threading.Lock) -> None:
    """Answers every request of a connection; every third one has no room."""
    with peer, suppress(OSError), peer.makefile("rb") as stream:
        while head := b"".join(iter(stream.readline, b"\r\n")):
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            body = stream.read(length)
            with lock:
                read.append(body)
                status = b"429 X" if len(read) % 3 == 0 else b"200 OK"
            peer.sendall(b"HTTP/1.1 %s\r\ncontent-length: %d\r\n\r\n" % (status, len(BODY)))
            peer.sendall(BODY)  # in a packet of its own


def test_each_client_asks_again_when_it_has_its_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    closed_loop = importlib.import_module("closed_loop")
    read: list[bytes] = []
    lock = threading.Lock()

    def accept(listening: socket.socket) -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=answer_all, args=(listening.accept()[0], read, lock), daemon=True).start()

    requests = [closed_loop.http_request(b'{"n": %d}' % n + b" " * 3_000_000) for n in range(3)]  # more than one send
    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=accept, args=(listening,), daemon=True).start()
        load = closed_loop.closed_loop(listening.getsockname()[1], requests, 4, 0.3)
        listening.shutdown(socket.SHUT_RDWR)

    assert sum(load.statuses.values()) == len(read)
    assert load.statuses[429] == len(read) // 3
    assert len(load.latencies_s) == load.statuses[200]
    assert {json.loads(body)["n"] for body in read} == {0, 1, 2}
    assert set(load.answers.values()) == {BODY}
    assert load.percentile_s(50) <= load.percentile_s(99)


@pytest.mark.slow
@pytest.mark.parametrize("kill", ["worker", "server"])
def test_nothing_is_lost(kill: str, tmp_path: Path) -> None:
    options = ["--requests", "600", "--clients", "4", "--kill", kill, "--dir", str(tmp_path)]
    shown = subprocess.run(
        [sys.executable, str(FOLDER / "serve_kills.py"), *options],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert "asked 600, lost 0, wrong 0" in shown.stdout
