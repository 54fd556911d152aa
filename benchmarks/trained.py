"""What scripts share that train whole runs: each run once, in a directory of its own, and its numbers over seeds.

A run is `recd train` on 2 ranks of one thread, as a user starts it. A run that is done is passed over, one that was
stopped goes on, so that a script may be killed and started again at any time.
"""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import measure


@dataclass(frozen=True)
class Run:
    """A training run.

    Attributes:
        name: its directory's name.
        overrides: of recd train, without run_dir.
    """

    name: str
    overrides: tuple[str, ...]

    def summary(self, directory: Path) -> dict[str, Any] | None:
        """What the run came to; None if it is not done."""
        path = directory / self.name / "summary.json"
        return json.loads(path.read_text()) if path.is_file() else None


def make_table(directory: Path, overrides: Sequence[str]) -> None:
    """Makes a clustered table, unless it exists.

    Args:
        directory: the table's directory, which the overrides name too.
        overrides: of recd etl.
    """
    if not (directory / "train/manifest.json").is_file():
        run_recd("etl", *overrides)


def train_missing(runs: Iterable[Run], directory: Path, most: int | None = None) -> int:
    """Trains the runs that are not done, one after the other.

    Args:
        runs: in the order in which they are trained.
        directory: holds a directory for each of them.
        most: so many of them at most; None for all.

    Returns:
        How many are left.
    """
    missing = [run for run in runs if run.summary(directory) is None]
    now = missing if most is None else missing[:most]
    for number, run in enumerate(now, 1):
        sys.stderr.write(f"[{number}/{len(now)}, {len(missing) - number} left] {run.name}\n")
        fixed = (f"run_dir={directory / run.name}", "device=cpu", "checkpoint.every=null")
        run_recd("train", *run.overrides, *fixed, "--nproc", str(measure.NUM_RANKS))
    return len(missing) - len(now)


def run_recd(*arguments: str) -> None:
    """Runs a command of recd; what it says is shown only if it fails, which ends the script."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "recd_dist.cli", *arguments]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise SystemExit(f"recd {' '.join(arguments)}: exit code {ended.returncode}\n{ended.stderr}")


def mean_and_spread(values: Sequence[float], digits: int = 4) -> str:
    """The mean of a number over seeds and, from two on, its standard deviation: ``0.8123 ± 0.0004``."""
    if not values:
        return ""
    mean = f"{statistics.mean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


def quality_cells(runs: Sequence[Run], directory: Path, names: Sequence[str]) -> list[str]:
    """For a row of a table: how many of the runs are done, then mean and spread of each number over them."""
    done = [summary for run in runs if (summary := run.summary(directory)) is not None]
    return [str(len(done)), *(mean_and_spread([float(summary[name]) for summary in done]) for name in names)]
