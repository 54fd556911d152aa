"""Ranks for tests: ``two_ranks(function, *args)`` runs a function on two gloo ranks and returns both results.

The tests of this folder need several ranks; they are of the rooms embedding, plan, checkpoint, metrics and train. They
stand together, and not in the folders that mirror the source, because they share these ranks: processes that stay for
the whole session, since starting them takes longer than most of the tests. After a failure the ranks are started anew;
a test that takes too long fails, and its ranks are killed.
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
    """Processes, one for each rank, and a pipe to each.

    Args:
        world_size: number of ranks.
        local_world_size: number of ranks of one host; with fewer than ``world_size`` the ranks act as several hosts.
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
            command = [sys.executable, str(Path(__file__).with_name("rank_worker.py"))]
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
            return self._collect(time.monotonic() + TIMEOUT_S)
        except BaseException:
            self.stop()
            raise

    def _collect(self, deadline: float) -> list[Any]:
        """Waits for each rank's result; the test fails as soon as one rank fails."""
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
    """Four ranks that act as two hosts of two ranks each, for sharding types that keep a table on a host."""
    pool = Pool(4, 2)
    yield pool
    pool.stop()
