"""Requests while exports are replaced and processes are killed: which were lost, and which got wrong scores.

    python benchmarks/serve_kills.py [--requests 100000] [--clients 8] [--kill worker|server] [--dir DIR]

Clients of one thread each send made requests of the table `tiny`, over and over, by the client of this package. Two
exports of one run, of different steps, score each of them beforehand, alone. Meanwhile the server is asked for the
other export at a third of the requests and for the first one again at two thirds, and half way SIGKILL ends one of its
workers; or, with --kill server, all its processes, and then a new server starts at its port. Each request must be
answered once, by the export that the answer names; one that is asked between reloads, by the export that then serves.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import measure
import numpy as np
from made_requests import MadeRequest, draw_requests
from servers import free_port, ours, served

from recd_dist.serve.client import ScoringClient, ScoringError

CANDIDATES, MADE, STEPS = 20, 200, (8, 16)
TOLERANCE = 1e-6
DEADLINE_S = 120.0


@dataclass
class Tally:
    """What the clients have counted.

    Attributes:
        counts: answered by which export, ``wrong``, ``lost``.
        slowest_s: the longest that a request took.
    """

    counts: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    problems: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def done(self) -> int:
        """Requests that have ended."""
        return sum(self.counts.values())

    def add(self, outcome: str, seconds: float, problem: str = "") -> None:
        """Counts one."""
        with self.lock:
            self.counts[outcome] += 1
            self.slowest_s = max(self.slowest_s, seconds)
            if problem and len(self.problems) < 5:
                self.problems.append(problem)


class Clients:
    """Threads that ask until so many requests have ended.

    Args:
        address: of the server.
        requests: what is asked, over and over.
        expected: for each export the scores of each request.
        num_requests: how many in all.
        num_clients: threads.

    Attributes:
        serving: the export that the server has now; None while that changes.
    """

    def __init__(
        self,
        address: str,
        requests: list[MadeRequest],
        expected: dict[str, list[np.ndarray]],
        num_requests: int,
        num_clients: int,
    ) -> None:
        self.tally, self._requests, self._expected = Tally(), requests, expected
        self.serving: str | None = None
        self._numbers, self._lock = iter(range(num_requests)), threading.Lock()
        self._address = address
        self._threads = [threading.Thread(target=self._ask) for _ in range(num_clients)]

    def start(self) -> None:
        """Begins to ask."""
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        """Waits until all requests have ended."""
        for thread in self._threads:
            thread.join()

    def wait_for(self, num_done: int) -> None:
        """Waits until so many requests have ended."""
        while self.tally.done < num_done and any(thread.is_alive() for thread in self._threads):
            time.sleep(0.01)

    def _ask(self) -> None:
        with ScoringClient(self._address, deadline_s=DEADLINE_S) as client:
            while True:
                with self._lock:
                    number = next(self._numbers, None)
                if number is None:
                    return
                place, begun, serving = number % len(self._requests), time.monotonic(), self.serving
                request = self._requests[place]
                try:
                    scores = client.score(request.user, request.candidates)
                except ScoringError as error:
                    self.tally.add("lost", time.monotonic() - begun, str(error))
                    continue
                outcome, problem = self._judge(place, np.stack(list(scores.tasks.values()), 1), scores.model)
                if serving not in (None, outcome) and self.serving == serving:
                    outcome, problem = "wrong", f"answered by {outcome} while {serving} served"
                self.tally.add(outcome, time.monotonic() - begun, problem)

    def _judge(self, place: int, scores: np.ndarray, model: Any) -> tuple[str, str]:
        """By which export an answer is; it must be the one that the answer names."""
        for name, expected in self._expected.items():
            if scores.shape == expected[place].shape and np.abs(scores - expected[place]).max() <= TOLERANCE:
                named = str(model["step"]) == name
                return (name, "") if named else ("wrong", f"scores of step {name}, but the answer names {model}")
        return "wrong", f"request {place}: scores of no export, {scores[:2].tolist()}"


def run_recd(*arguments: str) -> None:
    command = [sys.executable, "-m", "recd_dist.cli", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise SystemExit(f"recd {' '.join(arguments)}: exit code {ended.returncode}\n{ended.stderr}")


def make_exports(directory: Path) -> tuple[Path, dict[str, Path]]:
    """A small table, and two exports of a run, by step; made unless they are there."""
    table, run = directory / "table", directory / "run"
    exports = {str(step): directory / f"export-{step}" for step in STEPS}
    data = ["data=tiny", f"data.table={table}", "data.synthetic.num_samples=20000", "data.synthetic.num_users=400"]
    if not table.is_dir():
        run_recd("etl", *data, f"data.path={directory / 'raw'}")
    for step, out in exports.items():
        if not out.is_dir():
            train = ["model=dlrm", "batch_size=512", "device=cpu", "evaluate.split=null", f"max_steps={step}"]
            run_recd("train", *data[:2], *train, f"run_dir={run}")
            run_recd("export", f"run_dir={run}", f"out={out}")
    return table, exports


def expected_scores(exports: dict[str, Path], requests: list[MadeRequest]) -> dict[str, list[np.ndarray]]:
    """For each export the scores of each request, computed alone."""
    from recd_dist.exported.exported_model import ExportedModel

    found = {}
    for name, path in exports.items():
        model = ExportedModel.load(path)
        found[name] = [model.score([model.read(r.user, r.candidates)])[0] for r in requests]
    return found


def main() -> None:
    """Runs and reports."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--workers", type=int, default=1, help="of the server (default 1)")
    parser.add_argument("--kill", choices=("worker", "server"), default="worker")
    parser.add_argument("--dir", type=Path, help="keep table, run and exports there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        table, exports = make_exports(options.dir or Path(name))
        requests = draw_requests(table / "train", MADE, CANDIDATES)
        expected = expected_scores(exports, requests)
        (first, second), steps = exports.values(), list(exports)
        port, log = free_port(), Path(name, "server.log")
        workers = f"workers={options.workers}"
        server = stack.enter_context(served(ours(first, port, workers), port, log))
        clients = Clients(f"127.0.0.1:{port}", requests, expected, options.requests, options.clients)
        begun = time.monotonic()
        clients.start()
        control = ScoringClient(f"127.0.0.1:{port}", deadline_s=DEADLINE_S)
        clients.serving = steps[0]
        events = []
        for share, event in ((1 / 3, "reload"), (1 / 2, "kill"), (2 / 3, "reload back")):
            clients.wait_for(int(options.requests * share))
            events.append(f"{clients.tally.done:,} done: {event}")
            serving, clients.serving = clients.serving, None
            if event == "kill" and options.kill == "server":
                server.kill()
                server = stack.enter_context(served(ours(second, port, workers), port, log))
            elif event == "kill":
                os.kill(control.model()["workers"][0], signal.SIGKILL)
            else:
                serving = steps[1] if event == "reload" else steps[0]
                control.reload({"model": str(exports[serving])})
            clients.serving = serving
        clients.join()
        seconds = time.monotonic() - begun
        report(clients.tally, events, seconds, options)
    if clients.tally.counts["lost"] or clients.tally.counts["wrong"] or clients.tally.done != options.requests:
        raise SystemExit(1)


def report(tally: Tally, events: list[str], seconds: float, options: argparse.Namespace) -> None:
    """Prints what happened."""
    sys.stdout.write(f"{measure.machine()}\n{options.clients} clients, {options.workers} workers, {seconds:.0f} s\n")
    sys.stdout.write("".join(f"{event}\n" for event in events))
    for name in STEPS:
        sys.stdout.write(f"answered by step {name}: {tally.counts[str(name)]:,}\n")
    sys.stdout.write(f"asked {options.requests:,}, lost {tally.counts['lost']:,}, wrong {tally.counts['wrong']:,}; ")
    sys.stdout.write(f"the slowest took {tally.slowest_s:.1f} s\n" + "".join(f"{p}\n" for p in tally.problems))


if __name__ == "__main__":
    main()
