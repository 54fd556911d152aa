"""A server from its start to its end: it says where it listens and what it has served, and ends gracefully."""

import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from recd_dist.ranks.timeouts import GRACE_S
from recd_dist.reader.tier.announcements import announce
from recd_dist.reader.tier.flight_service import FlightService
from recd_dist.reader.tier.served_counts import describe_counts
from recd_dist.reader.tier.served_tables import ServedTables
from recd_dist.reader.tier.server_access import ServerAccess
from recd_dist.reader.tier.server_address import Address

logger = logging.getLogger(__name__)

LOG_S = 60.0
"""Seconds between two lines of what was served; without batches there is none."""

END_S = 15.0
"""What batches on their way may take when a server ends; a trainer that is stopped takes no longer."""

_LOOK_S = 0.25


@dataclass(frozen=True)
class Serving:
    """How a server runs.

    Attributes:
        address: where it listens; port 0 chooses a free one.
        max_sessions: sessions at a time; each holds two shuffle windows and three batches.
        announce_in: the directory in which trainers look for it.
        until: it ends when this file appears. A signal then ends it only after ``GRACE_S``, since schedulers send one
            to all processes of a job, and trainers want some more batches before they save.
        log_s: seconds between two lines of what was served.
    """

    address: Address
    max_sessions: int
    announce_in: Path | None = None
    until: Path | None = None
    log_s: float = LOG_S


def serve(serving: Serving, tables: ServedTables, access: ServerAccess, report: Callable[[str], None]) -> int:
    """Serves until a signal comes or a file appears.

    Args:
        serving: how.
        tables: the tables that may be read.
        access: who may ask.
        report: takes the one line that says that it is ready.

    Returns:
        0; 1 where a trainer took a batch so slowly that it was not waited for.

    Raises:
        ConfigError: the address cannot be listened at, or strangers could come in.
    """
    if warning := access.check(serving.address):
        logger.warning("reader: %s", warning)
    wish = _Wish(serving.until)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: wish.hear())
    service = FlightService(serving.address, tables, access, serving.max_sessions)
    with ExitStack() as stack:
        if serving.announce_in is not None:
            stack.enter_context(announce(serving.announce_in, _reachable(service.address)))
        report(f"recd reader: ready at {service.address}, tables {', '.join(tables.names)}")
        _wait(service, wish, serving)
    logger.info("reader: ending; %s", describe_counts(service.sessions.total.to_json()))
    ending = threading.Thread(target=service.end, daemon=True)
    ending.start()
    ending.join(END_S)
    if ending.is_alive():
        logger.warning("reader: a trainer has not taken its batch within %g s, it gets it elsewhere", END_S)
        sys.stdout.flush()
        os._exit(1)  # threads of the network library would wait for it
    return 0


class _Wish:
    """When a server is to end: at a signal, or when a file appears."""

    def __init__(self, until: Path | None) -> None:
        self._until, self._ends_at = until, float("inf")

    def hear(self) -> None:
        """Takes a signal; the second one ends it at once. Takes no lock, which the interrupted thread might hold."""
        is_first = self._ends_at == float("inf")
        self._ends_at = time.monotonic() + (GRACE_S if self._until is not None and is_first else 0.0)

    def is_due(self) -> bool:
        """Waits a moment, and says whether the end has come."""
        time.sleep(_LOOK_S)
        return time.monotonic() >= self._ends_at or (self._until is not None and self._until.exists())


def _wait(service: FlightService, wish: _Wish, serving: Serving) -> None:
    """Waits for the end, and tells what is served."""
    told, told_at = service.sessions.total.to_json(), time.monotonic()
    while not wish.is_due():
        if time.monotonic() - told_at < serving.log_s:
            continue
        service.sessions.close_idle()
        now = service.sessions.total.to_json()
        if now["batches"] != told["batches"]:
            logger.info("reader: %s", describe_counts(now, told))
        told, told_at = now, time.monotonic()


def _reachable(address: Address) -> Address:
    """How other hosts reach a server that listens on all addresses of this one."""
    if address.host not in ("0.0.0.0", "::"):  # noqa: S104
        return address
    name = socket.gethostname()
    try:
        number = socket.gethostbyname(name)
    except OSError:
        number = name
    host = name if number.startswith("127.") else number
    return Address(host, address.port, address.tls)
