"""Requests for scores a second: unique rows, expanded rows in the same server, and a plain server: serve.rm1.

    python benchmarks/serve.py [--quick] [--markdown] [--json FILE] [--dir DIR] [--seconds 20] [--rounds 3]

A closed loop of 16 clients asks for the scores of 200 candidates each, of users of the rm1 table, over HTTP as JSON;
the model is rm1's transformer, trained for some steps and exported. Three servers, by turns, each in processes of its
own: `recd serve`; the same with dedup=false, in which every candidate has its own copy of the user's row; FastAPI and
torch with expanded rows (`plain_server.py`), at the best of the settings that are tried first.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import measure
from closed_loop import Load, closed_loop, http_request
from made_requests import draw_requests
from servers import Server, free_port, ours, plain, served

CLIENTS, CANDIDATES, REQUESTS = 16, 200, 256
NUM_SAMPLES, STEPS = 120_000, 30
TOLERANCE = 1e-5
Setting = tuple[int, int, int]
"""Of the plain server: processes, threads of each, requests that are computed together at most."""

PLAIN_SETTINGS = tuple((workers, threads, batch) for workers, threads in ((1, 1), (1, 2), (2, 1)) for batch in (1, 4))


@dataclass
class Side:
    """A server that is measured by turns with others.

    Attributes:
        name: for the table.
        server: answers.
        loads: what each round came to.
        cpu: seconds that the server computed in each round.
    """

    name: str
    server: Server
    requests: list[bytes]
    seconds: float
    loads: list[Load] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def run(self) -> float:
        """One round; seconds a request."""
        before = self.server.cpu_seconds()
        asked = sum(sum(load.statuses.values()) for load in self.loads)
        load = closed_loop(self.server.port, self.requests, CLIENTS, self.seconds, first=asked)
        self.loads.append(load)
        self.cpu.append(self.server.cpu_seconds() - before)
        sys.stderr.write(f"{self.name}: {load.rate:.2f} requests/s, statuses {dict(load.statuses)}\n")
        return 1 / load.rate

    def batches(self) -> str:
        """What our page /metrics tells of the batches since the server began."""
        found = self.server.metrics()
        mean = found["recd_batch_requests_sum"] / found["recd_batch_requests_count"]
        samples, rows = (
            sum(value for name, value in found.items() if name.startswith(f"recd_group_{kind}_total"))
            for kind in ("samples", "rows")
        )
        return f"{self.name}: {mean:.1f} requests a batch, {samples / rows:.0f} candidates per unique row of a group"

    def details(self) -> dict[str, object]:
        """Speed, latencies and the generator's part, over all rounds."""
        whole = Load(latencies_s=[latency for load in self.loads for latency in load.latencies_s])
        seconds, half, most = sum(load.seconds for load in self.loads), whole.percentile_s(50), whole.percentile_s(99)
        cores = seconds * (os.cpu_count() or 1)
        return {
            "side": self.name,
            "requests": len(whole.latencies_s),
            "requests/s": f"{statistics.median(load.rate for load in self.loads):.2f}",
            "p50 ms": f"{half * 1e3:.0f}",
            "p99 ms": f"{most * 1e3:.0f}",
            "p99/p50": f"{most / half:.2f}",
            "CPU server": f"{sum(self.cpu) / cores:.0%}",
            "CPU generator": f"{sum(load.cpu_seconds for load in self.loads) / cores:.1%}",
        }


def run_recd(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "recd_dist.cli", *arguments], check=True, stdout=sys.stderr)


def exported_model(directory: Path, table: Path) -> Path:
    """rm1's transformer, trained for some steps and exported; made unless it is there."""
    run, out = directory / "serve" / "run", directory / "serve" / "export"
    if not table.is_dir():
        import rm1

        run_recd("etl", *rm1.raw_logs(directory, NUM_SAMPLES).overrides, f"data.table={table}")
    if not out.is_dir():
        data = ["data=rm1", f"data.table={table}", "model=transformer", "device=cpu"]
        run_recd("train", *data, "batch_size=2048", f"max_steps={STEPS}", f"run_dir={run}", "evaluate.split=null")
        run_recd("export", f"run_dir={run}", f"out={out}")
    return out


def scores(server: Server, request: bytes) -> dict[str, list[float]]:
    """Of one request."""
    answers = closed_loop(server.port, [request], 1, 0).answers
    return dict(json.loads(answers[0])["scores"])


def largest_difference(sides: list[Side], requests: list[bytes]) -> float:
    """Between the scores of the first side and those of the others."""
    largest = 0.0
    for request in requests:
        first, *others = [scores(side.server, request) for side in sides]
        for other in others:
            pairs = [(a, b) for task in first for a, b in zip(first[task], other[task], strict=True)]
            largest = max(largest, *(abs(a - b) for a, b in pairs))
    return largest


def try_settings(model: Path, requests: list[bytes], seconds: float, scratch: Path) -> dict[Setting, float]:
    """Requests a second of the plain server with each setting."""
    rates = {}
    for setting in PLAIN_SETTINGS:
        with plain_server(model, setting, scratch) as server:
            closed_loop(server.port, requests, CLIENTS, 0)
            rates[setting] = closed_loop(server.port, requests, CLIENTS, seconds).rate
        sys.stderr.write(f"plain, {_words(setting)}: {rates[setting]:.2f} requests/s\n")
    return rates


def plain_server(model: Path, setting: Setting, scratch: Path) -> AbstractContextManager[Server]:
    """The plain server with a setting."""
    workers, threads, batch = setting
    port, options = free_port(), json.dumps({"model": str(model), "threads": threads, "batch": batch})
    environment = {"PLAIN_SERVER": options, "OMP_NUM_THREADS": str(threads)}
    return served(plain(port, workers), port, scratch / "plain.log", environment)


def _words(setting: Setting) -> str:
    return "processes {}, threads of each {}, requests a batch {}".format(*setting)


def report(sides: list[Side], measured: list[tuple[float, ...]], options: argparse.Namespace, notes: list[str]) -> None:
    """Prints what each side came to, ours against the others, and what else was seen."""
    config = f"rm1's transformer, {CLIENTS} clients, {CANDIDATES} candidates, JSON over HTTP; requests/s"
    results = [
        measure.speed_up(f"serve.rm1.{side.name}", [(t[0], t[n]) for t in measured], side.name, config)
        for n, side in enumerate(sides)
        if n
    ]
    measure.report(results, options)
    rows = [side.details() for side in sides]
    cells = [[str(cell) for cell in row.values()] for row in rows]
    sys.stdout.write("\n" + measure.table(list(rows[0]), cells, markdown=options.markdown))
    notes = [sides[0].batches(), *notes]
    sys.stdout.write("".join(f"{'- ' if options.markdown else ''}{note}\n" for note in notes))


def main() -> None:
    """Measures and reports."""
    parser = measure.build_parser(__doc__)
    parser.add_argument("--dir", type=Path, help="keep raw logs, tables, run and export there")
    parser.add_argument("--seconds", type=float, default=20.0, help="of ours in each round (default 20)")
    parser.add_argument("--baseline-seconds", type=float, default=8.0, help="of each of the others (default 8)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each side is measured (default 3)")
    parser.add_argument("--workers", type=int, default=1, help="of our servers (default 1)")
    parser.add_argument("--sweep", action="store_true", help="only try the settings of the plain server")
    parser.add_argument("--plain", type=int, nargs=3, metavar="N", help="processes, threads, batch of the plain server")
    options = parser.parse_args()
    seconds = 5.0 if options.quick else options.seconds
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        scratch = Path(name)
        directory = options.dir or scratch
        table = directory / "tables" / f"rm1-{NUM_SAMPLES}"
        model = exported_model(directory, table)
        made = draw_requests(table / "train", REQUESTS, CANDIDATES)
        requests = [http_request(request.body) for request in made]
        rates = {} if options.plain else try_settings(model, requests, options.baseline_seconds, scratch)
        tried = [f"plain, {_words(setting)}: {rate:.2f} requests/s" for setting, rate in rates.items()]
        if options.sweep:
            sys.stdout.write("\n".join([measure.machine(), *tried]) + "\n")
            return
        setting = tuple(options.plain or max(rates, key=lambda setting: rates[setting]))
        sides = []
        for label, more in (("ours", []), ("expanded", ["dedup=false"])):
            port = free_port()
            command = ours(model, port, f"workers={options.workers}", "timeout_s=120", *more)
            server = stack.enter_context(served(command, port, scratch / f"{label}.log"))
            sides.append(Side(label, server, requests, options.baseline_seconds if more else seconds))
        server = stack.enter_context(plain_server(model, setting, scratch))
        sides.append(Side("plain", server, requests, options.baseline_seconds))
        difference = largest_difference(sides, requests[:4])
        if difference > TOLERANCE:
            raise SystemExit(f"scores of the sides differ by {difference:.2g}, more than {TOLERANCE:g}")
        measured = measure.rounds([side.run for side in sides], options.rounds)
        report(sides, measured, options, [*tried, f"scores of the sides differ by {difference:.1g} at most"])


if __name__ == "__main__":
    main()
