"""What a run shows: progress on the screen, curves on the board, a summary."""

import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from recd_dist.embedding.vocabulary.placement import Placement
from recd_dist.job.config import to_yaml
from recd_dist.job.days import MEAN
from recd_dist.job.dotted_names import dotted_names, value_at
from recd_dist.job.job import Job
from recd_dist.job.run_places import checkpoints_of
from recd_dist.metrics.curves import BOARD_DIRECTORY, DAYS, CurveWriter
from recd_dist.metrics.imbalance import UNEVEN, find_worst
from recd_dist.metrics.traffic import TrafficCounter
from recd_dist.plan.step_rows import TableUse
from recd_dist.ranks import progress
from recd_dist.ranks.health.machine_share import usable_memory
from recd_dist.ranks.process_group import Ranks
from recd_dist.screen.console import console
from recd_dist.screen.training_progress import TrainingProgress
from recd_dist.tensors.batch import Batch
from recd_dist.train.alarms import Alarms, Limits
from recd_dist.train.build import Output
from recd_dist.train.counting import Point, RunCounts
from recd_dist.train.day_records import DayRecords
from recd_dist.train.days_text import DayNumbers, markdown, numbers_of, render_days
from recd_dist.train.reader_counts import ReaderCounts, ReaderPoint
from recd_dist.train.seen_records import SeenRecords
from recd_dist.train.summary_text import render

_EVALUATED = ("auc", "auc_per_request", "gauc", "ndcg", "ne", "rmse", "mae", "r2", "loss", "calibration")
_WRITING = "writing curves and records"  # to a disk that may be slow: no step


class Watch:
    """Looks at every step; shows what it saw at points. A context manager, on every rank.

    Args:
        job: the job.
        ranks: this rank.
        uses, placement: the tables and where they lie, for the bytes by formula.
        num_steps: steps of the whole run, as far as known.
        step: steps that were done before this attempt.
        all_reduce_bytes: bytes that a rank sends a step for replicated parameters, by formula.
        reader: what the readers of all ranks do.
        facts: numbers known at the start, for the summary.
        days: the days of a run that goes day by day.
    """

    def __init__(
        self,
        job: Job,
        ranks: Ranks,
        uses: list[TableUse],
        placement: Placement,
        num_steps: int,
        step: int,
        all_reduce_bytes: float,
        reader: ReaderCounts,
        facts: Mapping[str, float] | None = None,
        days: DayRecords | None = None,
    ) -> None:
        self._job, self._facts = job, dict(facts or {})
        self._run_dir = Path(job.config.run_dir)
        self._board = CurveWriter(self._run_dir, step, ranks.is_first)
        self._progress = TrainingProgress(num_steps, step) if ranks.is_first else None
        self._counts = RunCounts(job, ranks, uses, placement, step, all_reduce_bytes)
        self._reader = reader
        self._seen = SeenRecords(self._run_dir, step) if job.config.record_samples else None
        self._alarms = Alarms(self._limits(ranks)) if ranks.is_first else None
        self._latest: dict[str, float] = {}  # numbers of the last point, for the progress bar
        self._evaluated_step: int | None = None
        self._days, self._shown_days = days, dict[int, DayNumbers]()

    def __enter__(self) -> "Watch":
        if self._progress:
            self._progress.__enter__()
        self._board.add_text("config", to_yaml(self._job.config))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress:
            self._progress.__exit__(kind, error, trace)
        if self._seen:
            self._seen.close()
        self._board.close()

    def _limits(self, ranks: Ranks) -> Limits:
        """What the numbers of this run are held against; only what is deduplicated can lose rows."""
        job, place = self._job, checkpoints_of(self._job.config)
        disk = place.parent if isinstance(place, Path) else None  # a store does not fill up
        return Limits(
            {group: job.manifest.dedup_factor(group) for group in job.manifest.group_rows} if job.dedup else {},
            job.config.batch_size,
            ranks.local_world_size,
            usable_memory(),
            disk or self._run_dir,
            self._facts.get("table_bytes", 0.0) * ranks.world_size if disk else 0.0,
        )

    def reader(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The same batches, counted on their way."""
        return self._counts.count_rows(batches)

    def step(self, epoch: int, step: int, output: Output) -> None:
        """Takes the result of a step.

        Args:
            epoch: the number of the epoch, counted from 0.
            step: the number of steps done so far, including this one.
            output: loss, logits and batch.
        """
        self._counts.add_step(output)
        if self._days:
            self._days.count(output)
        if self._seen:
            with progress.phase(_WRITING):
                self._seen.append(epoch, step, output.batch.sample_ids.numpy())

    def show(self, step: int) -> None:
        """Moves the progress bar on; free between two redraws."""
        if self._progress and self._progress.is_due(step):
            with progress.phase("writing to the screen"):  # a terminal that is held by Ctrl-S, a pipe nobody reads
                self._progress.show(step, {"loss": self._counts.loss, **self._latest})

    def point(
        self,
        step: int,
        traffic: TrafficCounter,
        optim: Mapping[str, float] | None = None,
        ids: Mapping[str, Mapping[str, float]] | None = None,
    ) -> None:
        """Adds a point to every curve; a collective.

        Args:
            step: the number of steps that are done.
            traffic: the bytes that were counted at the collectives.
            optim: the learning rates of the step, and the length of its gradient where it is clipped.
            ids: for each number of mapped tables its value by table.

        Raises:
            UserError: the loss is no number any more.
        """
        point, read = self._counts.measure(step, traffic), self._reader.measure()
        if self._days:
            self._days.add_up(self.train_s)
        with progress.phase(_WRITING):
            self._write_point(step, point)
            self._write_reader(step, read)
            self._board.add_points(step, "optim", optim or {})
            for name, of_tables in (ids or {}).items():
                self._board.add_points_by_line(step, "ids", name, of_tables)
        self._latest |= {**point.quality, **point.speed, "imbalance": _shown(point.imbalance)}
        self._counts.pause()  # writing the curves is no training

    def _write_point(self, step: int, point: Point) -> None:
        board, sides = self._board, {"sent": point.traffic["sent_bytes"], "expanded": point.traffic["expanded_bytes"]}
        board.add_points(step, "traffic", point.traffic)
        board.add_points_by_line(step, "traffic", "bytes", sides)
        board.add_points_by_line(step, "traffic", "group_bytes", point.group_bytes)
        board.add_points(step, "speed", point.speed)
        board.add_points_by_line(step, "speed", "imbalance", point.imbalance)
        board.add_points(step, "quality", {"loss": point.loss, **({} if point.tasks else point.quality)})
        for name, numbers in point.tasks.items():
            board.add_points(step, "quality", numbers, name)
        board.add_points_by_line(step, "dedup", "factor", point.dedup_factors)
        board.add_points(step, "memory", point.memory)
        if self._alarms:
            board.add_points(step, "alarms", self._alarms.look(step, point))

    def _write_reader(self, step: int, read: ReaderPoint) -> None:
        self._board.add_points(step, "reader", read.numbers)
        self._board.add_points_by_line(step, "reader", "stage_ms", read.stage_ms)
        self._board.add_points_by_line(step, "reader", "skipped", read.skipped)

    def evaluation(self, step: int, numbers: Mapping[str, Any], traffic: TrafficCounter) -> None:
        """Adds a point to the curves of the evaluation; what it took is no training: neither time nor bytes count.

        Args:
            step: the number of steps that are done.
            numbers: the quality of the split.
            traffic: the bytes that were counted at the collectives.
        """
        results = self._add_evaluation(step, numbers)
        self._latest |= {f"eval_{name}": number for name, number in results.items()}
        self._evaluated_step = step
        traffic.take()
        self.pause()

    def show_days(self) -> None:
        """Writes days.json, and adds what is new of the days to the board."""
        if self._days is None or not self._days.is_on:
            return
        self._days.write()
        days = self._days.all
        news = {n: numbers_of(day, is_first=n == 1) for n, day in enumerate(days, 1) if day.before or day.last_step}
        for number, numbers in news.items():
            for (name, line), value in numbers.items():
                if (name, line) not in self._shown_days.get(number, {}):
                    self._board.add_points(number, DAYS, {name: value}, line)
        if news != self._shown_days:
            self._board.add_table(f"{DAYS}/table", markdown(days), len(news))
        self._shown_days = news

    def pause(self) -> None:
        """What follows is no training: it does not count as a slow step. What was shown so far is on the disk."""
        with progress.phase(_WRITING):
            if self._seen:
                self._seen.flush()
            self._board.flush()
        self._counts.pause()

    @property
    def train_s(self) -> float:
        """Seconds of steps so far, without evaluations and saves."""
        return self._counts.train_s

    def saved(self, step: int, costs: Mapping[str, float]) -> None:
        """Adds what saving has cost so far to the curves."""
        names = ("checkpoint_share", "checkpoint_write_s")
        self._board.add_points(step, "speed", {name: costs[name] for name in names})
        self._counts.pause()

    def summary(self, step: int) -> dict[str, Any]:
        """Speed, bytes and dedup factors of this attempt.

        Args:
            step: steps that are done.
        """
        alarms = self._alarms.summary() if self._alarms else {}
        board = str(self._run_dir / BOARD_DIRECTORY)
        reader = {"reader_s": self._reader.totals()}
        return {**self._counts.totals(step), **reader, "tensorboard": board, **self._facts, **alarms}

    def add_results(self, step: int, summary: Mapping[str, Any]) -> None:
        """Adds the evaluation and the run's line in the table of runs to the board."""
        self.show_days()
        results = _evaluated(summary) if step == self._evaluated_step else self._add_evaluation(step, summary)
        config = asdict(self._job.config)
        flat = {name: value_at(config, name) for name in dotted_names(config) if not name.startswith("data.samples")}
        for name, numbers in summary.get("tasks", {}).items():
            results |= {f"{name}.{number}": value for number, value in _evaluated(numbers).items()}
        results |= {name: float(value) for name, value in summary.items() if name.startswith(MEAN)}
        results["samples_per_s"] = summary["samples_per_s"]
        self._board.add_run(step, {k: v for k, v in flat.items() if v is not None}, results)
        self._board.flush()

    def _add_evaluation(self, step: int, numbers: Mapping[str, Any]) -> dict[str, float]:
        """Adds a point to the curves of the evaluation, for each task where there are several; those of the first."""
        for name, of_task in numbers.get("tasks", {"": numbers}).items():
            self._board.add_points(step, "quality", _evaluated(of_task), f"{name}/eval".removeprefix("/"))
        return _evaluated(numbers)

    def show_summary(self, summary: Mapping[str, Any]) -> None:
        """Shows the summary on the screen."""
        if self._progress:
            self._progress.__exit__(None, None, None)
            console(sys.stderr).print(render(summary))
            if summary.get("days"):
                console(sys.stderr).print(render_days(summary["days"]))


def _shown(imbalance: Mapping[str, float]) -> float:
    """The imbalance that the screen shows; nan, which it does not show, where it costs little."""
    worst = find_worst(imbalance)
    return worst if worst >= UNEVEN else math.nan


def _evaluated(numbers: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of an evaluation that make curves."""
    names = [*(name for name in numbers if "@" in name), *(name for name in _EVALUATED if name in numbers)]
    return {name: float(numbers[name]) for name in names}
