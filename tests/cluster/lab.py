"""Network lab: hosts made of network namespaces, a switch, links of a chosen speed, the counters of the kernel.

::

    host0 (eth0 10.77.0.1) ---veth, tbf--- br0 ---veth, tbf--- (eth0 10.77.0.2) host1      namespaces recd-PID-N-...

    with Lab(num_hosts=2, mbit=1000) as lab:
        lab.torchrun(["job/job.py"], ranks_per_host=2)
        lab.sent_bytes()                               # [from host0, from host1], headers included

Each host has a network, a name and a hosts file of its own; files, memory and CPUs are this machine's. Nothing reaches
the networks outside. What was made is removed at the end of the ``with``, with every process left in it; what a killed
test leaves behind is removed by the next lab. Needs root, iproute2 and a kernel with namespaces, veth, bridge and tbf.

A link of 1 Gbit/s is a token bucket at both ends. The kernel counts a large segment once, with one header, so that the
counters show about 1% more than what was sent, not the 4.5% of packets of 1500 bytes.
"""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

TOOLS = ("ip", "tc", "unshare")
FILES = Path("/etc/netns")
PORT = 29500
TX_BYTES, SNMP = "/sys/class/net/eth0/statistics/tx_bytes", "/proc/net/snmp"
SEGMENT_BYTES = 1514
"""A full packet of TCP on Ethernet."""
GRACE_S = 10.0
"""How long the other hosts may go on after one has failed."""

_numbers = itertools.count()


class LabError(RuntimeError):
    """The lab could not be built, or a job in it failed or took too long."""


@dataclass(frozen=True)
class Ended:
    """What a host's command came to.

    Attributes:
        code: its exit code, negative for a signal.
        out, err: what it wrote.
    """

    code: int
    out: str
    err: str


@cache
def unavailable() -> str:
    """Why there is no lab here; empty where there is one (it builds one to see)."""
    if os.geteuid():
        return "the network lab needs root, to make network namespaces"
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        return f"the network lab needs {missing[0]} (Debian: apt-get install iproute2 util-linux)"
    try:
        with Lab(num_hosts=2, mbit=1000):
            return ""
    except (LabError, OSError) as error:
        return f"no network lab on this kernel: {error}"


class Lab:
    """Hosts on this machine, joined by a switch; use it in a ``with``.

    Args:
        num_hosts: how many.
        mbit: speed of every host's link in Mbit/s, each way; None for as fast as the kernel.
    """

    def __init__(self, num_hosts: int = 2, mbit: int | None = None) -> None:
        self.num_hosts, self.mbit = num_hosts, mbit
        self.prefix = f"recd-{os.getpid()}-{next(_numbers)}"
        self.hosts = [f"{self.prefix}-host{n}" for n in range(num_hosts)]

    def __enter__(self) -> "Lab":
        sweep()
        try:
            self._build()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def _build(self) -> None:
        switch = f"{self.prefix}-switch"
        _ip("netns", "add", switch)
        _ip("-n", switch, "link", "add", "br0", "type", "bridge")
        _ip("-n", switch, "link", "set", "br0", "up")
        names = "".join(f"10.77.0.{n + 1} host{n}\n" for n in range(self.num_hosts))
        for number, host in enumerate(self.hosts):
            files = FILES / host
            files.mkdir(parents=True)
            (files / "hosts").write_text(f"127.0.0.1 localhost\n{names}")
            if Path("/etc/nsswitch.conf").exists():  # ip mounts the host's file over it
                (files / "nsswitch.conf").write_text("hosts: files\n")
            port = f"port{number}"
            _ip("netns", "add", host)
            _ip("link", "add", "eth0", "netns", host, "type", "veth", "peer", "name", port, "netns", switch)
            _ip("-n", switch, "link", "set", port, "master", "br0", "up")
            _ip("-n", host, "address", "add", f"10.77.0.{number + 1}/24", "dev", "eth0")
            _ip("-n", host, "link", "set", "lo", "up")
            _ip("-n", host, "link", "set", "eth0", "up")
            if self.mbit is not None:
                for namespace, device in ((host, "eth0"), (switch, port)):
                    shape = ("root", "tbf", "rate", f"{self.mbit}mbit", "burst", "256kb", "latency", "400ms")
                    _call("tc", "-n", namespace, "qdisc", "add", "dev", device, *shape)

    def remove(self) -> None:
        """Ends what runs on the hosts and removes them; safe to call twice."""
        for namespace in _namespaces():
            if namespace.startswith(f"{self.prefix}-"):
                _remove(namespace)

    def on_host(self, number: int, command: Sequence[str]) -> list[str]:
        """A command line that runs on a host, for processes that are started and watched elsewhere."""
        return _on_host(self.hosts[number], f"host{number}", command)

    def cut(self, number: int) -> None:
        """Cuts the link of a host: what is sent is lost, nobody is told."""
        _ip("-n", f"{self.prefix}-switch", "link", "set", f"port{number}", "down")

    def mend(self, number: int) -> None:
        """Puts the link of a host back."""
        _ip("-n", f"{self.prefix}-switch", "link", "set", f"port{number}", "up")

    def sent_bytes(self) -> list[int]:
        """Bytes that each host has sent to the others so far, by its interface: see ``sent_once``."""
        files = (TX_BYTES, SNMP)
        return [sent_once(*(_ip("netns", "exec", host, "cat", file) for file in files)) for host in self.hosts]

    def shapers(self) -> list[str]:
        """Kind of queue at each host's interface: ``tbf`` where the link is shaped."""
        found = [json.loads(_call("tc", "-n", host, "-j", "qdisc", "show", "dev", "eth0")) for host in self.hosts]
        return [queues[0]["kind"] for queues in found]

    def run(
        self, commands: Sequence[Sequence[str]], env: Mapping[str, str] | None = None, timeout_s: float = 120.0
    ) -> list[Ended]:
        """Runs a command on every host, side by side, to the end.

        Args:
            commands: of each host, in order; fewer commands than hosts leave the last hosts idle.
            env: added to this process's environment.
            timeout_s: for all of them; then every process on the hosts is killed.

        Raises:
            LabError: they took too long; says what each had written.
        """
        interfaces = {"GLOO_SOCKET_IFNAME": "eth0", "NCCL_SOCKET_IFNAME": "eth0"}
        whole = os.environ | interfaces | dict(env or {})
        with tempfile.TemporaryDirectory() as scratch:
            paths = [(Path(scratch, f"{n}.out"), Path(scratch, f"{n}.err")) for n in range(len(commands))]
            started: list[subprocess.Popen[bytes]] = []
            try:
                for number, (command, (out, err)) in enumerate(zip(commands, paths, strict=True)):
                    with out.open("wb") as stdout, err.open("wb") as stderr:
                        line = _on_host(self.hosts[number], f"host{number}", command)
                        started.append(
                            subprocess.Popen(line, env=whole, stdout=stdout, stderr=stderr, start_new_session=True)
                        )
                in_time = _wait(started, timeout_s)
            finally:
                for host in self.hosts:
                    _kill_all(host)
                for process in started:
                    process.kill()
                codes = [process.wait() for process in started]
            ended = [Ended(c, *(p.read_text(errors="replace") for p in ps)) for c, ps in zip(codes, paths, strict=True)]
        if not in_time:
            raise LabError(f"took more than {timeout_s:.0f} s; {_told(ended)}")
        return ended

    def torchrun(
        self,
        script: Sequence[str],
        ranks_per_host: int = 1,
        env: Mapping[str, str] | None = None,
        timeout_s: float = 120.0,
    ) -> list[Ended]:
        """Runs a script under torchrun on every host; they meet at host0.

        Args:
            script: a Python file, or ``-m`` and a module, and its arguments.
            ranks_per_host: processes on each host.
            env: see ``run``.
            timeout_s: see ``run``.

        Raises:
            LabError: a host's torchrun failed, or they took too long.
        """
        meet = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"host0:{PORT}", "--rdzv-id", self.prefix]
        shape = ["--nnodes", str(self.num_hosts), "--nproc-per-node", str(ranks_per_host)]
        command = [sys.executable, "-m", "torch.distributed.run", *shape, *meet, *script]
        ended = self.run([command] * self.num_hosts, {"OMP_NUM_THREADS": "1", **(env or {})}, timeout_s)
        if any(each.code for each in ended):
            raise LabError(_told(ended))
        return ended

    def call(
        self, function: Callable[..., Any], *args: Any, ranks_per_host: int = 1, timeout_s: float = 120.0
    ) -> list[Any]:
        """Calls ``function(ranks, *args)`` of a test file on every rank of a torchrun job.

        Args:
            function: at the top of its file.
            args: what JSON can carry.
            ranks_per_host: processes on each host.
            timeout_s: see ``run``.

        Returns:
            What each rank returned, by rank, as JSON gives it back.
        """
        with tempfile.TemporaryDirectory() as results:
            worker = str(Path(__file__).with_name("worker.py"))
            script = [worker, function.__code__.co_filename, function.__name__, json.dumps(args), results]
            self.torchrun(script, ranks_per_host, timeout_s=timeout_s)
            num_ranks = self.num_hosts * ranks_per_host
            return [json.loads(Path(results, f"{rank}.json").read_text()) for rank in range(num_ranks)]


def sent_once(tx_bytes: str, snmp: str) -> int:
    """Bytes at an interface, headers included, without what TCP sent again.

    Where a busy machine lets a queue of the switch overflow, TCP sends up to some hundred segments twice: 7% more in
    an exchange of 8 MB. They are counted as whole segments.

    Args:
        tx_bytes: text of the interface's counter, ``TX_BYTES``.
        snmp: text of ``SNMP`` in the same network.
    """
    names, values = (line.split() for line in snmp.splitlines() if line.startswith("Tcp:"))
    return int(tx_bytes) - SEGMENT_BYTES * int(values[names.index("RetransSegs")])


def sweep() -> None:
    """Removes the hosts of labs whose process is gone."""
    for namespace in _namespaces():
        parts = namespace.split("-")
        if parts[0] == "recd" and len(parts) == 4 and parts[1].isdigit() and not Path("/proc", parts[1]).exists():
            _remove(namespace)


def _on_host(namespace: str, name: str, command: Sequence[str]) -> list[str]:
    """A command line inside a namespace, under a host name of its own."""
    named = ["unshare", "--uts", "--", "sh", "-c", f'hostname {name} && exec "$@"', "sh"]
    return ["ip", "netns", "exec", namespace, *named, *command]


def _wait(started: Sequence["subprocess.Popen[bytes]"], timeout_s: float) -> bool:
    """Waits until all have ended, or a while after one has failed; False when the time is over."""
    deadline = time.monotonic() + timeout_s
    failed_at = None
    while any(process.poll() is None for process in started):
        now = time.monotonic()
        if failed_at is None and any(process.poll() for process in started):
            failed_at = now
        if failed_at is not None and now > failed_at + GRACE_S:
            return True
        if now > deadline:
            return False
        time.sleep(0.05)
    return True


def _told(ended: Sequence[Ended]) -> str:
    return "\n".join(f"host{n} exited with {e.code}:\n{(e.out + e.err)[-3000:]}" for n, e in enumerate(ended))


def _namespaces() -> list[str]:
    return [line.split()[0] for line in _ip("netns", "list").splitlines() if line.strip()]


def _kill_all(namespace: str) -> None:
    """SIGKILL for every process in a namespace of ours."""
    with suppress(LabError):
        for pid in _ip("netns", "pids", namespace).split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)


def _remove(namespace: str) -> None:
    _kill_all(namespace)
    with suppress(LabError):  # another test swept it at the same time
        _ip("netns", "delete", namespace)
    shutil.rmtree(FILES / namespace, ignore_errors=True)
    with suppress(OSError):
        FILES.rmdir()  # only when empty


def _ip(*args: str) -> str:
    return _call("ip", *args)


def _call(*command: str) -> str:
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    if found.returncode:
        raise LabError(f"{' '.join(command)}: {found.stderr.strip() or f'exit code {found.returncode}'}")
    return found.stdout
