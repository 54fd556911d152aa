"""A link that is slow, idle or full is left alone; the cut ones are in tests/cluster/test_faults.py."""

import socket
from contextlib import suppress
from typing import Any

import pytest

from recd_dist.ranks import links
from recd_dist.ranks.links import LinkWatch


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Two ends of a connection that does not count as local."""
    monkeypatch.setattr(links, "_is_local", lambda address: False)
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        accepted, _ = server.accept()
        with accepted:
            yield client, accepted


def test_a_peer_that_reads_nothing_is_no_cut_link(pair: Any) -> None:
    client, _ = pair
    client.setblocking(False)
    with suppress(BlockingIOError):
        while client.send(b"x" * 65536):
            pass
    assert LinkWatch(0.0).look() == []
    client.getpeername()


def test_idle_connections_are_probed(pair: Any) -> None:
    LinkWatch(10.0).look()
    assert pair[0].getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    assert pair[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 2


def test_a_connection_on_which_all_is_sent_again_is_closed(pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        LinkWatch, "_is_cut", lambda self, connection: connection.getpeername() == pair[0].getpeername()
    )
    assert LinkWatch(10.0).look() == ["127.0.0.1"]
    assert pair[0].recv(1) == b""


def test_connections_of_this_host_are_left_alone() -> None:
    assert links._is_local("127.0.0.1")
    assert links._is_local("::1")
    assert not links._is_local("10.77.0.2")
