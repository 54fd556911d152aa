"""What the days of a run came to: each is evaluated before it is trained (progressive validation), and kept.

::

    RUN/days.json     the days of the runs before, and of this one
    board             curves over days, and a table of them
    checkpoints       the same, so that a run that was killed goes on with what it had
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from recd_dist.files.json_text import json_text
from recd_dist.files.whole_file import write_whole
from recd_dist.job.days import DAYS_FILE, MEAN, Day, days_left, days_of, mean_before
from recd_dist.job.job import Job
from recd_dist.metrics.gather import reduce_over_ranks
from recd_dist.ranks.process_group import Ranks
from recd_dist.train.build import Output


class DayRecords:
    """The days of a run. All ranks have the same ones; nothing is counted where a run does not go day by day.

    Args:
        job: the job.
        ranks: this rank.
        start: the extra values of the checkpoint that the run goes on from; empty for a run that starts.
        admitted: tells for each mapped table the ids that this rank has given a row so far in this attempt.
    """

    def __init__(
        self, job: Job, ranks: Ranks, start: Mapping[str, Any], admitted: Callable[[], Mapping[str, int]] = dict
    ) -> None:
        self._job, self._ranks, self._admitted_now = job, ranks, admitted
        self.is_on = job.config.progressive
        self._own = list(days_of(start)) if self.is_on else []
        self._step = int(start.get("step", 0))
        self._trained_s = self._counted_s = 0.0  # of the open day; of this attempt when it was last counted
        self._num_trained = self._num_counted = 0  # samples of all ranks of the open day, in this attempt
        self._loss, self._samples = torch.zeros((), dtype=torch.float64), 0  # of this rank, since the last count
        self._admitted: dict[str, int] = {}  # of this rank, when it was last counted
        self._sums = (0.0, 0)  # of all ranks: the losses of the open day's last pass, and its samples
        if (day := self.open) is not None and day.samples:
            known = start["reader"].get("day_sums", [0.0, 0])
            self._sums = (float(known[0]), int(known[1]))

    @property
    def all(self) -> tuple[Day, ...]:
        """The days of the runs before, and of this one."""
        return (*self._job.chain.days, *self._own)

    @property
    def open(self) -> Day | None:
        """The day that has begun and not ended."""
        return self._own[-1] if self._own and self._own[-1].last_step is None else None

    @property
    def left(self) -> tuple[str, ...]:
        """The partitions that are left, with the open one, in their order."""
        names = days_left(self._job.config, self._job.manifest, self._job.chain, self._own) if self.is_on else ()
        opened = (self.open.name,) if self.open is not None else ()
        return (*opened, *(name for name in names if name not in opened))

    @property
    def num_trained(self) -> int:
        """Samples that all ranks have trained of the days that are over, each as often as it was."""
        return sum(day.samples * day.epochs for day in self._own if day.last_step is not None)

    def begin(self, name: str, samples: int) -> None:
        """A day begins."""
        config = self._job.config
        self._own.append(Day(name, config.run_dir, samples, config.epochs, self._step))
        self._sums, self._trained_s, self._num_trained = (0.0, 0), 0.0, 0

    def begin_pass(self) -> None:
        """The open day is trained once more: its loss is that of the last time."""
        self._sums = (0.0, 0)

    def evaluated(self, numbers: Mapping[str, Any], new_rows: Mapping[str, int], unknown: Mapping[str, float]) -> None:
        """The open day was evaluated.

        Args:
            numbers: its quality.
            new_rows: as in ``Day``.
            unknown: as in ``Day``.
        """
        self._replace(before=dict(numbers), new_rows=dict(new_rows), unknown=dict(unknown))

    def count(self, output: Output) -> None:
        """A step is done; nothing waits for its loss."""
        self._step += 1
        if self.is_on:
            size = output.batch.batch_size
            self._loss = self._loss.to(output.loss.device) + output.loss.double() * size
            self._samples += size

    def add_up(self, train_s: float) -> None:
        """Adds the steps since the last call to the open day; a collective. Before every save.

        Args:
            train_s: seconds of steps so far in this attempt.
        """
        if not self.is_on or self.open is None:
            return
        admitted = self._admitted_now()
        mine = {"loss": float(self._loss), "samples": float(self._samples)}
        mine |= {f"admitted/{name}": float(number - self._admitted.get(name, 0)) for name, number in admitted.items()}
        sums = reduce_over_ranks(mine, "sum", self._ranks.device)
        self._sums = (self._sums[0] + sums["loss"], self._sums[1] + int(sums["samples"]))
        self._loss, self._samples, self._admitted = torch.zeros_like(self._loss), 0, dict(admitted)
        self._num_trained += int(sums["samples"])
        self._trained_s, self._counted_s = self._trained_s + train_s - self._counted_s, train_s
        changes: dict[str, Any] = {"loss": self._sums[0] / self._sums[1]} if self._sums[1] else {}
        if admitted:
            met = dict(self._own[-1].new_rows)
            changes["new_rows"] = met | {name: met.get(name, 0) + int(sums[f"admitted/{name}"]) for name in admitted}
        if self._trained_s > 0:
            changes["samples_per_s"] = self._num_trained / self._trained_s
        self._replace(**changes)

    def end(self) -> None:
        """The open day is trained."""
        self._own = list(self._closed())

    def _closed(self) -> tuple[Day, ...]:
        if self.open is None:
            return tuple(self._own)
        return (*self._own[:-1], replace(self._own[-1], last_step=self._step))

    def _replace(self, **changes: Any) -> None:
        self._own[-1] = replace(self._own[-1], **changes)

    def to_json(self, is_over: bool) -> list[dict[str, Any]]:
        """The days of this run, JSON-ready.

        Args:
            is_over: whether the open day is trained to its end.
        """
        return [day.to_json() for day in (self._closed() if is_over else self._own)]

    @property
    def sums(self) -> list[float]:
        """What the loss of the open day goes on from, JSON-ready."""
        return list(self._sums)

    def write(self) -> None:
        """Writes days.json; on rank 0."""
        if self.is_on and self._ranks.is_first:
            write_whole(Path(self._job.config.run_dir) / DAYS_FILE, json_text(self.summary()) + "\n")

    def summary(self) -> dict[str, Any]:
        """For summary.json and days.json the days, and the mean of their evaluations; empty for any other run."""
        if not self.is_on:
            return {}
        means = {f"{MEAN}{name}": value for name, value in mean_before(self.all).items()}
        return {**means, "days": _to_json(self.all)}


def _to_json(days: Sequence[Day]) -> list[dict[str, Any]]:
    return [day.to_json() for day in days]
