"""What is counted in training: samples, rows, bytes, loss, quality and speed.

::

    batches --count_rows--> rows of each batch --.
    results --add_step----> loss, quality -------+--measure--> Point, every log_every steps
    TrafficCounter: bytes at the collectives ----'
"""

import logging
import math
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from recd_dist.embedding.vocabulary.placement import Placement
from recd_dist.errors import UserError
from recd_dist.job.job import Job
from recd_dist.metrics.gather import reduce_over_ranks
from recd_dist.metrics.imbalance import Imbalance
from recd_dist.metrics.memory import measure_memory
from recd_dist.metrics.moving_mean import MovingMean
from recd_dist.metrics.speed import Speed
from recd_dist.metrics.traffic import TrafficCounter
from recd_dist.metrics.training_quality import TrainingQuality
from recd_dist.plan.step_bytes import group_bytes, step_bytes
from recd_dist.plan.step_rows import StepRows, TableUse
from recd_dist.ranks.process_group import Ranks
from recd_dist.table.schema import SAMPLE
from recd_dist.tensors.batch import Batch
from recd_dist.train.build import Output, build_losses

logger = logging.getLogger(__name__)

WINDOW_SAMPLES = 65536
"""Samples of all ranks that the training NE, AUC and calibration are over."""

RISE = 1.1
"""The loss has risen if it is this many times that of a model that predicts 0.5; less may be chance."""

_EXCHANGE = ("input", "output", "backward")
_GROUP = "group/"


@dataclass(frozen=True)
class Point:
    """The numbers of one point on the curves.

    Attributes:
        loss: the smoothed loss of this rank.
        quality: AUC, NE and calibration of the last WINDOW_SAMPLES samples, of the first binary task.
        speed: samples per second and the share of waiting; empty after the first step, which says nothing of the pace.
        traffic: bytes of a step, by direction, sent and by formula; of all ranks.
        group_bytes: bytes of a step by group and formula; of all ranks.
        dedup_factors: samples per unique row of each group, so far.
        memory: the memory that this process uses, in GiB.
        tasks: where there are several, for each task by name its smoothed loss, and its quality if it is binary.
        imbalance: of several ranks, the most that one has over the mean of all: of computing, samples, ids and unique
            rows; empty after the first step.
    """

    loss: float
    quality: Mapping[str, float]
    speed: Mapping[str, float]
    traffic: Mapping[str, float]
    group_bytes: Mapping[str, float]
    dedup_factors: Mapping[str, float]
    memory: Mapping[str, float] = field(default_factory=dict)
    tasks: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    imbalance: Mapping[str, float] = field(default_factory=dict)


def rise_text(step: int, loss: float) -> str:
    """Says that training diverges or begins badly, and what to do.

    Args:
        step: the step of the loss.
        loss: the smoothed loss, in nats.
    """
    return (
        f"the loss is {loss:.2f} at step {step}, a model that has learnt nothing has {math.log(2):.2f}: training "
        "diverges; lower optim.tables.lr and optim.dense.lr, and keep model.pooling=mean where lists are long"
    )


class RunCounts:
    """Counts every step of an attempt, on every rank.

    Args:
        job: the job.
        ranks: this rank.
        uses, placement: the tables and where they lie, for the bytes by formula.
        step: steps that were done before this attempt.
        all_reduce_bytes: bytes that a rank sends a step for replicated parameters, by formula.
    """

    def __init__(
        self,
        job: Job,
        ranks: Ranks,
        uses: list[TableUse],
        placement: Placement,
        step: int,
        all_reduce_bytes: float,
    ) -> None:
        self._job, self._ranks, self._uses, self._placement = job, ranks, uses, placement
        self._all_reduce_bytes, self._first_step, self._last_point = all_reduce_bytes, step, step
        self._speed, self._loss = Speed(ranks.device), MovingMean()
        self._losses, self._labels = MovingMean(), build_losses(job)
        self._binary = [number for number, task in enumerate(job.tasks) if task.loss == "binary"]
        names = [job.tasks[number].name for number in self._binary]
        self._quality = TrainingQuality(job.config.batch_size, WINDOW_SAMPLES, ranks.device, names)
        self._ahead: deque[StepRows] = deque()  # of batches that are read and not trained yet
        self._steps: list[StepRows] = []  # since the last point
        self._bytes: Counter[str] = Counter()  # of this rank, since the last point
        self._total: Counter[str] = Counter()  # of all ranks, in this attempt
        self._rows: Counter[str] = Counter()  # samples, and rows of each group, of this rank in this attempt
        self._rise: dict[str, float] | None = None
        self._imbalance = Imbalance(ranks.device, None if ranks.device.type == "cuda" else time.thread_time)

    @property
    def loss(self) -> float:
        """Smoothed over the last steps."""
        return self._loss.value()

    @property
    def train_s(self) -> float:
        """Seconds of steps so far."""
        return self._speed.total_s

    def count_rows(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Passes the batches on; notes the wait for each, and its rows while they are on the host."""
        for batch in self._speed.time_reads(batches):
            self._ahead.append(StepRows.of_batch(batch.sparse, self._uses if self._job.dedup else ()))
            yield batch

    def add_step(self, output: Output) -> None:
        """Adds the result of a step: loss, logits and batch."""
        batch = output.batch
        rows_of_step = self._ahead.popleft()
        self._steps.append(rows_of_step)
        for group in batch.sparse.groups:
            self._rows[group.name] += group.num_rows
        self._rows["samples"] += batch.batch_size
        self._loss.update(output.loss)
        if len(self._job.tasks) > 1:
            self._losses.update(output.losses)
        if self._binary:
            weights = self._labels.weigh(batch.labels)
            columns = (output.logits, self._labels.labels_of(batch.labels), weights)
            whole = len(self._binary) == len(self._job.tasks)
            self._quality.update(*(of if whole else of[:, self._binary] for of in columns))
        self._speed.count_step(batch.batch_size)
        if self._ranks.world_size > 1:
            rows = sum(group.num_rows for group in batch.sparse.groups)
            ids = float(sum(rows_of_step.unique_ids.values()))
            self._imbalance.count_step({"samples": float(batch.batch_size), "ids": ids, "unique_rows": float(rows)})

    def pause(self) -> None:
        """What follows is no training: it does not count as a slow step."""
        self._speed.restart()
        self._imbalance.restart()

    def measure(self, step: int, traffic: TrafficCounter) -> Point:
        """The numbers since the last point; a collective.

        Args:
            step: steps that are done.
            traffic: the bytes that were counted at the collectives.

        Raises:
            UserError: the loss is no number any more.
        """
        loss = self._loss.value()
        num_steps, self._last_point = step - self._last_point, step
        sent = traffic.take()
        self._bytes.update({f"sent_{k}": sent[k] for k in _EXCHANGE})
        self._add_formulas()
        sums = reduce_over_ranks(
            {**{k: float(v) for k, v in self._bytes.items()}, "loss": loss}, "sum", self._ranks.device
        )
        of_all = sums.pop("loss")
        if not math.isfinite(of_all):  # on any rank: then all ranks end, and none waits for one that has ended
            raise UserError(
                f"the loss is {of_all} at step {step}; lower optim.dense.lr and optim.tables.lr, and start again: the "
                "last checkpoint is from before"
            )
        if step > self._first_step + 1:  # at the first step nothing is learnt yet
            self._note_rise(step, of_all / self._ranks.world_size)
        self._bytes.clear()
        self._total.update({k: round(v) for k, v in sums.items()})
        if step == self._first_step + 1:
            self._speed.restart()  # the first step starts readers and kernels: it says nothing of the pace
            self._imbalance.forget()
        speed = self._speed.compute() if step > self._first_step + 1 else {}
        qualities = self._quality.compute()
        return Point(
            loss=loss,
            quality=next(iter(qualities.values()), {}),
            speed=speed,
            traffic=self._traffic(sums, num_steps),
            group_bytes={
                k.removeprefix(_GROUP): v / max(1, num_steps) for k, v in sums.items() if k.startswith(_GROUP)
            },
            dedup_factors=self.dedup_factors(),
            memory=measure_memory(self._ranks.device),
            tasks=self._of_tasks(qualities),
            imbalance=self._imbalance.compute(),
        )

    def _of_tasks(self, qualities: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
        """What each task has come to, where there are several."""
        names = [task.name for task in self._job.tasks]
        losses = dict(zip(names, self._losses.values(), strict=False))
        return {name: {"loss": loss, **qualities.get(name, {})} for name, loss in losses.items()}

    def _note_rise(self, step: int, loss: float) -> None:
        """Keeps the highest loss that is above that of a model that has learnt nothing, and warns of the first one.

        Only of binary tasks it is known what a model that has learnt nothing has.
        """
        loss /= sum(task.weight for task in self._job.tasks)
        if len(self._binary) < len(self._job.tasks) or loss <= RISE * math.log(2):
            return
        if self._rise is None and self._ranks.is_first:
            logger.warning("%s", rise_text(step, loss))
        if self._rise is None or loss > self._rise["loss"]:
            self._rise = {"step": step, "loss": loss}

    def dedup_factors(self) -> dict[str, float]:
        """Samples per unique row of each group of this rank's batches, so far."""
        return {
            group: self._rows["samples"] / rows
            for group, rows in self._rows.items()
            if group not in ("samples", SAMPLE) and rows
        }

    def totals(self, step: int) -> dict[str, float | dict[str, float]]:
        """Speed, bytes and dedup factors of the whole attempt, for summary.json.

        Args:
            step: steps that are done.
        """
        steps = max(1, step - self._first_step)
        sent = sum(self._total[f"sent_{k}"] for k in _EXCHANGE)
        return {
            "steps_this_attempt": step - self._first_step,
            "samples_per_s": self._speed.samples_per_s,
            "dedup_factor": self.dedup_factors(),
            "sent_bytes": sent,
            "unique_bytes_by_formula": self._total["unique"],
            "expanded_bytes": self._total["expanded"],
            "sent_bytes_per_step": sent / steps,
            "expanded_bytes_per_step": self._total["expanded"] / steps,
            **({"imbalance": self._imbalance.total} if self._imbalance.total else {}),
            **({"loss_rise": self._rise} if self._rise else {}),
        }

    def _traffic(self, sums: Mapping[str, float], num_steps: int) -> dict[str, float]:
        """Bytes of one step of all ranks."""
        numbers = {
            "sent_bytes": sum(sums[f"sent_{k}"] for k in _EXCHANGE),
            "expanded_bytes": sums["expanded"],
            "unique_bytes_by_formula": sums["unique"],
            "all_reduce_bytes": self._all_reduce_bytes * self._ranks.world_size * num_steps,
            **{f"sent_{k}_bytes": sums[f"sent_{k}"] for k in _EXCHANGE},
        }
        return {name: number / max(1, num_steps) for name, number in numbers.items()}

    def _add_formulas(self) -> None:
        """Adds the bytes by formula of the steps since the last point: once for all, since they are linear in rows."""
        if not self._steps:
            return
        mean, num_steps = StepRows.mean(self._steps), len(self._steps)
        where = self._placement, mean, self._ranks.world_size
        for name, dedup in (("unique", True), ("expanded", False)):
            parts = step_bytes(self._uses, *where, dedup=dedup, rank=self._ranks.rank)
            self._bytes[name] += round(parts.total * num_steps)
        sent = group_bytes(self._job.schema, self._uses, *where, dedup=self._job.dedup, rank=self._ranks.rank)
        self._bytes.update({f"{_GROUP}{group}": round(parts.total * num_steps) for group, parts in sent.items()})
        self._steps.clear()
