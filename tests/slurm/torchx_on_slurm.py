"""What a user types at a cluster: ``torchx`` with the components of launch/, in a directory that all nodes see."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.slurm.private_slurm import PrivateSlurm

ROOT = Path(__file__).parents[2]
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED"}


class Torchx:
    """The command in one working directory.

    Args:
        slurm: the cluster.
        directory: where commands are typed, and logs lie.
    """

    def __init__(self, slurm: PrivateSlurm, directory: Path) -> None:
        self.slurm = slurm
        self.directory = directory

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs ``torchx`` and returns what it said."""
        command = [Path(sys.executable).with_name("torchx"), *arguments]
        return subprocess.run(
            command, cwd=self.directory, env=self.slurm.env, capture_output=True, text=True, check=False, timeout=300
        )

    def submit(self, component: str, *options: str, args: Sequence[str] = (), cfg: str = "") -> str:
        """Submits a job of one CPU a node and returns its number."""
        where = ["run", "-s", "slurm", *(["-cfg", cfg] if cfg else []), str(ROOT / "launch" / component)]
        cpu = [] if "--cpu" in options else ["--cpu", "1"]
        done = self(*where, *cpu, "--memMB", "2000", *options, "--", *args)
        assert done.returncode == 0, done.stderr
        handle = next(line for line in done.stdout.splitlines() if line.startswith("slurm://"))
        return handle.rpartition("/")[2]

    def status(self, job: str) -> str:
        """What ``torchx status`` says, in one line."""
        return " ".join(self("status", f"slurm://torchx/{job}").stdout.split())

    def job(self, job: str) -> Mapping[str, str]:
        """Slurm's own description of the first host of a job."""
        first = self.slurm.run("scontrol", "show", "job", "--oneliner", job).splitlines()[0]
        return dict(word.split("=", 1) for word in first.split() if "=" in word)

    def wait(self, job: str, *states: str, seconds: float = 120) -> Mapping[str, str]:
        """Waits until a job is in one of these states; tells at once where it has ended in another."""
        end_s = time.monotonic() + seconds
        while (found := self.job(job))["JobState"] not in states:
            assert found["JobState"] not in ENDED, (found, self.output(job))
            assert time.monotonic() < end_s, (found, self.output(job))
            time.sleep(0.2)
        return found

    def output(self, job: str) -> str:
        """All that the job has written."""
        return "".join(f"== {path.name}\n{path.read_text()}" for path in sorted(self.directory.glob(f"slurm-{job}*")))


def ranks_of(run: Path) -> list[int]:
    """The processes that train into a run directory, found by their command and their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command, environment = (process / "cmdline").read_bytes(), (process / "environ").read_bytes()
        except OSError:
            continue
        if b"recd_dist.ranks.rank" in command and f"RECD_RUN_DIR={run}".encode() + b"\0" in environment:
            found.append(int(process.name))
    return sorted(found)


def kill_one_rank(run: Path) -> None:
    """Ends one rank of a job without a word."""
    os.kill(ranks_of(run)[-1], signal.SIGKILL)
