"""Jobs whose ranks run in this process, one after another, and are killed: the simulated ones of exactly_once.py.

What a rank trains comes from the same function as in ``recd train`` (``train.epochs.open_epochs``); only the model is
left out, and what ranks tell each other is handed over here. Worker processes and the server are real ones.
"""

import json
import random
import shutil
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from sample_sources import EPOCHS, MOST_IDS, GrowingFolder, Source

from recd_dist.job.config import load
from recd_dist.job.job import Job, resolve
from recd_dist.job.options import TrainConfig
from recd_dist.ranks.process_group import Ranks
from recd_dist.ranks.stop import Stop
from recd_dist.reader.cuts import BatchCutter, Cutter
from recd_dist.reader.fill import Filler
from recd_dist.reader.order import Shuffle
from recd_dist.reader.sample_work import WorkReader
from recd_dist.reader.tier.flight_service import FlightService
from recd_dist.reader.tier.served_tables import ServedTables
from recd_dist.reader.tier.server_access import ServerAccess
from recd_dist.reader.tier.server_address import Address
from recd_dist.reader.work import CountedList, Work
from recd_dist.table.clustered import ClusteredTable
from recd_dist.table.schema import Kind
from recd_dist.train.epochs import Epochs, fit_transforms, open_epochs

State = dict[str, Any]


@dataclass
class KillCount:
    """What was counted of the jobs of one kind.

    Attributes:
        jobs, points, exact: jobs, the times they were killed, and the jobs that trained each sample once in each epoch.
        ranks, shapes: worlds that were seen, and changes of the world, at a kill.
        trained, lost: samples trained for good; trained and lost with a kill.
        ahead: batches that were read and not trained at a kill.
        at_end: kills at the last batch of an epoch.
        went_on: epochs that began in the attempt that had ended the one before.
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
    went_on: int = 0

    def add(self, attempt: "Attempt", world: int, before: int) -> None:
        """Counts an attempt on some ranks; there were so many ``before``, 0 for none."""
        self.ranks.add(world)
        self.trained += attempt.samples.total()
        self.lost, self.ahead = self.lost + attempt.lost, self.ahead + attempt.ahead
        self.went_on += len(attempt.shares) - 1
        if not attempt.is_over:
            self.points, self.at_end = self.points + 1, self.at_end + attempt.shares[-1].is_at_end
            self.shapes += before not in (0, world)

    def row(self, *names: str) -> list[str]:
        """The line of a table."""
        worlds = ", ".join(map(str, sorted(self.ranks)))
        numbers = (self.points, self.at_end, self.went_on, self.shapes, self.trained, self.lost, self.ahead)
        return [*names, str(self.jobs), worlds, *(f"{n:,}" for n in numbers), f"{self.exact} of {self.jobs}"]


@dataclass(frozen=True)
class Share:
    """How far an attempt comes in an epoch, in batches of a rank.

    Attributes:
        trained, saved, fetched: batches that are trained; those before the saved position; those that were read.
        is_last: the job is killed here; else the epoch is trained to its end, and the attempt goes on with the next.
        is_at_end: the saved position is the end of the epoch.
        is_over: it is the end of all.
    """

    trained: int
    saved: int
    fetched: int
    is_last: bool
    is_at_end: bool
    is_over: bool


@dataclass
class Attempt:
    """What the ranks of an attempt have trained up to the saved position.

    Attributes:
        state: the saved position.
        samples: for each epoch, the ids of its samples.
        requests: requests of these samples.
        shares: how far it came in each epoch.
        lost, ahead: as in ``KillCount``.
    """

    state: State
    samples: Counter[tuple[int, int]] = field(default_factory=Counter)
    requests: Counter[int] = field(default_factory=Counter)
    shares: list[Share] = field(default_factory=list)
    lost: int = 0
    ahead: int = 0

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to train."""
        return self.shares[-1].is_over


class NoWait(Stop):
    """Ends the wait for parts at once: in a simulated job they come between two looks, or never."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = True

    def agree(self, step: int, *, now: bool = False, votes: object = ()) -> None:
        """Asks nobody."""
        del step, now, votes


class Seen:
    """What rank 0 has seen, for the ranks that run after it."""

    def __init__(self) -> None:
        self._seen: list[Any] = []

    def teller(self) -> Callable[[Callable[[], Any], Ranks], Any]:
        """What a rank asks in place of a collective."""
        places = count()

        def agree(look: Callable[[], Any], ranks: Ranks) -> Any:
            if ranks.is_first:
                self._seen.append(look())
            return self._seen[next(places)]

        return agree


class SimulatedJobs:
    """Jobs whose ranks are loaders of this process.

    Args:
        root: where logs, table and parts lie.
        dice: decides what happens.
    """

    def __init__(self, root: Path, dice: random.Random) -> None:
        self._root, self._dice, self._own = root, dice, root / "job"
        self._config = cache(lambda source: load("train", source.overrides(root, self._own)))
        self._table = cache(lambda source: resolve(self._config(source)).table)
        self._servers: list[FlightService] = []
        self._requests = Counter[int]()
        for path in (root / "raw").glob("*.parquet"):
            self._requests.update(pq.read_table(path, columns=["request_id"])["request_id"].to_pylist())

    def run(self, source: Source, reading: str, count: KillCount) -> None:
        """Runs one job to its end and counts it."""
        dice, config = self._dice, self._config_of_job(source, reading)
        rule = dice.choice([r for r in source.rules if (config.reader.order, r) != ("time", "whole sessions")])
        shutil.rmtree(self._own, ignore_errors=True)
        self._own.mkdir()
        folder = GrowingFolder(self._root, self._own, dice) if source.grows else None
        cutter: BatchCutter | None = None
        samples, requests = Counter[tuple[int, int]](), Counter[int]()
        state, world, is_over = State(), 0, False
        while not is_over:
            before, world = world, dice.randint(1, 3)
            if folder is not None:
                folder.grow(dice.randint(0 if state.get("remaining") else 1, 3))
            shape = {"num_workers": self._num_workers(reading), "prefetch": dice.randint(1, 3)}
            config = replace(config, batch_size=dice.choice((8, 20, 64)), reader=replace(config.reader, **shape))
            job = resolve(config, None if source.grows else self._table(source))
            cutter = cutter or cutter_of(job, rule)
            attempt = self._attempt(job, world, cutter, state, folder)
            state, is_over = attempt.state, attempt.is_over
            samples.update(attempt.samples)
            requests.update(attempt.requests)
            count.add(attempt, world, before)
        count.jobs += 1
        if source.grows:  # an epoch has the parts that were there: nobody knows beforehand which
            samples = Counter((0, sample) for _, sample in samples.elements())
        epochs = 1 if source.grows else EPOCHS
        is_each_sample = samples == Counter((e, n) for e in range(epochs) for n in range(self._requests.total()))
        is_each_row = requests == Counter({request: epochs * num for request, num in self._requests.items()})
        count.exact += is_each_sample and is_each_row

    def _config_of_job(self, source: Source, reading: str) -> TrainConfig:
        """What does not change while a job goes on."""
        dice, config = self._dice, self._config(source)
        fixed = {"order": dice.choice(source.orders), "window": dice.choice((1, 2, 5)), "on_bad_id": "drop"}
        servers = [self._server()] if reading == "servers" else []
        reader = replace(config.reader, **fixed, servers=servers)
        return replace(config, seed=dice.randrange(99), run_dir=str(self._own / "run"), reader=reader)

    def _num_workers(self, reading: str) -> int:
        """Processes that read, or streams of servers; a thread reads where there are none."""
        return {"thread": 0, "workers": self._dice.randint(1, 2), "servers": self._dice.randint(0, 2)}[reading]

    def _attempt(
        self, job: Job, world: int, cutter: BatchCutter | None, state: State, folder: GrowingFolder | None
    ) -> Attempt:
        """Trains from a position to a kill."""
        attempt, seen, told = Attempt(state), Seen(), list[list[str]]()
        Path(job.config.run_dir).mkdir(exist_ok=True)
        for rank in range(world):
            ranks, states = Ranks(rank, world, rank, world, torch.device("cpu")), list[str]()
            epochs = open_epochs(job, ranks, fit_transforms(job), state or None, cutter, None, seen.teller())
            with closing(epochs):
                for number in count():
                    if rank == 0 and number and folder is not None:
                        is_all_trained = epochs.num_samples(0) == folder.num_samples
                        folder.grow(self._dice.randint(int(is_all_trained), 2))
                    if not epochs.begin(NoWait(), 0):
                        raise RuntimeError(f"{job.config.data.path}: nothing to train, and not all was trained")
                    if rank == 0:
                        attempt.shares.append(self._draw(epochs, folder))
                    share = attempt.shares[number]
                    self._train(epochs, share, attempt)
                    states.append(json.dumps(epochs.state(share.saved)))
                    if share.is_last:
                        break
                    epochs.end()
                told.append(states)
        if any(states != told[0] for states in told):
            raise RuntimeError(f"ranks disagree on the position: {told}")
        attempt.state = json.loads(told[0][-1])
        return attempt

    def _draw(self, epochs: Epochs, folder: GrowingFolder | None) -> Share:
        """Decides how far an attempt comes in an epoch."""
        dice, last = self._dice, len(epochs.loader)
        trained = last if dice.random() < 0.2 else dice.randint(0, last)
        saved = trained if trained == last or dice.random() < 0.3 else dice.randint(0, trained)
        if folder is None:
            is_more = epochs.number + 1 < EPOCHS
        else:
            is_more = not folder.is_complete or epochs.num_samples(last) < folder.num_samples
        goes_on = trained == last and is_more and dice.random() < 0.5
        fetched = min(last, trained + dice.randint(0, 3))
        return Share(trained, saved, fetched, not goes_on, saved == last, saved == last and not is_more)

    @staticmethod
    def _train(epochs: Epochs, share: Share, attempt: Attempt) -> None:
        """Reads the batches of a rank, and counts them."""
        batches = iter(epochs.loader)
        for number in range(share.fetched):
            batch = next(batches)
            if number < share.saved:
                attempt.samples.update((epochs.number, sample) for sample in batch.sample_ids.tolist())
                attempt.requests.update(batch.request_ids.tolist())
            elif number < share.trained:
                attempt.lost += batch.batch_size
            attempt.ahead += number >= share.trained
        if not share.is_last and next(batches, None) is not None:
            raise RuntimeError("an epoch has more batches than its length says")
        batches.close()  # type: ignore[attr-defined]

    def _server(self) -> str:
        """A server of the table, started at the first call."""
        if not self._servers:
            service = FlightService(Address("127.0.0.1", 0), ServedTables([self._root / "table"]), ServerAccess(), 64)
            self._servers.append(service)
        return str(self._servers[0].address)

    def close(self) -> None:
        """Ends the server."""
        for service in self._servers:
            service.end()


def cutter_of(job: Job, rule: str) -> BatchCutter | None:
    """What cuts the batches of a simulated job; every rank reads the work of all samples."""
    if rule == "samples" or not isinstance(job.table, ClusteredTable):
        return None
    lists = [CountedList(f.name) for f in job.schema.sparse if rule == "ids" or f.kind is Kind.ids]
    shuffle = Shuffle(job.config.seed, job.config.reader.order, job.config.reader.window)
    reader = WorkReader(job.table, job.schema, lists, Work(id=1.0), shuffle)
    if rule == "work":
        return Cutter(reader)
    return Filler(reader, max_ids=MOST_IDS if rule == "ids" else None, keeps_sessions=rule == "whole sessions")
