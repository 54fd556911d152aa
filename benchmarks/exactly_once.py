"""Every sample exactly once: jobs that are killed and go on with other ranks and workers; their samples are counted.

    python benchmarks/exactly_once.py --points 1000 --markdown    loaders of a whole job in this process
    python benchmarks/exactly_once.py --real 10 --markdown        `recd train`, killed by kill -9, and `recd seen`

A job trains two epochs, or the parts of a stream as they come. At a random step it is killed: what it trained since
its last saved position is lost, and what it had read ahead was never trained. It goes on from that position with random
ranks (1 to 3), workers and batch size, is killed again, and so on to its end. Then each sample of each epoch has to
have been trained once. The order of samples and the rule by which batches are cut are drawn for each job; about
one kill in seven is at an epoch's last batch.
"""

import argparse
import json
import logging
import random
import sys
import tempfile
from contextlib import closing
from dataclasses import fields
from pathlib import Path

from killed_jobs import REAL_HEAD, run_real
from measure import machine, table
from sample_sources import SOURCES, make_logs
from simulated_jobs import KillCount, SimulatedJobs

HEAD = ("samples", "read by", "jobs", "ranks", "kills", "at an epoch's end", "epochs gone on to", "world changed")
SIMULATED_HEAD = (*HEAD, "samples trained", "trained and lost", "batches in flight", "each sample once")


def run_simulated(root: Path, points: int, seed: int, out: Path | None) -> list[list[str]]:
    """Runs jobs of every source and reader in turn until they were killed so often in all; the lines of a table."""
    counts = {(source, reading): KillCount() for source in SOURCES for reading in source.readings}
    if out is not None and out.exists():
        for (source, reading), count in counts.items():
            vars(count).update(json.loads(out.read_text())[f"{source.name}, {reading}"])
            count.ranks = set(count.ranks)
    logging.getLogger("recd_dist").setLevel(logging.ERROR)  # parts that come late, files that are passed over
    dice = random.Random(f"{seed} {sum(count.jobs for count in counts.values())}")
    with closing(SimulatedJobs(root, dice)) as jobs:
        while (done := sum(count.points for count in counts.values())) < points:
            source, reading = min(counts, key=lambda kind: counts[kind].points)
            jobs.run(source, reading, counts[source, reading])
            if out is not None:
                told = {f"{source.name}, {reading}": vars(count) for (source, reading), count in counts.items()}
                out.write_text(json.dumps(told, default=sorted))
            print(f"\r{done:,} of {points:,} kills", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    total = KillCount()
    for count in counts.values():
        total.ranks |= count.ranks
        for name in (f.name for f in fields(KillCount) if f.name != "ranks"):
            setattr(total, name, getattr(total, name) + getattr(count, name))
    return [*(count.row(source.name, reading) for (source, reading), count in counts.items()), total.row("all", "")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=0, help="kills of simulated jobs")
    parser.add_argument("--real", type=int, default=0, help="kills of real jobs")
    parser.add_argument("--samples", type=int, default=1500, help="samples of the log; ten times as many for real jobs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="keep the counts of simulated jobs here, and go on from them")
    parser.add_argument("--markdown", action="store_true")
    options = parser.parse_args()
    parts = (
        (options.points, options.samples, SIMULATED_HEAD, run_simulated),
        (options.real, 10 * options.samples, REAL_HEAD, run_real),
    )
    for kills, num_samples, head, run in parts:
        if kills:
            with tempfile.TemporaryDirectory() as directory:
                make_logs(Path(directory), num_samples)
                print(table(head, run(Path(directory), kills, options.seed, options.out), markdown=options.markdown))
    print(machine())


if __name__ == "__main__":
    main()
