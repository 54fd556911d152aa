"""A run that trains one partition of its table after the other, each ``epochs`` times.

::

    partitions   2026-11-24        2026-11-25        2026-11-26
                 evaluate, train   evaluate, train   evaluate, train
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from recd_dist.job.days import DAYS
from recd_dist.job.job import Job
from recd_dist.ranks.process_group import Ranks
from recd_dist.ranks.stop import Stop
from recd_dist.reader.loader import WORK, Loader
from recd_dist.reader.open_files import AnyTable
from recd_dist.reader.reader_pace import ReaderPace
from recd_dist.reader.transform import Transforms
from recd_dist.train import build
from recd_dist.train.day_records import DayRecords
from recd_dist.train.measured_work import cutter_of

SUMS = "day_sums"
"""Where the position of a reader has what the loss of the open day goes on from."""


class DayByDay:
    """The partitions that are left, in their order. A partition is an epoch as far as the reader goes.

    Args:
        job: the job.
        ranks: this rank.
        transforms: fitted.
        state: the position of an earlier attempt; None at the start.
        model: the sharded model; None where nothing is trained.
        days: the days of the run.

    Attributes:
        days: the days of the run.
        pace, counts: those of all loaders, see ``Loader``.
    """

    def __init__(
        self,
        job: Job,
        ranks: Ranks,
        transforms: Transforms,
        state: Mapping[str, Any] | None,
        model: Any,
        days: DayRecords,
    ) -> None:
        self._job, self._ranks, self._transforms, self._model, self.days = job, ranks, transforms, model, days
        self._loader: Loader | None = None
        self._work = {WORK: state[WORK]} if state and WORK in state else {}  # what samples cost is measured once
        self.pace, self.counts = ReaderPace(), Counter[str]()
        if days.open is not None:
            self._read(days.open.name, state)

    def table_of(self, name: str) -> AnyTable:
        """The table with one of its partitions alone."""
        return self._job.table.of_partitions([name])

    @property
    def number(self) -> int:
        """How often the open day was trained before."""
        return 0 if self._loader is None else self._loader.epoch

    @property
    def loader(self) -> Loader:
        """This rank's batches of the open day, after ``begin``."""
        if self._loader is None:
            raise RuntimeError("no day is open: begin() has found none")
        return self._loader

    def begin(self, stop: Stop, step: int) -> bool:
        """Opens the next day, where none is open; a collective. False where none is left."""
        del stop, step
        if self._loader is None and (left := self.days.left):
            self.days.begin(left[0], self.table_of(left[0]).manifest.num_samples)
            self._read(left[0], None)
        return self._loader is not None

    def num_steps_left(self, samples_per_step: int) -> int:
        """About how many steps are left."""
        epochs, steps = self._job.config.epochs, 0
        for name in self.days.left:
            of_pass = -(-self.table_of(name).manifest.num_samples // samples_per_step)
            is_open = self._loader is not None and name == self.days.left[0]
            steps += len(self.loader) + (epochs - self.number - 1) * of_pass if is_open else epochs * of_pass
        return steps

    def end(self) -> None:
        """The open day is trained once, or to its end."""
        if self.number + 1 < self._job.config.epochs:
            self.loader.start_epoch(self.number + 1)
            self.days.begin_pass()
            return
        self.loader.close()
        self._loader = None
        self.days.end()

    def state(self, num_trained: int) -> dict[str, Any]:
        """The position when each rank has trained its first batches of this iteration; see ``Loader.state``."""
        if self._loader is None:
            return {"epoch": 0, "remaining": [], DAYS: self.days.to_json(is_over=False), **self._work}
        position = self._loader.state(num_trained)
        is_over = position["epoch"] >= self._job.config.epochs
        begins_anew = position["epoch"] > self.number
        sums = [0.0, 0] if begins_anew else self.days.sums
        return {**position, **({"epoch": 0} if is_over else {}), DAYS: self.days.to_json(is_over), SUMS: sums}

    def num_samples(self, num_trained: int) -> int:
        """Samples that all ranks have trained since the first step of the run."""
        done = self.days.num_trained
        if self._loader is None:
            return done
        position, size = self._loader.state(num_trained), self._loader.num_samples
        left = sum(end - start for start, end in position["remaining"])
        return done + int(position["epoch"]) * size + size - left

    def close(self) -> None:
        """Ends worker processes and threads."""
        if self._loader is not None:
            self._loader.close()

    def _read(self, name: str, state: Mapping[str, Any] | None) -> None:
        """Opens the batches of a day."""
        table = self.table_of(name)
        job = replace(self._job, table=table)
        cutter = cutter_of(job, self._ranks, self._model, self._transforms, state or self._work)
        self._loader = build.build_loader(
            job, self._ranks, self._transforms, state=state, cutter=cutter, model=self._model
        )
        self._loader.pace, self._loader.counts = self.pace, self.counts
        self._work = {WORK: cutter.rule[WORK]} if cutter is not None and WORK in cutter.rule else {}
