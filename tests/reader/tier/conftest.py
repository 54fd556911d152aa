"""Servers in this process, on free ports of loopback."""

import pytest

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
        service.end()


def remote(*services, **options):
    """What a loader takes as ``servers``."""
    return RemoteReader(Servers(tuple(s if isinstance(s, Address) else s.address for s in services), **options))
