"""Runs of a sweep on this machine, some of them at a time."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue

from recd_dist.ranks.health.devices import look_at_driver
from recd_dist.ranks.health.machine_share import usable_cores
from recd_dist.screen.command_line import override

OUTPUT = "output.log"
_STOP_S = 60.0
_REFUSAL = re.compile(r"\w+: (error|fatal): ")


@dataclass
class LocalJobs:
    """Runs on this machine, some of them at a time; each writes what it says into ``output.log``.

    Args:
        num_ranks: ranks of each run.
        num_jobs: runs at a time.
    """

    num_ranks: int
    num_jobs: int
    _running: set["subprocess.Popen[bytes]"] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stopped: bool = False

    def __post_init__(self) -> None:
        self.pool = ThreadPoolExecutor(self.num_jobs)
        self._places: SimpleQueue[int] = SimpleQueue()
        for place in range(self.num_jobs):
            self._places.put(place)
        self._num_devices = len(look_at_driver().devices) if self.num_jobs > 1 else 0

    def line(self, run_dir: Path, overrides: Sequence[str]) -> list[str]:
        """The command of one run."""
        ranks = ["--nproc-per-node", str(self.num_ranks)]
        return [sys.executable, "-m", "recd_dist.ranks.launcher", *ranks, "--", *with_run_dir(overrides, run_dir)]

    def run(self, run_dir: Path, line: Sequence[str]) -> int:
        """Makes one run, to its end.

        Args:
            run_dir: its directory.
            line: its command.

        Returns:
            The exit code of the command; 130 where the sweep was stopped before it began.
        """
        place = self._places.get()
        try:
            run_dir.mkdir(parents=True, exist_ok=True)
            with (run_dir / OUTPUT).open("ab") as output, self._lock:
                if self._stopped:
                    return 128 + signal.SIGINT
                process = subprocess.Popen(
                    line,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=self._environment(place),
                    start_new_session=True,  # Ctrl-C comes to the sweep, which stops its runs as a scheduler would
                )
                self._running.add(process)
            code = process.wait()
            with self._lock:
                self._running.discard(process)
            return code
        finally:
            self._places.put(place)

    def stop(self) -> None:
        """Asks all runs to write a checkpoint and end, and waits for them."""
        with self._lock:
            self._stopped = True
            running = list(self._running)
        for process in running:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        for process in running:
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        self.pool.shutdown(cancel_futures=True)

    def _environment(self, place: int) -> dict[str, str]:
        """What a run finds: its share of the cores, and devices of its own where there are enough for all."""
        threads = max(1, usable_cores() // (self.num_ranks * self.num_jobs))
        environment = {"OMP_NUM_THREADS": str(threads), **os.environ}
        first, enough = place * self.num_ranks, self._num_devices >= self.num_jobs * self.num_ranks
        if enough and "CUDA_VISIBLE_DEVICES" not in os.environ:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, range(first, first + self.num_ranks)))
        return environment


def last_line(run_dir: Path) -> str:
    """The last line of what a run has said.

    Args:
        run_dir: its directory.
    """
    lines = _last_lines(run_dir, 4096)
    return lines[-1].removeprefix("recd: ").removeprefix("error: ") if lines else "it has said nothing"


def refusal(run_dir: Path) -> str:
    """What a program of the scheduler has said last, such as ``sbatch: error: ...``; TorchX's traceback follows it.

    Args:
        run_dir: the run's directory.
    """
    return next(filter(_REFUSAL.match, reversed(_last_lines(run_dir, 1 << 16))), "")


def _last_lines(run_dir: Path, num_bytes: int) -> list[str]:
    """The lines in the last bytes of what a run has said; none where it has said nothing."""
    with suppress(OSError), (run_dir / OUTPUT).open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - num_bytes))
        return [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    return []


def with_run_dir(overrides: Sequence[str], run_dir: Path) -> list[str]:
    """The overrides of a run together with its directory."""
    return [*overrides, override("run_dir", str(run_dir))]
