"""Jobs of `recd train` that are killed by kill -9, and what `recd seen` counts: the real ones of exactly_once.py."""

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from sample_sources import NUM_PARTS, ROOT, RULES, SOURCES, GrowingFolder, Source

from recd_dist.ranks import progress

TIMEOUT_S = 180.0
MOST_STEPS, STEPS_A_PART = 150, 15
"""Steps up to a kill, and those in which a stream gets a part."""
REAL_HEAD = ("samples", "read by", "order, batches by", "kills", "`recd seen`")


@dataclass
class RealJob:
    """A job of `recd train`, in processes of its own.

    Attributes:
        source: what it trains on.
        run_dir: its run.
        fixed: overrides that do not change while it goes on.
        server: the process of a server, where it reads from one.
        folder: the folder that it follows, if it follows one.
    """

    source: Source
    run_dir: Path
    fixed: list[str]
    server: str | None = None
    folder: GrowingFolder | None = None

    def start(self, ranks: int, workers: int) -> subprocess.Popen[bytes]:
        """Gives the command, with its processes in a group of their own."""
        scratch = self.run_dir.with_name(f"{self.run_dir.name}-tmp")
        scratch.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "recd_dist.cli", "train", "--nproc", str(ranks), *self.fixed]
        command += [f"run_dir={self.run_dir}", f"reader.num_workers={workers}"]
        command += [f"reader.servers=[{self.server}]"] if self.server else []
        env = {**os.environ, "TMPDIR": str(scratch), "OMP_NUM_THREADS": "1"}
        log = (scratch / "log.txt").open("ab")
        return subprocess.Popen(command, env=env, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)

    def step(self) -> int:
        """The step that a rank of the job has come to; 0 while none runs."""
        files = self.run_dir.with_name(f"{self.run_dir.name}-tmp").glob("recd_progress_*/*")
        marks = [mark for path in files if not path.suffix and (mark := progress.read_mark(path))]
        return max((mark.step for mark in marks if Path("/proc", str(mark.pid)).exists()), default=0)


def run_real(root: Path, kills: int, seed: int, _out: Path | None, each: int = 2) -> list[list[str]]:
    """Runs jobs that are killed ``each`` times and then end; the lines of a table."""
    dice, rows = random.Random(seed), []
    kinds = [(source, reading) for source in SOURCES for reading in source.readings]
    for number in range(-(-kills // each)):
        source, reading = kinds[number % len(kinds)]
        rows.append(run_killed(root, source, reading, each, dice, root / f"run-{number:02d}"))
        print(" | ".join(rows[-1]), file=sys.stderr, flush=True)
    return rows


def run_killed(root: Path, source: Source, reading: str, kills: int, dice: random.Random, run_dir: Path) -> list[str]:
    """Kills a job with kill -9 again and again, lets it end, and counts: a line of a table."""
    rule = dice.choice(source.rules)
    order = dice.choice([o for o in source.orders if not (o == "time" and rule == "whole sessions")])
    own = run_dir.with_name(f"{run_dir.name}-own")
    small = ["batch_size=16", "checkpoint.every=20", "record_samples=true", "evaluate.split=null", "device=cpu"]
    fixed = [*source.overrides(root, own), *RULES[rule], f"reader.order={order}", "reader.window=2", *small]
    job, told, ranks = RealJob(source, run_dir, fixed), list[str](), 0
    if source.grows:
        job.folder = GrowingFolder(root, own, dice)
        job.folder.grow(3)
    with ExitStack() as stack:
        if reading == "servers":
            job.server = stack.enter_context(Serving(root / "table"))
        for number in range(kills + 1):
            ranks = dice.choice([num for num in (1, 2, 3) if num != ranks])
            workers = dice.randint(1, 2) if reading == "workers" else 0
            process = job.start(ranks, workers)
            shape = f"{ranks} ranks" + (f" x {workers}" if workers else "")
            if number == kills:
                if job.folder is not None:
                    job.folder.grow(NUM_PARTS)
                if process.wait(TIMEOUT_S):
                    raise RuntimeError(f"{run_dir}-tmp/log.txt says why the job ended with {process.returncode}")
                told.append(f"to the end on {shape}")
                break
            step = wait_for_step(job, process, dice.randint(30, MOST_STEPS if job.folder is None else MOST_STEPS // 2))
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            told.append(f"{shape}, killed at step {step}")
    seen = [sys.executable, "-m", "recd_dist.cli", "seen", str(run_dir)]
    counted = subprocess.run(seen, capture_output=True, text=True, check=False, cwd=ROOT)
    return [source.name, reading, f"{order}, {rule}", "; ".join(told), counted.stdout.strip().replace("\n", "; ")]


def wait_for_step(job: RealJob, process: subprocess.Popen[bytes], more: int) -> int:
    """Waits until a job has done some steps since it has started, while its stream grows; the step it has come to."""
    deadline, first, num_grown = time.monotonic() + TIMEOUT_S, 0, 0
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"{job.run_dir}-tmp/log.txt says why the job ended with {process.returncode}")
        step = job.step()
        first = first or step
        if job.folder is not None and step // STEPS_A_PART > num_grown:
            job.folder.grow(1)
            num_grown += 1
        if step and step >= first + more:
            return step
        time.sleep(0.005)
    raise TimeoutError(f"{job.run_dir}: no step")


class Serving:
    """A `recd reader` in a process of its own.

    Args:
        tables: what it serves.
    """

    def __init__(self, tables: Path) -> None:
        command = [sys.executable, "-m", "recd_dist.cli", "reader", "--listen", "127.0.0.1:0", "--tables", str(tables)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)

    def __enter__(self) -> str:
        ready = self._process.stdout.readline() if self._process.stdout else ""
        return ready.split()[4].rstrip(",")

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(20)
        self._process.kill()
