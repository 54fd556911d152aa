"""Faults in a row: jobs that are killed, stopped, hung, cut off and started again, and what each of them came to.

    python benchmarks/faults.py --runs 50 --seed 7 --out faults.jsonl
    python benchmarks/faults.py --page faults.jsonl                        writes docs/results/faults.md

Runs on two hosts need root and iproute2. Every run trains a small synthetic table twice over. At a random step
something happens to a random rank or host; then the job has to finish by itself, or by the same command again where its
launcher is gone, as a scheduler would do it. A run counts when every sample of every epoch was trained exactly once and
the evaluated loss is that of a run of the same shape that nothing happened to.

The seconds are those that a user feels, from the fault: until a line names it, and until the first step after it is
done. A part of the latter are imports, of a launcher that is started again; ranks that a launcher starts again are
forked and import nothing.
"""

import argparse
import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from faults_page import CUT_S, Result, page, row

from recd_dist.ranks import progress

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/results/faults.md"
PORT = 29500
RESTARTS = 3
TIMEOUT_S = 90.0
HANG = signal.SIGUSR1

ONE_HOST = ("kill rank", "kill rank 0", "stop rank", "hang rank", "kill reader", "kill launcher", "SIGTERM")
TWO_HOSTS = ("kill rank", "stop rank", "hang rank", "kill launcher", "kill first launcher", "cut link")
SHAPES = ((1, 2), (1, 4), (2, 1), (2, 2))
"""Hosts and ranks on each."""


@dataclass
class Host:
    """A launcher and what it wrote."""

    number: int
    process: subprocess.Popen[str]
    lines: list[tuple[float, str]] = field(default_factory=list)

    def listen(self) -> None:
        """Keeps the lines with the time at which they came."""
        for line in self.process.stderr or ():
            self.lines.append((time.monotonic(), line.rstrip()))


class Job:
    """A training on one or two hosts of this machine.

    Args:
        overrides: of the config.
        run_dir: of the run.
        hosts, ranks: its shape.
        lab: the hosts, where there are two.
    """

    def __init__(self, overrides: Sequence[str], run_dir: Path, hosts: int, ranks: int, lab: Any = None) -> None:
        self.overrides, self.run_dir, self.num_hosts, self.num_ranks, self.lab = overrides, run_dir, hosts, ranks, lab
        self.told_in = run_dir.with_name(f"{run_dir.name}-tmp")
        self.hosts = [self._start(number) for number in range(hosts)]

    def _start(self, number: int) -> Host:
        command = [sys.executable, "-m", "recd_dist.ranks.launcher", "--nproc-per-node", str(self.num_ranks)]
        command += ["--max-restarts", str(RESTARTS), "--module", "benchmarks.faulty_training"]
        scratch = self.told_in / f"host{number}"
        scratch.mkdir(parents=True, exist_ok=True)
        env = {**os.environ, "RECD_RUN_DIR": str(self.run_dir), "TMPDIR": str(scratch), "OMP_NUM_THREADS": "1"}
        env["PYTHONPATH"] = f"{ROOT}:{ROOT / 'src'}"
        if self.num_hosts > 1:
            command += ["--nnodes", str(self.num_hosts), "--node", str(number), "--rdzv-endpoint", f"host0:{PORT}"]
            env |= {"GLOO_SOCKET_IFNAME": "eth0"}
        command += ["--", *self.overrides]
        if self.lab is not None:
            command = self.lab.on_host(number, command)
        pipes: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
        host = Host(number, subprocess.Popen(command, env=env, start_new_session=True, cwd=ROOT, **pipes))
        threading.Thread(target=host.listen, daemon=True).start()
        return host

    def start_again(self, number: int) -> None:
        """Gives the command of a host again, as a scheduler would."""
        self.hosts[number] = self._start(number)

    def ranks(self) -> list[progress.Mark]:
        """What the ranks that run tell, by rank."""
        files = self.told_in.glob("host*/recd_progress_*/*")
        told = [mark for path in files if not path.suffix and (mark := progress.read_mark(path))]
        return sorted((mark for mark in told if Path("/proc", str(mark.pid)).exists()), key=lambda mark: mark.rank)

    def launcher(self, number: int) -> int:
        """The process of a launcher, which `ip netns exec` has become."""
        return self.hosts[number].process.pid

    def close(self) -> None:
        """Ends what still runs."""
        for host in self.hosts:
            host.process.kill()
            host.process.wait()


def wait_for(what: Callable[[], Any], timeout_s: float = TIMEOUT_S, pause_s: float = 0.02) -> Any:
    """Waits until something holds; returns it."""
    deadline = time.monotonic() + timeout_s
    while not (found := what()):
        if time.monotonic() > deadline:
            raise TimeoutError("took too long")
        time.sleep(pause_s)
    return found


def strike(job: Job, kind: str, dice: random.Random) -> list[int]:
    """Does what the kind says; the numbers of the hosts whose command has to be given again."""
    ranks = job.ranks()
    chosen = dice.choice(ranks)
    first = ranks[0]
    if kind in ("kill rank", "kill rank 0"):
        os.kill((first if kind.endswith("0") else chosen).pid, signal.SIGKILL)
    elif kind == "stop rank":
        os.kill(chosen.pid, signal.SIGSTOP)
    elif kind == "hang rank":
        os.kill(chosen.pid, HANG)
    elif kind == "kill reader":
        os.kill(dice.choice(_workers(chosen.pid)), signal.SIGKILL)
    elif kind in ("kill launcher", "kill first launcher"):
        number = 0 if "first" in kind else job.num_hosts - 1
        os.kill(job.launcher(number), signal.SIGKILL)
        return [number]
    elif kind == "SIGTERM":
        os.kill(job.launcher(0), signal.SIGTERM)
        return [0]
    else:
        job.lab.cut(1)
        threading.Timer(CUT_S, job.lab.mend, [1]).start()
    return []


def _workers(pid: int) -> list[int]:
    """The worker processes of a rank's reader: grandchildren, by way of the server that forks them."""

    def children(parent: int) -> list[int]:
        return [int(p) for p in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]

    return [worker for server in children(pid) for worker in children(server)]


def run_one(result: Result, overrides: Sequence[str], run_dir: Path, lab: Any, dice: random.Random) -> None:
    """Runs a job through its fault to its end."""
    workers = ["reader.num_workers=1"] if result.kind == "kill reader" else []
    job = Job([*overrides, *workers], run_dir, result.hosts, result.ranks, lab)
    try:
        wanted = dice.randrange(60, 200)
        wait_for(lambda: any(rank.step >= wanted for rank in job.ranks()))
        before = {rank.pid for rank in job.ranks()}
        result.step = max(rank.step for rank in job.ranks())
        struck_s, killed = time.monotonic(), strike(job, result.kind, dice)
        lines_before = {id(host): len(host.lines) for host in job.hosts}
        for number in killed:
            job.hosts[number].process.wait(TIMEOUT_S)
            lines_before.pop(id(job.hosts[number]), None) if result.kind != "SIGTERM" else None
            told = [] if result.kind != "SIGTERM" else list(job.hosts[number].lines)
            job.start_again(number)
            job.hosts[number].lines[:0] = told
            result.num_again += 1
        begun: dict[int, float] = {}

        def stepped() -> bool:
            for rank in job.ranks():
                if rank.pid not in before:
                    begun.setdefault(rank.pid, time.monotonic())
                    if rank.step:
                        return True
            if all(host.process.poll() is not None for host in job.hosts):
                raise RuntimeError(f"ended: {[line for host in job.hosts for line in host.lines][-3:]}")
            return False

        wait_for(stepped)
        result.step_s = time.monotonic() - struck_s
        if killed:
            result.import_s = min(begun.values()) - struck_s
        wait_for(lambda: all(host.process.poll() is not None for host in job.hosts))
        if codes := [host.process.returncode for host in job.hosts if host.process.returncode]:
            result.error = f"exit codes {codes}: {[host.lines[-2:] for host in job.hosts]}"
        lines = sorted(line for host in job.hosts for line in host.lines if line[0] >= struck_s)
        named = [
            line
            for line in lines
            if line[1].startswith("recd:") and ("restarts left" in line[1] or "stopped by" in line[1])
        ]
        if named:
            result.noticed_s, result.said = named[0][0] - struck_s, named[0][1]
    except (TimeoutError, RuntimeError, OSError, IndexError) as error:
        result.error = f"{type(error).__name__}: {error}"
    finally:
        job.close()


def judge(result: Result, run_dir: Path, reference: dict[str, float]) -> None:
    """Whether each sample was trained once, and how far the loss is from the undisturbed one."""
    command = [sys.executable, "-m", "recd_dist.cli", "seen", str(run_dir)]
    result.exact = subprocess.run(command, capture_output=True, check=False, cwd=ROOT).returncode == 0
    with suppress(OSError):
        found = _numbers(run_dir)
        result.difference = abs(found["loss"] / reference["loss"] - 1) if found["steps"] == reference["steps"] else 1.0


def _numbers(run_dir: Path) -> dict[str, float]:
    summary = json.loads((run_dir / "summary.json").read_text())
    return {name: summary[name] for name in ("loss", "steps")}


def references(overrides: Sequence[str], scratch: Path, labs: dict[int, Any], shapes: set[tuple[int, int]]) -> Iterator:
    """(hosts, ranks) and the numbers of a run that nothing happens to."""
    for hosts, ranks in sorted(shapes):
        run_dir = scratch / f"undisturbed-{hosts}x{ranks}"
        if not (run_dir / "summary.json").exists():
            job = Job(overrides, run_dir, hosts, ranks, labs.get(hosts))
            try:
                wait_for(lambda job=job: all(host.process.poll() is not None for host in job.hosts))
            finally:
                job.close()
        yield (hosts, ranks), _numbers(run_dir)


def plan(num: int, seed: int) -> list[Result]:
    """What happens in each run: every kind in turn, on 2 and on 4 ranks."""
    kinds = [(1, kind) for kind in ONE_HOST] + [(2, kind) for kind in TWO_HOSTS]
    order = [(hosts, kind, total) for total in (2, 4) for hosts, kind in kinds]
    dice = random.Random(seed)
    dice.shuffle(order)
    found = [order[n % len(order)] for n in range(num)]
    return [Result(n, kind, hosts, total // hosts) for n, (hosts, kind, total) in enumerate(found)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--first", type=int, default=0, help="number of the first run; those before it are left out")
    parser.add_argument("--last", type=int, default=None, help="number after that of the last run")
    parser.add_argument("--kind", default=None, help="only runs of this kind")
    parser.add_argument("--out", type=Path, default=Path("faults.jsonl"), help="a line is added for each run")
    parser.add_argument("--scratch", type=Path, default=None, help="for the table and the runs; kept where it is named")
    parser.add_argument("--page", type=Path, default=None, help="write the result page from these lines, run nothing")
    options = parser.parse_args()
    if options.page:
        found = [Result(**json.loads(line)) for line in options.page.read_text().splitlines()]
        PAGE.write_text(page(sorted(found, key=lambda result: result.number)))
        return
    todo = plan(options.runs, options.seed)[options.first : options.last]
    todo = [result for result in todo if options.kind in (None, result.kind)]
    with ExitStack() as stack:
        scratch = options.scratch or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        scratch.mkdir(parents=True, exist_ok=True)
        overrides = _table(scratch)
        labs = {2: stack.enter_context(_lab())} if any(result.hosts == 2 for result in todo) else {}
        known = dict(references(overrides, scratch, labs, {(r.hosts, r.ranks) for r in todo}))
        for result in todo:
            run_dir = scratch / f"run-{result.number:03d}"
            run_one(
                result, overrides, run_dir, labs.get(result.hosts), random.Random(options.seed * 1000 + result.number)
            )
            judge(result, run_dir, known[result.hosts, result.ranks])
            with options.out.open("a") as out:
                out.write(json.dumps(asdict(result)) + "\n")
            print(row(result), flush=True)


def _table(scratch: Path) -> list[str]:
    """The overrides that name a small table, which is made where it is not there."""
    overrides = ["data=tiny", f"data.path={scratch / 'raw'}", f"data.table={scratch / 'table'}"]
    if not (scratch / "table/train/manifest.json").exists():
        sizes = ["data.synthetic.num_samples=24000", "row_group_samples=512"]
        subprocess.run([sys.executable, "-m", "recd_dist.cli", "etl", *overrides, *sizes], check=True, cwd=ROOT)
    return [*overrides, "batch_size=32", "epochs=2", "checkpoint.every=50", "record_samples=true", "device=cpu"]


def _lab() -> Any:
    """Two hosts made of network namespaces."""
    path = ROOT / "tests/cluster/lab.py"
    spec = importlib.util.spec_from_file_location("lab", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["lab"] = module
    spec.loader.exec_module(module)
    if reason := module.unavailable():
        sys.exit(f"runs on two hosts: {reason}")
    return module.Lab(num_hosts=2)


if __name__ == "__main__":
    main()
