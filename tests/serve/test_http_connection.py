"""Connections on which the head of a request does not come to its end, and those on which it does."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn

from recd_dist.serve import http_connection
from recd_dist.serve.http_connection import HttpConnection

HEAD = b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 4\r\n"
WAIT_S = 20


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the body."""
    body, has_more = b"", True
    while has_more:
        message = await receive()
        body, has_more = body + message["body"], message["more_body"]
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
    await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def connected(keep_alive_s: int = 60) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection to a server with these connections."""
    config = uvicorn.Config(echo, port=0, http=HttpConnection, log_level="error", timeout_keep_alive=keep_alive_s)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()
        server.should_exit = True
        await serving


def what_comes(*pieces: bytes, pause_s: float = 0.0, **options: Any) -> bytes:
    """All that the server sends until it closes the connection, after some pieces with a pause behind each."""

    async def send() -> bytes:
        async with asyncio.timeout(WAIT_S), connected(**options) as (reader, writer):
            for piece in pieces:
                writer.write(piece)
                await asyncio.sleep(pause_s)
            return await reader.read()

    return asyncio.run(send())


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_connection, "HEAD_S", 0.3)


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("pieces", [[HEAD], [HEAD[:1]], [b"\r\n"], [HEAD, b"x: y\r\n"]])
def test_a_head_that_has_no_end_is_not_waited_for(pieces: list[bytes]) -> None:
    assert what_comes(*pieces) == b""


@pytest.mark.usefixtures("short")
def test_so_it_is_for_the_second_request_of_a_connection() -> None:
    assert what_comes(HEAD + b"\r\nbody", HEAD, pause_s=0.1).startswith(b"HTTP/1.1 200 OK")


@pytest.mark.usefixtures("short")
def test_a_body_may_take_longer() -> None:
    assert what_comes(HEAD + b"connection: close\r\n\r\n", b"bo", b"dy", pause_s=0.4).endswith(b"body")


def test_a_client_that_says_nothing_is_treated_as_one_between_two_requests() -> None:
    assert what_comes(keep_alive_s=1) == b""


def test_a_head_has_a_limit() -> None:
    pieces = [HEAD, *[b"x: " + b"y" * 8000 + b"\r\n"] * 9]
    assert what_comes(*pieces, pause_s=0.05).startswith(b"HTTP/1.1 400 ")


def test_a_large_body_is_no_head() -> None:
    whole = HEAD.replace(b" 4", b" 200000") + b"connection: close\r\n\r\n" + b"b" * 200_000
    assert what_comes(whole).startswith(b"HTTP/1.1 200 ")
