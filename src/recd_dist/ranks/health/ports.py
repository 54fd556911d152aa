"""The ports and names by which the processes of a job, and people, find each other."""

import errno
import ipaddress
import os
import socket
import time

from recd_dist.ranks.health.finding import Finding, fail, ok, warn

CONNECT_S = 3.0
BOARD_PORT = 6006


def check_port(check: str, host: str, port: int, remedy: str, *, needed: bool = True) -> Finding:
    """Whether a port of this host is free.

    Args:
        check: the name of the check.
        host: the address to listen on; empty for all of them.
        port: the port.
        remedy: how to choose another.
        needed: whether a job fails without it.
    """
    bad = fail if needed else warn
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            why = "another program listens on it" if error.errno == errno.EADDRINUSE else str(error.strerror)
            return bad(check, f"{port}: {why}", remedy)
    return ok(check, f"{port} is free")


def check_host_name() -> Finding:
    """Whether this host's own name leads to an address that other hosts can reach, as gloo takes it for its own."""
    name, chosen = socket.gethostname(), os.environ.get("GLOO_SOCKET_IFNAME")
    if chosen:
        return ok("host name", f"{name}; gloo uses {chosen} (GLOO_SOCKET_IFNAME)")
    remedy = "export GLOO_SOCKET_IFNAME=the interface to the other hosts (`ip -br addr`), or mend /etc/hosts"
    try:
        address = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)[0][4][0]
    except OSError as error:
        return warn("host name", f"{name} has no address ({error.strerror})", remedy)
    if ipaddress.ip_address(str(address).partition("%")[0]).is_loopback:
        return warn("host name", f"{name} is {address}, where no other host finds it", remedy)
    return ok("host name", f"{name} is {address}")


def wait_for_peer(endpoint: str, timeout_s: float) -> str:
    """Waits until something listens at an endpoint.

    Args:
        endpoint: host:port.
        timeout_s: seconds after which it gives up.

    Returns:
        Why nothing can be reached there; empty when something listens.
    """
    host, _, port = endpoint.rpartition(":")
    give_up_s, why = time.monotonic() + timeout_s, ""
    while True:
        try:
            with socket.create_connection((host.strip("[]"), int(port)), timeout=min(CONNECT_S, timeout_s)):
                return ""
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        if time.monotonic() > give_up_s:
            return f"{endpoint}: {why} for {timeout_s:.0f} s"
        time.sleep(0.5)
