"""Every sample exactly once: jobs that are killed and go on with other ranks and workers; their samples are counted.

    python benchmarks/exactly_once.py --points 1000 --markdown    loaders of a whole job in this process
    python benchmarks/exactly_once.py --real 10 --markdown        `recd train`, killed by kill -9, and `recd seen`

A job trains two epochs. At a random step it is killed: what it trained since its last saved position is lost, and what
it had read ahead was never trained. It goes on from that position with random ranks (1 to 3), workers and batch size,
is killed again, and so on to its end. Then each sample of each epoch has to have been trained once. The order of
samples and the rule by which batches are cut are drawn for each job; one kill in five is at an epoch's last batch.
"""

import argparse
import json
import random
import sys
import tempfile
from collections import Counter
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from killed_jobs import REAL_HEAD, run_real
from measure import machine, table
from sample_sources import EPOCHS, MOST_IDS, SOURCES, Source, make_logs

from recd_dist.job.config import load
from recd_dist.job.job import Job, resolve
from recd_dist.reader.cuts import BatchCutter, Cutter
from recd_dist.reader.fill import Filler
from recd_dist.reader.loader import Loader
from recd_dist.reader.order import Shuffle
from recd_dist.reader.sample_work import WorkReader
from recd_dist.reader.tier.flight_service import FlightService
from recd_dist.reader.tier.remote_reader import RemoteReader
from recd_dist.reader.tier.served_tables import ServedTables
from recd_dist.reader.tier.server_access import ServerAccess
from recd_dist.reader.tier.server_address import Address
from recd_dist.reader.tier.servers import Servers
from recd_dist.reader.work import CountedList, Work
from recd_dist.table.clustered import ClusteredTable
from recd_dist.table.schema import Kind

WEIGHTS = {"workers": 6}
"""Jobs with worker processes, which take seconds to start, are killed so many times less often than others."""


@dataclass
class Count:
    """What was counted of the jobs of one kind.

    Attributes:
        jobs, points, exact: jobs, the times they were killed, and the jobs that trained each sample once in each epoch.
        ranks, shapes: worlds that were seen, and changes of the world, at a kill.
        trained, lost: samples trained for good; trained and lost with a kill.
        ahead: batches that were read and not trained at a kill.
        at_end: kills at the last batch of an epoch.
    """

    jobs: int = 0
    points: int = 0
    exact: int = 0
    ranks: set[int] = field(default_factory=set)
    shapes: int = 0
    trained: int = 0
    lost: int = 0
    ahead: int = 0
    at_end: int = 0

    def row(self, *names: str) -> list[str]:
        """The line of a table."""
        worlds = ", ".join(map(str, sorted(self.ranks)))
        numbers = (self.points, self.at_end, self.shapes, self.trained, self.lost, self.ahead)
        return [*names, str(self.jobs), worlds, *(f"{n:,}" for n in numbers), f"{self.exact} of {self.jobs}"]


HEAD = ("samples", "read by", "jobs", "ranks", "kills", "at an epoch's end", "world changed", "samples trained")
SIMULATED_HEAD = (*HEAD, "trained and lost", "batches in flight", "each sample once")


class SimulatedJobs:
    """Jobs whose ranks are loaders of this process.

    Args:
        root: where logs and table lie.
        dice: decides what happens.
    """

    def __init__(self, root: Path, dice: random.Random) -> None:
        self._root, self._dice, self._stack = root, dice, ExitStack()
        self._job = cache(lambda source: resolve(load("train", source.overrides(root))))
        self._servers: list[FlightService] = []

    def run(self, source: Source, reading: str, count: Count) -> None:
        """Runs one job to its end and counts it."""
        job, dice = self._job(source), self._dice
        order, rule = dice.choice(source.orders), dice.choice(source.rules)
        fixed = {"seed": dice.randrange(99), "order": order, "window": dice.choice((1, 2, 5))}
        cutter, seen = cutter_of(job, rule, fixed), Counter[tuple[int, int]]()
        state: dict[str, Any] | None = None
        world, epoch = 0, 0
        while epoch < EPOCHS:
            before, world = world, dice.randint(1, 3)
            shape = {"batch_size": dice.choice((8, 20, 64)), "num_workers": dice.randint(reading == "workers", 2)}
            state, ids, lost, ahead, at_end = self._attempt(
                job, reading, world, {**fixed, **shape, "cutter": cutter}, state
            )
            seen.update((epoch, sample) for sample in ids)
            epoch = state["epoch"]
            count.ranks.add(world)
            count.trained, count.lost, count.ahead = count.trained + len(ids), count.lost + lost, count.ahead + ahead
            if epoch < EPOCHS:
                count.points, count.at_end = count.points + 1, count.at_end + at_end
                count.shapes += before not in (0, world)
        count.jobs += 1
        wanted = {(e, n) for e in range(EPOCHS) for n in range(job.manifest.num_samples)}
        count.exact += seen.keys() == wanted and set(seen.values()) == {1}

    def _attempt(
        self, job: Job, reading: str, world: int, options: dict[str, Any], state: dict[str, Any] | None
    ) -> tuple[dict[str, Any], list[int], int, int, bool]:
        """Trains from a position to a kill: the position that was saved, the samples up to it, and what was lost."""
        dice, ids, states = self._dice, list[int](), list[str]()
        saved = trained = fetched = lost = ahead = 0
        for rank in range(world):
            if reading == "servers":
                options["servers"] = RemoteReader(Servers((self._server(),), rank=rank))
            reader = Loader(
                job.table, job.schema, job.tables, job.transforms.fit(job.table), rank=rank, world_size=world,
                state=state, on_bad_id="drop", **options,
            )  # fmt: skip
            with closing(reader):
                if rank == 0:
                    last = len(reader)
                    trained = last if dice.random() < 0.2 else dice.randint(0, last)
                    saved = trained if trained == last or dice.random() < 0.3 else dice.randint(0, trained)
                    fetched = min(last, trained + dice.randint(0, 3))
                batches = iter(reader)
                for number in range(fetched):
                    found = next(batches).sample_ids.tolist()
                    ids += found if number < saved else []
                    lost += len(found) if saved <= number < trained else 0
                    ahead += number >= trained
                states.append(json.dumps(reader.state(saved)))
        if len(set(states)) != 1:
            raise RuntimeError(f"ranks disagree on the position: {states}")
        return json.loads(states[0]), ids, lost, ahead, saved == last

    def _server(self) -> Address:
        """A server of the table, started at the first call."""
        if not self._servers:
            service = FlightService(Address("127.0.0.1", 0), ServedTables([self._root / "table"]), ServerAccess(), 64)
            self._servers.append(service)
        return self._servers[0].address

    def close(self) -> None:
        """Ends the server."""
        for service in self._servers:
            service.end()


def cutter_of(job: Job, rule: str, fixed: dict[str, Any]) -> BatchCutter | None:
    """What cuts the batches of a simulated job; every rank reads the work of all samples."""
    if rule == "samples" or not isinstance(job.table, ClusteredTable):
        return None
    lists = [CountedList(f.name) for f in job.schema.sparse if rule == "ids" or f.kind is Kind.ids]
    keeps_sessions = rule == "whole sessions" and fixed["order"] != "time"  # there they lie apart
    shuffle = Shuffle(fixed["seed"], fixed["order"], fixed["window"])
    reader = WorkReader(job.table, job.schema, lists, Work(id=1.0), shuffle)
    if rule == "work":
        return Cutter(reader)
    return Filler(reader, MOST_IDS if rule == "ids" else None, keeps_sessions)


def run_simulated(root: Path, points: int, seed: int, out: Path | None) -> list[list[str]]:
    """Runs jobs of every source and reader in turn until they were killed so often in all; the lines of a table."""
    counts = {(source, reading): Count() for source in SOURCES for reading in source.readings}
    if out is not None and out.exists():
        for (source, reading), count in counts.items():
            vars(count).update(json.loads(out.read_text())[f"{source.name}, {reading}"])
            count.ranks = set(count.ranks)
    dice = random.Random(f"{seed} {sum(count.jobs for count in counts.values())}")
    with closing(SimulatedJobs(root, dice)) as jobs:
        while (done := sum(count.points for count in counts.values())) < points:
            source, reading = min(counts, key=lambda kind: counts[kind].points * WEIGHTS.get(kind[1], 1))
            jobs.run(source, reading, counts[source, reading])
            if out is not None:
                told = {f"{source.name}, {reading}": vars(count) for (source, reading), count in counts.items()}
                out.write_text(json.dumps(told, default=sorted))
            print(f"\r{done:,} of {points:,} kills", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    total = Count()
    for count in counts.values():
        total.ranks |= count.ranks
        for name in ("jobs", "points", "exact", "shapes", "trained", "lost", "ahead", "at_end"):
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
        (
            options.real,
            10 * options.samples,
            REAL_HEAD,
            run_real,
        ),
    )
    for kills, num_samples, head, run in parts:
        if kills:
            with tempfile.TemporaryDirectory() as directory:
                make_logs(Path(directory), num_samples)
                print(table(head, run(Path(directory), kills, options.seed, options.out), markdown=options.markdown))
    print(machine())


if __name__ == "__main__":
    main()
