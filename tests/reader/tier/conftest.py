"""Servers in this process and in processes of their own, on free ports of loopback."""

import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from tests.reader.conftest import loader

from recd_dist.reader.tier.flight_service import FlightService
from recd_dist.reader.tier.remote_reader import RemoteReader
from recd_dist.reader.tier.served_tables import ServedTables
from recd_dist.reader.tier.server_access import ServerAccess
from recd_dist.reader.tier.server_address import Address
from recd_dist.reader.tier.servers import Servers


@pytest.fixture
def serve():
    """Starts servers of the tables below a directory; they end with the test."""
    services = []

    def start(root, access=None, port=0, max_sessions=8) -> FlightService:
        services.append(
            FlightService(Address("127.0.0.1", port), ServedTables([root]), access or ServerAccess(), max_sessions)
        )
        return services[-1]

    yield start
    for service in services:
        if service.port > 0:
            service.end()


class ServerProcess:
    """`recd reader` in a process of its own, which can be killed and started anew at the same port."""

    def __init__(self, root: Path, *arguments: str, wait: bool = True) -> None:
        self._arguments = ("--tables", str(root), *arguments)
        self.address = Address("127.0.0.1", 0)
        self.start(wait)

    def start(self, wait: bool = True) -> None:
        listen = f"{self.address.host}:{self.address.port}"
        command = [sys.executable, "-m", "recd_dist.cli", "reader", "--listen", listen, *self._arguments]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        if wait:
            self.wait()

    def wait(self) -> Address:
        assert self._process.stdout is not None
        ready = self._process.stdout.readline()
        assert "ready at" in ready
        self.address = Address.parse(ready.split()[4].rstrip(","))
        return self.address

    def send(self, number: int) -> None:
        self._process.send_signal(number)

    def end(self, number: int = signal.SIGKILL) -> int:
        self.send(number)
        return self._process.wait()

    def __enter__(self) -> "ServerProcess":
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self.end()
        self._process.stdout.close()


def remote(*services, **options):
    """What a loader takes as ``servers``."""
    return RemoteReader(Servers(tuple(s if isinstance(s, Address) else s.address for s in services), **options))


def local_batches(table, num_workers, **options):
    """What that many worker processes would read, read here."""
    with closing(loader(table, num_workers=num_workers, **options)) as reader:
        return [reader._open_reader().read(task) for task in reader.tasks()]
