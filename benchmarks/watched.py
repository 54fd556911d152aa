"""Runs a command as a user does and watches its memory: every process that it starts, from outside, through /proc."""

import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

EVERY_S = 0.05


@dataclass(frozen=True)
class Run:
    """A command that ended.

    Attributes:
        code: exit status.
        seconds: from its start to its end.
        peak_bytes: the most that its processes had together: the sum of Pss (a page that two share counts half for
            each; Rss where the kernel tells no Pss) every 50 ms, or the high-water mark of one process if that is more.
        stderr: what it said, the last 4,000 characters.
    """

    code: int
    seconds: float
    peak_bytes: int
    stderr: str

    @property
    def peak_gib(self) -> float:
        """The same in GiB."""
        return self.peak_bytes / 2**30


def watched(command: Sequence[str], scratch: Path, num_cores: int) -> Run:
    """Runs a command on some cores.

    Args:
        command: program and arguments.
        scratch: directory for its output.
        num_cores: the first of those that this process may use.
    """
    peak, told = 0, scratch / "stderr.txt"
    mine = os.sched_getaffinity(0)
    with told.open("w") as errors:
        start = time.perf_counter()
        os.sched_setaffinity(0, sorted(mine)[:num_cores])  # inherited by all that it starts
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
    return Run(code, seconds, peak, told.read_text()[-4000:])


def memory_bytes(pid: int) -> int:
    """Memory of a process and all that it started; 0 when it is gone."""
    together, highest = 0, 0
    for one in tree(pid):
        together += _field(one, "smaps_rollup", "Pss:") or _field(one, "status", "VmRSS:")
        highest = max(highest, _field(one, "status", "VmHWM:"))
    return max(together, highest)


def tree(pid: int) -> list[int]:
    """A process and its descendants that still run."""
    found = [pid]
    for one in found:
        for task in Path(f"/proc/{one}/task").glob("*"):
            try:
                found += [int(child) for child in (task / "children").read_text().split()]
            except OSError:  # it has just ended
                continue
    return found


def _field(pid: int, file: str, name: str) -> int:
    """Bytes that a line of a file in /proc tells; 0 when there is none."""
    try:
        lines = Path(f"/proc/{pid}/{file}").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(name)), 0)
