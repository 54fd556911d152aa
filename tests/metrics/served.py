"""A dashboard that is starting."""

import socket
import time
import urllib.request

import pytest


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def fetch_when_ready(url: str, deadline_s: float = 60.0) -> bytes:
    """The answer of a server that is starting; asks again while the answer is empty."""
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                if len(body := answer.read()) > 2:
                    return body
        except OSError:
            pass
        time.sleep(0.2)
    pytest.fail(f"{url} did not answer in {deadline_s} s")
