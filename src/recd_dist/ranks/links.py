"""Cut links: connections on which the other host acknowledges nothing any more are closed, so that waiting ends.

The kernel itself gives up a connection after about fifteen minutes of sending again (``tcp_retries2``). Until then a
collective, or an answer of the store, is waited for as if the other side were slow. A slow program does not look like
that: its kernel acknowledges what arrives, also while the process is stopped or its buffers are full. So the kernel is
asked: after ``link_s`` seconds without an acknowledgement, while it sends again and again, the link is cut. Idle
connections are probed by TCP's keep-alive.
"""

import logging
import os
import socket
import struct
import threading
import time
from contextlib import suppress

logger = logging.getLogger(__name__)

LOOK_S = 1.0
FEWEST_SENT_AGAIN = 3
_ACKNOWLEDGED = struct.Struct("=I")
_ACKNOWLEDGED_AT = 56
"""Where tcpi_last_ack_recv lies in the kernel's struct tcp_info: milliseconds."""


class LinkWatch:
    """Looks at the TCP connections of this process to other hosts.

    Args:
        link_s: seconds without an acknowledgement after which a link counts as cut.
    """

    def __init__(self, link_s: float) -> None:
        self._link_s = link_s
        self._known: set[str] = set()

    def look(self) -> list[str]:
        """Closes the connections whose link is cut; their users get an error at once.

        Returns:
            The addresses at the other ends.
        """
        cut: list[str] = []
        seen: set[str] = set()
        for number in _sockets(seen):
            with suppress(OSError), socket.socket(fileno=os.dup(number)) as connection:
                if connection.family not in (socket.AF_INET, socket.AF_INET6) or connection.type != socket.SOCK_STREAM:
                    continue
                peer = connection.getpeername()[0]  # an error where it is not connected
                if _is_local(peer):
                    continue
                self._probe_when_idle(connection, number)
                if self._is_cut(connection):
                    logger.warning("%s acknowledges nothing for %g s: the link is cut", peer, self._link_s)
                    connection.shutdown(socket.SHUT_RDWR)
                    cut.append(peer)
        self._known &= seen
        return cut

    def _probe_when_idle(self, connection: socket.socket, number: int) -> None:
        """Makes the kernel ask the other side from time to time, once for each connection."""
        name = os.readlink(f"/proc/self/fd/{number}")
        if name in self._known or not hasattr(socket, "TCP_KEEPIDLE"):
            return
        self._known.add(name)
        pause_s = max(1, int(self._link_s / 5))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, pause_s)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, pause_s)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4)

    def _is_cut(self, connection: socket.socket) -> bool:
        """Whether what was sent is sent again and again, and nothing comes back."""
        if not hasattr(socket, "TCP_INFO"):
            return False
        told = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
        num_sent_again = told[2]
        (silent_ms,) = _ACKNOWLEDGED.unpack_from(told, _ACKNOWLEDGED_AT)
        return num_sent_again >= FEWEST_SENT_AGAIN and silent_ms > self._link_s * 1000


class LinkThread(threading.Thread):
    """Looks once a second, in a thread: the launcher's own thread may be the one that waits for the other side.

    Args:
        link_s: see ``LinkWatch``.

    Attributes:
        cut: the addresses at the other ends of links that were cut, so far.
    """

    def __init__(self, link_s: float) -> None:
        super().__init__(name="recd-links", daemon=True)
        self._watch = LinkWatch(link_s)
        self.cut: list[str] = []

    def run(self) -> None:
        """Looks until the process ends."""
        while True:
            time.sleep(LOOK_S)
            self.cut += self._watch.look()


def _sockets(seen: set[str]) -> list[int]:
    """The descriptors of this process's sockets; ``seen`` takes their names."""
    found = []
    for name in os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else []:
        with suppress(OSError):
            if (target := os.readlink(f"/proc/self/fd/{name}")).startswith("socket:"):
                seen.add(target)
                found.append(int(name))
    return found


def _is_local(address: str) -> bool:
    """True for the loopback device, where there is no link to cut."""
    return address.startswith(("127.", "::ffff:127.")) or address == "::1"
