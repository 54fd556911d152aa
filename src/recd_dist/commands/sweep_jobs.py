"""Runs of a sweep: started on this machine, or handed to a scheduler through TorchX's command line."""

import json
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

from recd_dist.errors import ConfigError
from recd_dist.files.json_text import json_text
from recd_dist.files.whole_file import write_whole
from recd_dist.job.config import config_dir
from recd_dist.ranks.health.devices import look_at_driver
from recd_dist.ranks.health.machine_share import usable_cores
from recd_dist.screen.command_line import override

OUTPUT = "output.log"
SUBMITTED = "submitted.json"
ASK_S = 60.0
"""Seconds after which a scheduler that does not answer counts as one that knows nothing."""

_WAITING = ("UNSUBMITTED", "SUBMITTED", "PENDING", "RUNNING")
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
        return [sys.executable, "-m", "recd_dist.ranks.launcher", *ranks, "--", *_in(run_dir, overrides)]

    def run(self, run_dir: Path, overrides: Sequence[str]) -> int:
        """Makes one run, to its end.

        Args:
            run_dir: its directory.
            overrides: all of its overrides.

        Returns:
            The exit code of its launcher; 130 where the sweep was stopped before it began.
        """
        place = self._places.get()
        try:
            run_dir.mkdir(parents=True, exist_ok=True)
            with (run_dir / OUTPUT).open("ab") as output, self._lock:
                if self._stopped:
                    return 128 + signal.SIGINT
                process = subprocess.Popen(
                    self.line(run_dir, overrides),
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


@dataclass(frozen=True)
class Scheduler:
    """A scheduler behind ``torchx run launch/train.py:train``.

    Args:
        name: such as ``slurm``, ``kubernetes`` or ``local_cwd``.
        options: the component's own options, such as ``["-j", "2x8", "--gpu", "8"]``.
        arguments: the scheduler's, as ``partition=gpu,time=2:00:00``; empty for none.
    """

    name: str
    options: Sequence[str]
    arguments: str = ""

    @property
    def is_local(self) -> bool:
        """Whether its jobs end with the command that has started them."""
        return self.name.startswith("local")

    def line(self, run_dir: Path, overrides: Sequence[str]) -> list[str]:
        """The command that submits one run.

        Raises:
            ConfigError: the component is not there; only a checkout has it.
        """
        component = config_dir().parent / "launch" / "train.py"
        if not component.is_file():
            raise ConfigError("--scheduler: launch/train.py is not there; start the sweep from a checkout of recd_dist")
        words = [sys.executable, "-m", "torchx.cli.main", "run", "-s", self.name]
        words += ["-cfg", self.arguments] if self.arguments else []
        words += ["--wait"] if self.is_local else []
        return [*words, f"{component}:train", *self.options, "--run", str(run_dir), "--", *_in(run_dir, overrides)]

    def submit(self, run_dir: Path, overrides: Sequence[str]) -> str:
        """Submits one run; a local one runs to its end.

        Returns:
            Why it failed, in one line; empty where it did not.
        """
        run_dir.mkdir(parents=True, exist_ok=True)
        with (run_dir / OUTPUT).open("ab") as output:
            output_to = output if self.is_local else subprocess.PIPE
            line = self.line(run_dir, overrides)
            ended = subprocess.run(line, stdout=output_to, stderr=output, stdin=subprocess.DEVNULL, check=False)
        if ended.returncode:
            return f"torchx ended with {ended.returncode}: {_refusal(run_dir) or last_line(run_dir)}"
        if not self.is_local:
            handle = ended.stdout.decode(errors="replace").strip().rpartition("\n")[2]
            write_whole(run_dir / SUBMITTED, json_text({"handle": handle}) + "\n")
        return ""


def waiting_handle(run_dir: Path) -> str:
    """The job of a run that a scheduler still has, waiting or running; empty where it has none.

    Args:
        run_dir: the run's directory.
    """
    with suppress(OSError, ValueError, KeyError, TypeError, subprocess.TimeoutExpired):
        handle = str(json.loads((run_dir / SUBMITTED).read_text())["handle"])
        line = [sys.executable, "-m", "torchx.cli.main", "status", "--json", handle]
        told = subprocess.run(line, capture_output=True, text=True, timeout=ASK_S, check=True)
        if json.loads(told.stdout)["state"] in _WAITING:
            return handle
    return ""


def last_line(run_dir: Path) -> str:
    """The last line of what a run has said.

    Args:
        run_dir: its directory.
    """
    lines = _last_lines(run_dir, 4096)
    return lines[-1].removeprefix("recd: ").removeprefix("error: ") if lines else "it has said nothing"


def _refusal(run_dir: Path) -> str:
    """What a program of the scheduler has said last, such as ``sbatch: error: ...``; TorchX's traceback follows it."""
    return next(filter(_REFUSAL.match, reversed(_last_lines(run_dir, 1 << 16))), "")


def _last_lines(run_dir: Path, num_bytes: int) -> list[str]:
    """The lines in the last bytes of what a run has said; none where it has said nothing."""
    with suppress(OSError), (run_dir / OUTPUT).open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - num_bytes))
        return [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    return []


def _in(run_dir: Path, overrides: Sequence[str]) -> list[str]:
    return [*overrides, override("run_dir", str(run_dir))]
