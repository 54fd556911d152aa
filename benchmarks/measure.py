"""What the scripts here share: they measure in pairs A B A B ..., and print ratios with their extremes.

A ratio is taken within a pair. A machine whose speed drifts, or that other users share, then moves both sides of the
ratio.
"""

import argparse
import importlib.util
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

NUM_RANKS = 2

Pair = tuple[float, float]
"""What was measured in one round: ours and the baseline, in the same unit."""


@dataclass(frozen=True)
class Result:
    """What was measured for a claim.

    Attributes:
        claim: the claim's id.
        value: the median of the pairwise ratios.
        low: the smallest of the ratios.
        high: the largest of the ratios.
        baseline: what a user would have without this project, in words.
        unit: the unit of ``value``.
        config: what was measured, in words.
        details: further columns of the table, which the JSON has too.
    """

    claim: str
    value: float
    low: float
    high: float
    baseline: str
    unit: str
    config: str
    details: dict[str, object] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """The object that stands in the list of --json."""
        plain = asdict(self)
        details = plain.pop("details")
        return {**plain, **details}


def rounds(sides: Sequence[Callable[[], float]], num_rounds: int) -> list[tuple[float, ...]]:
    """Measures several sides by turns. Every round begins with the next side, so that no side always follows another.

    Args:
        sides: functions that do a side's work once and return what was measured.
        num_rounds: how often each side is measured.

    Returns:
        For each round what was measured, in the order of ``sides``.
    """
    results = []
    for number in range(num_rounds):
        order = [(number + n) % len(sides) for n in range(len(sides))]
        measured = {n: sides[n]() for n in order}
        results.append(tuple(measured[n] for n in range(len(sides))))
    return results


def alternate(ours: Callable[[], float], baseline: Callable[[], float], num_pairs: int) -> list[Pair]:
    """Measures ours and the baseline by turns; the side that begins changes every round.

    Args:
        ours: does the work once in our way, and returns what was measured.
        baseline: does the same work without this project, and returns what was measured.
        num_pairs: the number of rounds.
    """
    return [(a, b) for a, b in rounds((ours, baseline), num_pairs)]


def speed_up(claim: str, pairs: Sequence[Pair], baseline: str, config: str, **details: object) -> Result:
    """How many times faster ours is than the baseline, from pairs of times."""
    ratios = [b / a for a, b in pairs]
    return Result(
        claim,
        round(statistics.median(ratios), 3),
        round(min(ratios), 3),
        round(max(ratios), 3),
        baseline,
        "ratio",
        config,
        details,
    )


def run_ranks(script: str, config: dict[str, Any], overrides: Sequence[str] = (), num_ranks: int = NUM_RANKS) -> Any:
    """Runs a script's ``--rank CONFIG`` on gloo ranks over loopback, with one thread each.

    Args:
        script: ``__file__`` of the calling script.
        config: what each rank gets, JSON-ready; ``overrides`` and ``out`` are added to it.
        overrides: overrides of recd train; run_dir and device are added to them.
        num_ranks: the number of processes.

    Returns:
        What rank 0 wrote to the file ``out`` as JSON.

    Raises:
        SystemExit: a rank failed; its error is on the screen.
    """
    from recd_dist.ranks.launcher import rank_environment

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    size = str(num_ranks)
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch, "found.json")
        whole = {**config, "overrides": [*overrides, f"run_dir={scratch}", "device=cpu"], "out": str(out)}
        addresses = {"WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        own = {"OMP_NUM_THREADS": "1", "PYTHONSAFEPATH": ""}  # a script imports those beside it
        env = rank_environment(1, num_ranks) | os.environ | own | addresses
        command = [sys.executable, str(Path(script)), "--rank", json.dumps(whole)]
        ranks = [subprocess.Popen(command, env=env | {"RANK": str(r), "LOCAL_RANK": str(r)}) for r in range(num_ranks)]
        codes = [rank.wait() for rank in ranks]
        if any(codes):
            raise SystemExit(f"{Path(script).stem}: a rank failed")
        return json.loads(out.read_text())


def network_lab() -> ModuleType:
    """The tests' network lab, tests/cluster/lab.py: several hosts on this machine."""
    path = Path(__file__).parents[1] / "tests" / "cluster" / "lab.py"
    spec = importlib.util.spec_from_file_location("lab", path)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{path} is missing")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def build_parser(doc: str | None) -> argparse.ArgumentParser:
    """A parser with the options that every script has; its description is the first line of a docstring."""
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results there, as a list of objects")
    parser.add_argument("--markdown", action="store_true", help="print the tables as Markdown, for docs/results/")
    parser.add_argument("--quick", action="store_true", help="smaller data of the same shape; under 5 minutes")
    return parser


def report(results: Sequence[Result], options: argparse.Namespace) -> None:
    """Prints the machine, the tables and what was compared; writes the JSON if --json asks for it."""
    command = " ".join(["python", *sys.argv])
    sys.stdout.write(f"{machine()}; load {os.getloadavg()[0]:.1f} at the end; `{command}`\n\n")
    for columns in dict.fromkeys(tuple(r.details) for r in results):
        chosen = [r for r in results if tuple(r.details) == columns]
        rows = [[r.claim, f"{r.value:.3f}", f"{r.low:.3f}–{r.high:.3f}", *map(str, r.details.values())] for r in chosen]
        head = ["claim", "median", "range", *(name.replace("_", " ") for name in columns)]
        sys.stdout.write(table(head, rows, markdown=options.markdown))
    for config in dict.fromkeys(f"{r.claim}: {r.config}; baseline: {r.baseline}" for r in results):
        sys.stdout.write(f"{'- ' if options.markdown else ''}{config}\n")
    if options.json:
        options.json.write_text(json.dumps([r.to_json() for r in results], indent=1) + "\n")


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, markdown: bool) -> str:
    """Rows as a table, with aligned columns or as Markdown."""
    if markdown:
        lines = [head, ["---"] * len(head), *rows]
        return "".join(f"| {' | '.join(line)} |\n" for line in lines) + "\n"
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return "".join("  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)).rstrip() + "\n" for r in [head, *rows])


def machine() -> str:
    """The date, the hardware, the versions and the commit, in one line."""
    model = next((x.partition(":")[2] for x in _lines("/proc/cpuinfo") if x.startswith("model name")), "").strip()
    cores = sum(line.startswith("processor") for line in _lines("/proc/cpuinfo"))
    memory = next((int(x.split()[1]) / 2**20 for x in _lines("/proc/meminfo") if x.startswith("MemTotal")), 0.0)
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "torchrec"))
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {cores} cores ({model or platform.machine()}), {memory:.0f} GiB, no GPU used; "
        f"Python {platform.python_version()}, {versions}; commit {commit.stdout.strip() or 'unknown'}"
    )


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).is_file() else []
