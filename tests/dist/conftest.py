"""``two_ranks(function, *args)``: runs a function of the test file on two gloo ranks and hands back both results.

The ranks are processes that stay for the whole session (start-up is most of a small test); they are started anew after
a failure, and a test that takes too long kills them and fails.
"""

import inspect
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

TIMEOUT_S = 90.0


class Pool:
    """Worker processes and a pipe to each.

    Fewer ranks a host than ranks pretend to be several hosts.
    """

    def __init__(self, world_size: int = 2, local_world_size: int | None = None) -> None:
        self.world_size, self.local_world_size = world_size, local_world_size or world_size
        self.processes: list[subprocess.Popen[bytes]] = []
        self.pipes: list[Connection] = []

    def start(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        for rank in range(self.world_size):
            here, there = Pipe()
            env = os.environ | {
                "RANK": str(rank),
                "LOCAL_RANK": str(rank % self.local_world_size),
                "WORLD_SIZE": str(self.world_size),
                "LOCAL_WORLD_SIZE": str(self.local_world_size),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                "RECD_TEST_FD": str(there.fileno()),
                "GLOO_SOCKET_IFNAME": "lo",
                "OMP_NUM_THREADS": "1",
                "TORCH_CPP_LOG_LEVEL": "ERROR",
                "PYTHONWARNINGS": "ignore",
            }
            command = [sys.executable, str(Path(__file__).with_name("worker.py"))]
            self.processes.append(subprocess.Popen(command, env=env, pass_fds=[there.fileno()]))
            there.close()
            self.pipes.append(here)

    def stop(self) -> None:
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.wait()
        for pipe in self.pipes:
            pipe.close()
        self.processes, self.pipes = [], []

    def __call__(self, function: Callable[..., Any], *args: Any) -> list[Any]:
        if not self.processes:
            self.start()
        try:
            for pipe in self.pipes:
                pipe.send((inspect.getfile(function), function.__name__, args))
            return self._results(time.monotonic() + TIMEOUT_S)
        except BaseException:
            self.stop()
            raise

    def _results(self, deadline: float) -> list[Any]:
        """Each rank's result; the first rank that fails fails the test at once."""
        results: dict[int, Any] = {}
        while len(results) < self.world_size:
            if time.monotonic() > deadline:
                pytest.fail(f"ranks {set(range(self.world_size)) - set(results)} took more than {TIMEOUT_S} s")
            for rank, pipe in enumerate(self.pipes):
                if rank not in results and pipe.poll(0.005):
                    try:
                        passed, value = pipe.recv()
                    except EOFError:
                        pytest.fail(f"rank {rank} died with exit code {self.processes[rank].wait(5)}")
                    if not passed:
                        pytest.fail(f"rank {rank}:\n{value}")
                    results[rank] = value
        return [results[rank] for rank in range(self.world_size)]


@pytest.fixture(scope="session")
def two_ranks() -> Iterator[Pool]:
    pool = Pool()
    yield pool
    pool.stop()


@pytest.fixture(scope="session")
def four_ranks() -> Iterator[Pool]:
    """As two hosts of two ranks each, for the shardings that know hosts."""
    pool = Pool(4, 2)
    yield pool
    pool.stop()
