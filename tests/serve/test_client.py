"""The client against a server that does what a list says: one entry for each request that arrives."""

import json
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import numpy as np
import pytest

from recd_dist.serve import client as client_module
from recd_dist.serve.client import RequestRefused, ScoringClient, ScoringError, ServerUnavailable, request_body

USER, CANDIDATES = {"region": 3, "history": np.array([7, 9])}, {"item": np.arange(4)[::2], "tags": [[1], []]}
SENT = {"user": {"region": 3, "history": [7, 9]}, "candidates": {"item": [0, 2], "tags": [[1], []]}}
GOOD = json.dumps({"scores": {"label": [0.25, 0.5]}, "model": {"step": 7}})
REFUSED = '{"error": {"code": "bad_request", "message": "regoin: no feature", "feature": "regoin"}}'
RESET, CLOSE, HALF, EARLY = "reset", "close", "half", "answers before it has read the body"


@dataclass
class Scripted:
    """A server on loopback, and what it was asked.

    Attributes:
        acts: what it does with the next requests: (status, headers, body), or a word.
        bodies: of the requests that were read.
        heads: their first lines and headers.
    """

    acts: list = field(default_factory=list)
    bodies: list = field(default_factory=list)
    heads: list = field(default_factory=list)
    num_connections: int = 0
    address: str = ""

    def serve(self, listening: socket.socket) -> None:
        while True:
            try:
                peer = listening.accept()[0]
            except OSError:
                return
            self.num_connections += 1
            threading.Thread(target=self.answer_all, args=(peer,), daemon=True).start()

    def answer_all(self, peer: socket.socket) -> None:
        with peer, suppress(OSError):
            read = peer.makefile("rb")
            while head := b"".join(iter(lambda: read.readline().strip(b"\r\n") + b"\n", b"\n")).decode():
                length = next((int(x.split(":")[1]) for x in head.splitlines() if x.startswith("Content-Length")), 0)
                act = self.acts.pop(0) if self.acts else CLOSE
                if act != EARLY:
                    self.heads.append(head)
                    self.bodies.append(read.read(length))
                if act == RESET:
                    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                if act in (RESET, CLOSE):
                    read.close()
                    return
                if act == HALF:
                    peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n{")
                    read.close()
                    return
                if act == EARLY:
                    peer.sendall(b"HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
                    peer.shutdown(socket.SHUT_RD)
                    while read.read(1 << 16):
                        pass
                    return
                status, headers, body = act
                more = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
                text = body.encode()
                peer.sendall(f"HTTP/1.1 {status} X\r\n{more}Content-Length: {len(text)}\r\n\r\n".encode() + text)


@pytest.fixture
def server() -> Iterator[Scripted]:
    with listening() as (scripted, _):
        yield scripted


@contextmanager
def listening(port: int = 0) -> Iterator[tuple[Scripted, int]]:
    with socket.create_server(("127.0.0.1", port)) as listener:
        scripted = Scripted(address=f"127.0.0.1:{listener.getsockname()[1]}")
        threading.Thread(target=scripted.serve, args=(listener,), daemon=True).start()
        try:
            yield scripted, listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the client waited between its tries; nobody does wait."""
    found: list[float] = []
    monkeypatch.setattr(client_module.time, "sleep", found.append)
    return found


def ok(headers: dict[str, str] | None = None) -> tuple[int, dict[str, str], str]:
    return (200, headers or {}, GOOD)


def test_arrays_go_in_and_come_out_over_one_connection(server: Scripted) -> None:
    server.acts = [ok(), ok()]
    with ScoringClient(server.address, token="secret") as client:
        for _ in range(2):
            scores = client.score(USER, CANDIDATES)
    assert scores["label"].dtype == np.float32
    assert scores["label"].tolist() == [0.25, 0.5]
    assert scores.model == {"step": 7}
    assert [json.loads(body) for body in server.bodies] == [SENT, SENT]
    assert server.heads[0].startswith("POST /v1/score HTTP/1.1\n")
    assert "Authorization: Bearer secret\n" in server.heads[0]
    assert server.num_connections == 1


@pytest.mark.parametrize("has_orjson", [True, False])
def test_the_body_is_the_same_without_orjson(has_orjson: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not has_orjson:
        monkeypatch.setitem(__import__("sys").modules, "orjson", None)
    body = request_body(
        {**USER, "name": np.str_("Åse"), "ratio": float("nan")}, {"x": np.array(["a"]), "y": (np.float16(0.5),)}
    )
    user = {**SENT["user"], "name": "Åse", "ratio": None}
    assert json.loads(body) == {"user": user, "candidates": {"x": ["a"], "y": [0.5]}}
    with pytest.raises(TypeError):
        request_body({"region": object()}, {})


@pytest.mark.parametrize("act", [RESET, CLOSE, HALF, (429, {}, ""), (503, {}, "starting"), (502, {}, "<html>")])
def test_what_passes_is_tried_again(act: object, server: Scripted, pauses: list[float]) -> None:
    server.acts = [act, act, ok()]
    with ScoringClient(server.address) as client:
        assert client.score(USER, CANDIDATES)["label"].tolist() == [0.25, 0.5]
    assert len(server.bodies) == 3
    assert 0.02 < pauses[0] <= 0.05 <= pauses[1] <= 0.1


def test_a_row_that_the_server_keeps_is_named_by_its_key(server: Scripted) -> None:
    server.acts = [ok(), (404, {}, '{"error": {"code": "user_unknown", "message": "send the row"}}')]
    with ScoringClient(server.address) as client:
        client.score(USER, CANDIDATES, user_key="u1", user_version=3)
        with pytest.raises(RequestRefused, match="404: send the row"):
            client.score(None, CANDIDATES, user_key="u1")
    keyed = {"user_key": "u1", "candidates": SENT["candidates"]}
    assert [json.loads(body) for body in server.bodies] == [{**SENT, "user_key": "u1", "user_version": 3}, keyed]


def test_retry_after_is_kept_to(server: Scripted, pauses: list[float]) -> None:
    server.acts = [(429, {"Retry-After": "3"}, ""), (503, {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, ""), ok()]
    with ScoringClient(server.address) as client:
        client.score(USER, CANDIDATES)
    assert pauses[0] == 3.0
    assert pauses[1] < 1.0


def test_a_connection_that_the_server_closed_while_idle_costs_no_pause(server: Scripted, pauses: list[float]) -> None:
    server.acts = [ok(), CLOSE, ok()]
    with ScoringClient(server.address) as client:
        client.score(USER, CANDIDATES)
        client.score(USER, CANDIDATES)
    assert pauses == []
    assert server.num_connections == 2


def test_what_is_refused_is_not_sent_again(server: Scripted) -> None:
    server.acts = [(422, {}, REFUSED)] * 3
    with ScoringClient(server.address) as client, pytest.raises(RequestRefused, match="422: regoin: no feature") as e:
        client.score(USER, CANDIDATES)
    assert (e.value.status, e.value.code, e.value.feature) == (422, "bad_request", "regoin")
    assert len(server.bodies) == 1


def test_an_answer_before_the_body_was_read_is_seen(server: Scripted) -> None:
    server.acts = [EARLY]
    with ScoringClient(server.address) as client, pytest.raises(RequestRefused, match="413"):
        client.score({"history": np.zeros(3_000_000, np.int64)}, CANDIDATES)


@pytest.mark.parametrize(("status", "body", "words"), [(500, "", "500"), (200, "<html>", "not that of recd serve")])
def test_a_server_that_fails(status: int, body: str, words: str, server: Scripted) -> None:
    server.acts = [(status, {}, body)]
    with ScoringClient(server.address) as client, pytest.raises(ScoringError, match=words):
        client.score(USER, CANDIDATES)
    assert len(server.bodies) == 1


def test_the_deadline_ends_the_tries_and_names_the_last_one(server: Scripted) -> None:
    server.acts = [(503, {"Retry-After": "60"}, '{"error": {"message": "the model is being loaded"}}')]
    with (
        ScoringClient(server.address, deadline_s=5) as client,
        pytest.raises(ServerUnavailable, match=r"within 5 s; the last one: 503: the model is being loaded"),
    ):
        client.score(USER, CANDIDATES)


def test_a_server_that_does_not_answer_ends_with_the_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with ScoringClient(address) as client, pytest.raises(ServerUnavailable, match="timed out"):
            client.score(USER, CANDIDATES, deadline_s=0.2)


def test_a_server_that_is_started_late_is_found() -> None:
    with listening() as (_, port):
        pass
    found: list[object] = []
    with ScoringClient(f"http://127.0.0.1:{port}/", deadline_s=30) as client:
        assert not client.is_ready()
        asking = threading.Thread(target=lambda: found.append(client.score(USER, CANDIDATES)["label"].tolist()))
        asking.start()
        time.sleep(0.2)
        with listening(port) as (scripted, _):
            scripted.acts = [ok()]
            asking.join()
    assert found == [[0.25, 0.5]]


def test_readiness_model_and_reload(server: Scripted) -> None:
    server.acts = [(200, {}, "{}"), (503, {}, ""), (200, {}, '{"step": 7}'), (200, {}, '{"step": 8}')]
    with ScoringClient(server.address) as client:
        assert [client.is_ready(), client.is_ready()] == [True, False]
        assert [client.model(), client.reload()] == [{"step": 7}, {"step": 8}]
    assert [head.split(" HTTP")[0] for head in server.heads[2:]] == ["GET /v1/model", "POST /v1/reload"]


@pytest.mark.parametrize("address", ["ftp://host:1", "https://", ":8080"])
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(ValueError, match="not an address"):
        ScoringClient(address)
