"""The network lab itself: hosts have names, reach each other and nothing else, and are gone afterwards in any case."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytestmark = pytest.mark.cluster

HERE = Path(__file__).parent
SERVE = "import socket; s = socket.create_server(('', 7000)); c, peer = s.accept(); print(peer[0], c.recv(9).decode())"
CONNECT = """
import socket, time
for _ in range(100):
    try:
        with socket.create_connection(("host0", 7000)) as connection:
            connection.sendall(b"hello")
        break
    except ConnectionRefusedError:
        time.sleep(0.05)
print(socket.gethostname())
"""
BUILD = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell leaves it ignored in the background
sys.path.insert(0, sys.argv[1])
import lab
with lab.Lab() as hosts:
    print(hosts.prefix, flush=True)
    hosts.run([["sleep", "60"]])
"""


def leftovers(network: ModuleType, prefix: str) -> list[str]:
    """Namespaces and files of a lab."""
    return [n for n in network._namespaces() if n.startswith(prefix)] + list(network.FILES.glob(f"{prefix}*"))


def test_hosts_have_names_and_reach_each_other(two_hosts: Any) -> None:
    server, client = two_hosts.run([[sys.executable, "-c", SERVE], [sys.executable, "-c", CONNECT]], timeout_s=30)

    assert (server.code, server.out) == (0, "10.77.0.2 hello\n"), server.err
    assert (client.code, client.out) == (0, "host1\n"), client.err


def test_nothing_outside_is_reached(two_hosts: Any) -> None:
    shown, _ = two_hosts.run([["ip", "route"], ["true"]])

    assert [line.split()[0] for line in shown.out.splitlines()] == ["10.77.0.0/24"]


def test_segments_sent_again_are_not_counted(network: ModuleType) -> None:
    snmp = "Ip: Forwarding\nIp: 1\nTcp: InSegs OutSegs RetransSegs InErrs\nTcp: 7 9 3 0\n"
    assert network.sent_once("10000\n", snmp) == 10_000 - 3 * 1514


def test_what_takes_too_long_is_killed_and_told(network: ModuleType, two_hosts: Any) -> None:
    begun = "echo begun; sleep 61 & sleep 62"

    with pytest.raises(network.LabError, match=r"took more than 1 s; host0 exited with -9:\nbegun\n"):
        two_hosts.run([["sh", "-c", begun]], timeout_s=1)

    assert network._ip("netns", "pids", two_hosts.hosts[0]) == ""


def test_a_failed_host_ends_the_others(network: ModuleType, two_hosts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "GRACE_S", 0.2)

    failed, other = two_hosts.run([["false"], ["sleep", "60"]], timeout_s=30)

    assert (failed.code, other.code) == (1, -signal.SIGKILL)


def test_hosts_are_gone_after_a_failure(network: ModuleType) -> None:
    lab = network.Lab()

    with pytest.raises(network.LabError, match="ip nonsense"), lab:
        network._ip("nonsense", str(leftovers(network, lab.prefix)))

    assert leftovers(network, lab.prefix) == []


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_hosts_are_gone_after_ctrl_c_and_swept_after_a_kill(network: ModuleType, sent: signal.Signals) -> None:
    process = subprocess.Popen([sys.executable, "-c", BUILD, str(HERE)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    prefix = process.stdout.readline().decode().strip()
    assert prefix.startswith(f"recd-{process.pid}-")
    time.sleep(0.2)

    os.kill(process.pid, sent)
    process.communicate(timeout=20)

    assert bool(leftovers(network, prefix)) == (sent == signal.SIGKILL)
    network.sweep()
    assert leftovers(network, prefix) == []
