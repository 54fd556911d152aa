"""What a run shows of itself: progress on the screen, curves on the board, the summary at the end."""

import math
import sys
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.table import Table

from recd_dist.embedding.placement import Placement
from recd_dist.errors import UserError
from recd_dist.job.config import flatten, to_yaml
from recd_dist.job.job import Job
from recd_dist.metrics.curves import BOARD_DIRECTORY, CurveWriter
from recd_dist.metrics.gather import reduce_over_ranks
from recd_dist.metrics.memory import measure_memory
from recd_dist.metrics.moving_mean import MovingMean
from recd_dist.metrics.quality import TrainingQuality
from recd_dist.metrics.speed import Speed
from recd_dist.metrics.traffic import TrafficCounter
from recd_dist.plan.step_bytes import group_bytes, step_bytes
from recd_dist.plan.step_rows import StepRows, TableUse
from recd_dist.ranks.process_group import Ranks
from recd_dist.screen.training_progress import TrainingProgress
from recd_dist.table.schema import SAMPLE
from recd_dist.tensors.batch import Batch
from recd_dist.train.build import Output
from recd_dist.train.seen_records import Seen

WINDOW_SAMPLES = 65536
"""Samples of all ranks that the training NE, AUC and calibration are over."""

_EXCHANGE = ("input", "output", "backward")
_GROUP = "group/"


class Watch:
    """Looks at every step; speaks at points. A context manager, on every rank.

    Args:
        job: the job.
        ranks: this rank.
        uses, placement: the tables and where they lie, for the bytes by formula.
        num_steps: of the whole run, as far as known.
        step: steps done before this attempt.
        all_reduce_bytes: that a rank sends a step for replicated parameters, by formula.
        facts: known at the start, for the summary.
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
        facts: Mapping[str, float] | None = None,
    ) -> None:
        self._facts = dict(facts or {})
        self._job, self._ranks, self._uses, self._placement = job, ranks, uses, placement
        self._all_reduce_bytes, self._first_step, self._num_steps = all_reduce_bytes, step, num_steps
        self._run_dir = Path(job.config.run_dir)
        self._board = CurveWriter(self._run_dir, step, ranks.is_first)
        self._progress = TrainingProgress(num_steps, step) if ranks.is_first else None
        self._speed, self._loss = Speed(ranks.device), MovingMean()
        self._quality = TrainingQuality(job.config.batch_size, WINDOW_SAMPLES, ranks.device)
        self._seen = Seen(self._run_dir, step) if job.config.record_samples else None
        self._ahead: deque[StepRows] = deque()
        self._steps: list[StepRows] = []  # since the last point
        self._bytes: Counter[str] = Counter()  # of this rank, since the last point
        self._total: Counter[str] = Counter()  # of all ranks, this attempt
        self._rows: Counter[str] = Counter()  # samples and rows per group, this rank, this attempt
        self._last_point = step
        self._latest: dict[str, float] = {}  # of the last point, for the progress bar

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

    def reader(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The same batches; waiting for them and the rows they hold are noted while they are on the host."""
        for batch in self._speed.time_reads(batches):
            self._ahead.append(StepRows.of_batch(batch.sparse, self._uses if self._job.dedup else ()))
            yield batch

    def step(self, epoch: int, step: int, output: Output) -> None:
        """Takes the result of a step.

        Args:
            epoch: from 0.
            step: steps done, this one included.
            output: loss, logits and batch.
        """
        loss, logits, batch = output
        rows = self._ahead.popleft()
        self._steps.append(rows)
        for group in batch.sparse.groups:
            self._rows[group.name] += group.num_rows
        self._rows["samples"] += batch.batch_size
        self._loss.update(loss)
        self._quality.update(logits, batch.labels[:, 0])
        self._speed.count_step(batch.batch_size)
        if self._seen:
            self._seen.append(epoch, step, batch.sample_ids.cpu().numpy())

    def show(self, step: int) -> None:
        """Moves the progress bar on; free between two redraws."""
        if self._progress and self._progress.is_due(step):
            self._progress.show(step, {"loss": self._loss.value(), **self._latest})

    def point(self, step: int, traffic: TrafficCounter) -> None:
        """Adds a point to every curve; a collective.

        Raises:
            UserError: the loss is no number any more.
        """
        loss = self._loss.value()
        num_steps, self._last_point = step - self._last_point, step
        taken = traffic.take()
        self._bytes.update({f"sent_{k}": taken[k] for k in _EXCHANGE})
        self._add_formulas()
        mine = {k: float(v) for k, v in self._bytes.items()}
        sums = reduce_over_ranks({**mine, "loss": loss}, "sum", self._ranks.device)
        of_all = sums.pop("loss")
        if not math.isfinite(of_all):  # on any rank: then all ranks end, and none waits for one that has ended
            raise UserError(
                f"the loss is {of_all} at step {step}; lower optim.dense.lr and optim.tables.lr, and start again: the "
                "last checkpoint is from before"
            )
        self._bytes.clear()
        self._total.update({k: round(v) for k, v in sums.items()})
        sent = sum(sums[f"sent_{k}"] for k in _EXCHANGE)
        if step == self._first_step + 1:
            self._speed.restart()  # the first step starts readers and kernels: it says nothing of the pace
        speed = self._speed.compute() if step > self._first_step + 1 else {}
        quality = self._quality.compute()
        numbers = {
            "sent_bytes": sent,
            "expanded_bytes": sums["expanded"],
            "unique_bytes_by_formula": sums["unique"],
            "all_reduce_bytes": self._all_reduce_bytes * self._ranks.world_size * num_steps,
            **{f"sent_{k}_bytes": sums[f"sent_{k}"] for k in _EXCHANGE},
        }
        board = self._board
        per_step = {k: v / max(1, num_steps) for k, v in numbers.items()}
        board.add_points(step, "traffic", per_step)
        board.add_points_by_line(
            step, "traffic", "bytes", {"train": per_step["sent_bytes"], "expanded": per_step["expanded_bytes"]}
        )
        groups = {k.removeprefix(_GROUP): v / max(1, num_steps) for k, v in sums.items() if k.startswith(_GROUP)}
        board.add_points_by_line(step, "traffic", "group_bytes", groups)
        board.add_points(step, "speed", speed)
        board.add_points(step, "quality", {"loss": loss, **quality})
        board.add_points_by_line(step, "dedup", "factor", self.dedup_factors())
        board.add_points(step, "memory", measure_memory(self._ranks.device))
        self._latest |= {**quality, **speed}
        self._speed.restart()

    def _add_formulas(self) -> None:
        """Bytes by formula of the steps since the last point: once for all of them, since they are linear in rows."""
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

    def paused(self) -> None:
        """What follows is no training: it does not count as a slow step."""
        if self._seen:
            self._seen.flush()
        self._speed.restart()

    def dedup_factors(self) -> dict[str, float]:
        """Samples per unique row of each group of this rank's batches, so far."""
        return {
            group: self._rows["samples"] / rows
            for group, rows in self._rows.items()
            if group not in ("samples", SAMPLE) and rows
        }

    def summary(self, step: int) -> dict[str, Any]:
        """Speed, bytes and dedup factors of this attempt."""
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
            "tensorboard": str(self._run_dir / BOARD_DIRECTORY),
            **self._facts,
        }

    def finish(self, step: int, summary: Mapping[str, Any]) -> None:
        """Adds the evaluation and the run's line in the table of runs; shows the summary on the screen."""
        results = {
            k: float(summary[k]) for k in ("auc", "auc_per_request", "ne", "loss", "calibration") if k in summary
        }
        self._board.add_points(step, "quality", results, "eval")
        config = asdict(self._job.config)
        flat = {name: _at(config, name) for name in flatten(config) if not name.startswith("data.samples")}
        results["samples_per_s"] = summary["samples_per_s"]
        self._board.add_run({k: v for k, v in flat.items() if v is not None}, results)
        if self._progress:
            self._progress.__exit__(None, None, None)
            Console(stderr=True, width=None if sys.stderr.isatty() else 120).print(render(summary))


def _at(value: Any, name: str) -> Any:
    for key in name.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def render(summary: Mapping[str, Any]) -> Table:
    """summary.json as a table for people."""
    table = Table(title="Trained", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    steps, world_size = summary["steps"], summary["world_size"]
    table.add_row("samples", f"{summary['samples']:,} in {steps:,} steps on {world_size} rank{'s'[: world_size > 1]}")
    table.add_row("speed", f"{summary['samples_per_s']:,.0f} samples/s")
    if "auc" in summary:
        best = f" (best possible {summary['oracle_auc']:.4f})" if "oracle_auc" in summary else ""
        table.add_row(f"AUC, {summary['split']}", f"{summary['auc']:.4f}{best}")
        if math.isfinite(summary["auc_per_request"]):
            table.add_row("AUC per request", f"{summary['auc_per_request']:.4f}")
        best = f" (best possible {summary['oracle_ne']:.4f})" if "oracle_ne" in summary else ""
        table.add_row(f"NE, {summary['split']}", f"{summary['ne']:.4f}{best}")
        table.add_row(f"loss, {summary['split']}", f"{summary['loss']:.4f}, calibration {summary['calibration']:.3f}")
    factors = ", ".join(f"{group} {factor:.2f}" for group, factor in summary["dedup_factor"].items())
    table.add_row("samples per unique row", factors or "nothing deduplicated")
    sent, expanded = summary["sent_bytes_per_step"], summary["expanded_bytes_per_step"]
    if expanded:
        saved = f"{expanded / sent:.2f}x fewer" if sent else "-"
        table.add_row("exchanged per step", f"{sent / 1e3:,.1f} kB sent, {expanded / 1e3:,.1f} kB expanded: {saved}")
    if "table_bytes" in summary:
        used, foretold = (summary[name] / 2**20 for name in ("table_bytes", "table_bytes_planned"))
        table.add_row("tables, fullest rank", f"{used:,.2f} MiB with optimizer state, {foretold:,.2f} MiB planned")
    table.add_row("checkpoint", summary["checkpoint"])
    table.add_row("curves", f"recd board {Path(summary['tensorboard']).parent}   ({summary['tensorboard']})")
    return table
