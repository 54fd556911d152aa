"""Which server a stream asks: its own one while it answers, otherwise the next one that does.

::

    4 streams of 2 ranks on 3 servers     stream 0 1 2 3 of rank 0 -> server 0 1 2 0,  of rank 1 -> 1 2 0 1

A server that does not answer is asked again after a while, which doubles from try to try. A stream stays with its
server, since a server decodes whole shuffle windows.
"""

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from recd_dist.reader.tier.server_address import Address

logger = logging.getLogger(__name__)

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 5.0


@dataclass
class _State:
    """What is known of a server.

    Attributes:
        num_failures: how often in a row it has not answered.
        ask_again: the time before which it is not asked.
        has_answered: whether it ever has.
    """

    num_failures: int = 0
    ask_again: float = 0.0
    has_answered: bool = False


class ServerChoice:
    """Servers and how they do, for all streams of a rank.

    Args:
        find: the servers that there are now.
        clock: the time in seconds.
    """

    def __init__(self, find: Callable[[], Sequence[Address]], clock: Callable[[], float] = time.monotonic) -> None:
        self._find, self._clock = find, clock
        self._states: dict[Address, _State] = {}
        self._lock = threading.Lock()

    def choose(self, stream: int) -> Address | None:
        """The server that a stream asks now; None while there is none to ask.

        Args:
            stream: the number of the stream among those of all ranks.
        """
        servers, now = self._find(), self._clock()
        with self._lock:
            for place in range(len(servers)):
                server = servers[(stream + place) % len(servers)]
                if self._states.setdefault(server, _State()).ask_again <= now:
                    return server
        return None

    def has_answered(self, server: Address) -> bool:
        """Whether a server ever has."""
        with self._lock:
            return self._states.setdefault(server, _State()).has_answered

    def report_answer(self, server: Address) -> None:
        """Notes that a server does well."""
        with self._lock:
            before = self._states.setdefault(server, _State())
            self._states[server] = _State(has_answered=True)
        if before.num_failures:
            logger.info("reader: %s answers%s", server, " again" if before.has_answered else "")

    def report_failure(self, server: Address, reason: str) -> None:
        """Notes that a server does not answer; it is said once, until it answers again.

        Args:
            server: the server.
            reason: what was found.
        """
        with self._lock:
            state = self._states.setdefault(server, _State())
            now = self._clock()
            if state.ask_again > now:
                return  # another stream has said so
            state.num_failures += 1
            pause = min(_FIRST_PAUSE_S * 2 ** (state.num_failures - 1), _LONGEST_PAUSE_S)
            state.ask_again = now + pause * random.uniform(0.75, 1.25)
            is_news = state.num_failures == 1
        if is_news:
            logger.warning(
                "reader: %s does not answer (%s); its batches are asked for elsewhere, or again", server, reason
            )

    def describe(self) -> str:
        """The servers that there are, for messages."""
        return ", ".join(map(str, self._find())) or "none"
