"""Runs a command as a user does, and watches the memory of all its processes through /proc."""

import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

EVERY_S = 0.05


@dataclass(frozen=True)
class Run:
    """A command that has ended.

    Attributes:
        code: the exit status.
        seconds: the time from its start to its end.
        peak_bytes: the most memory that its processes had together. It is the largest sum of Pss, taken every 50 ms (a
            page that two processes share counts half for each; Rss where the kernel gives no Pss), or the high-water
            mark of one process if that is more.
        stderr: the last 4,000 characters of its error output.
    """

    code: int
    seconds: float
    peak_bytes: int
    stderr: str

    @property
    def peak_gib(self) -> float:
        """``peak_bytes`` in GiB."""
        return self.peak_bytes / 2**30


def watch_command(command: Sequence[str], scratch: Path, num_cores: int) -> Run:
    """Runs a command on some cores, and watches its memory.

    Args:
        command: the program and its arguments.
        scratch: a directory for the command's error output.
        num_cores: how many cores the command gets: the first of those that this process may use.
    """
    peak, stderr_file = 0, scratch / "stderr.txt"
    mine = os.sched_getaffinity(0)
    with stderr_file.open("w") as errors:
        start = time.perf_counter()
        os.sched_setaffinity(0, sorted(mine)[:num_cores])  # every process that starts here inherits it
        try:
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors)
        finally:
            os.sched_setaffinity(0, mine)
        while True:
            peak = max(peak, memory_bytes(process.pid))
            try:
                code = process.wait(EVERY_S)
                break
            except subprocess.TimeoutExpired:
                continue
        seconds = time.perf_counter() - start
    return Run(code, seconds, peak, stderr_file.read_text()[-4000:])


def memory_bytes(pid: int) -> int:
    """The memory of a process and of all processes that it started; 0 when it has ended."""
    together, highest = 0, 0
    for process in process_tree(pid):
        together += _field(process, "smaps_rollup", "Pss:") or _field(process, "status", "VmRSS:")
        highest = max(highest, _field(process, "status", "VmHWM:"))
    return max(together, highest)


def process_tree(pid: int) -> list[int]:
    """A process and those of its descendants that still run."""
    pids = [pid]
    for process in pids:
        for task in Path(f"/proc/{process}/task").glob("*"):
            try:
                pids += [int(child) for child in (task / "children").read_text().split()]
            except OSError:  # the process has just ended
                continue
    return pids


def _field(pid: int, file: str, name: str) -> int:
    """The bytes that a line of a file in /proc gives; 0 when there is no such line."""
    try:
        lines = Path(f"/proc/{pid}/{file}").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(name)), 0)
