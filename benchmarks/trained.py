"""What scripts share that train whole runs: each run once, in a directory of its own, and its numbers over seeds.

A run is that of `recd train --nproc 2`, with the same options, files and numbers. All runs of a script share two ranks
of one thread, so that libraries are loaded once. A run that is done is passed over, and one that was stopped goes on:
a script may be killed and started again at any time.
"""

import argparse
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
    if now:
        fixed = ("checkpoint.every=null", "log_every=100")
        chosen = [[*run.overrides, *fixed, f"run_dir={directory / run.name}", "device=cpu"] for run in now]
        measure.run_ranks(__file__, {"runs": chosen})
    return len(missing) - len(now)


def rank_main(config: dict[str, Any]) -> None:
    """One rank: trains run after run."""
    import torch

    from recd_dist.job.config import load
    from recd_dist.ranks.process_group import process_group
    from recd_dist.ranks.quiet import quiet_libraries
    from recd_dist.train.training import train

    torch.set_num_threads(1)
    quiet_libraries()
    with process_group("cpu") as ranks:
        for number, overrides in enumerate(config["runs"], 1):
            if ranks.is_first:
                sys.stderr.write(f"[{number}/{len(config['runs'])}] {overrides[-2]}\n")
            train(load("train", overrides), ranks)
        if ranks.is_first:
            Path(config["out"]).write_text("null")


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


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rank", help="for the ranks that a script starts")
    if given := parser.parse_args().rank:
        rank_main(json.loads(given))
