"""Evaluations while training: the best checkpoint is kept, and training ends when none is better for long.

::

    every evaluate.every steps --> quality of the split --> best so far: RUN/best/step-00000400
                                                       '--> evaluate.patience times none better by more than
                                                            evaluate.min_improvement: the run ends
"""

import logging
import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from typing import Any

import torch.distributed as dist
from torch import nn

from recd_dist.checkpoint import checkpoint
from recd_dist.job.check_evaluation import VALIDATION, direction, find_number, is_out_of_patience
from recd_dist.job.job import Job
from recd_dist.job.run_places import best_of
from recd_dist.ranks import progress
from recd_dist.ranks.process_group import Ranks
from recd_dist.reader.loader import Loader
from recd_dist.reader.open_files import AnyTable
from recd_dist.reader.order import TABLE
from recd_dist.reader.transform import Transforms
from recd_dist.tensors.batch import Batch
from recd_dist.train import build
from recd_dist.train.evaluation import quality_of
from recd_dist.train.found_items import retrieval_of
from recd_dist.train.mapped_ids import MappedIds
from recd_dist.train.new_rows import NewRows
from recd_dist.train.saves import Saves

logger = logging.getLogger(__name__)

_QUALITY = "quality"


class Validation:
    """Evaluates a run while it trains and when it ends. All ranks have the same numbers and come to the same decisions.

    Args:
        job: the job, with the split to evaluate.
        ranks: this rank.
        transforms: fitted on the training table.
        extra: the extra values of the checkpoint that the run goes on from; empty for a run that starts.
        saves: saves the best checkpoint.
        ids: maps the batches of the split.
    """

    def __init__(
        self,
        job: Job,
        ranks: Ranks,
        transforms: Transforms,
        extra: Mapping[str, Any],
        saves: Saves,
        ids: MappedIds | None = None,
    ) -> None:
        self._saves, self._ids = saves, ids
        self._job, self._ranks, self._transforms, self._options = job, ranks, transforms, job.config.evaluate
        known = extra.get(VALIDATION, {})
        self._since_best = int(known.get("since_best", 0))
        self._reference: float | None = known.get("reference")
        # Earlier releases save no step: they look before each save.
        self._counted_step = int(known.get("step", extra.get("step", -1)))
        self._latest: tuple[int, dict[str, Any]] = (-1, {})
        self._directory = best_of(job.config)
        self._best = self._read_best() if self.every else None
        if self._best is not None and "reference" not in known and self._options.best is not None:
            self._reference = find_number(self._best[_QUALITY], self._options.best)  # earlier releases save none

    @property
    def every(self) -> int | None:
        """Steps between two evaluations; None where only the end is evaluated."""
        return self._options.every

    def is_due(self, step: int) -> bool:
        """Whether to evaluate after a step."""
        return self.every is not None and step % self.every == 0

    def is_owed(self, step: int) -> bool:
        """Whether the run that goes on after a step has to evaluate first: SIGTERM came to the one before it there."""
        return step > 0 and self.is_due(step) and self._counted_step < step

    @property
    def is_over(self) -> bool:
        """Whether training ends early."""
        return is_out_of_patience(self._job.config, self.state())

    def state(self) -> dict[str, Any]:
        """What a checkpoint has to hold, JSON-ready."""
        counted = {"since_best": self._since_best, "step": self._counted_step, "reference": self._reference}
        return {VALIDATION: counted}

    def look(self, model: nn.Module, optimizer: Any, step: int, extra: Mapping[str, Any]) -> dict[str, Any]:
        """Measures the quality of the split and keeps the checkpoint if it is the best; a collective.

        Args:
            model: the sharded model, of which no pipeline holds a batch.
            optimizer: the optimizer of the whole model.
            step: the number of steps that are done. A step is looked at once.
            extra: the extra values of a checkpoint.

        Returns:
            The exact numbers; empty where there is no split.
        """
        if self._job.evaluation is None or self._latest[0] == step:
            return self._latest[1]
        with progress.phase("an evaluation"):
            numbers = self._measure(model)
        self._latest = (step, numbers)
        if self.every is not None and self._options.best is not None and self._compare(step, self._options.best):
            self._saves.save_best(step, model, optimizer, {**extra, **self.state(), _QUALITY: numbers})
        return numbers

    def preview(self, model: nn.Module, table: AnyTable) -> tuple[dict[str, Any], dict[str, int], dict[str, float]]:
        """Measures a table that was not trained, and what of its ids the model has never met; a collective.

        Args:
            model: as for ``look``.
            table: what will be trained.

        Returns:
            The exact numbers; for each table its new rows, and the share of the lookups that went to them. Of a mapped
            table, the lookups of the unknown row.
        """
        new_rows = NewRows(self._job, self._ranks, model)
        before = self._ids.evaluated() if self._ids is not None else {}
        numbers = self._measure(model, table, new_rows.watch)
        met, unknown = new_rows.sums()
        for name, (lookups, of_unknown) in (self._ids.evaluated() if self._ids is not None else {}).items():
            num, num_unknown = lookups - before[name][0], of_unknown - before[name][1]
            unknown[name] = num_unknown / max(1.0, num)
        return numbers, met, unknown

    def _measure(
        self, model: nn.Module, table: AnyTable | None = None, seen: Callable[[Loader], Iterable[Batch]] = lambda b: b
    ) -> dict[str, Any]:
        options: dict[str, Any] = {
            "table": table or self._job.evaluation,
            "batch_size": self._options.batch_size,
            "model": model,
        }
        with closing(build.build_loader(self._job, self._ranks, self._transforms, order=TABLE, **options)) as batches:
            mapped = seen(batches) if self._ids is None else self._ids.known(seen(batches))
            measures = build.build_losses(self._job), self._ranks.device, retrieval_of(self._job, self._options.top)
            quality = quality_of(model, mapped, *measures)
        told: list[Any] = [quality]
        dist.broadcast_object_list(told, src=0)
        numbers: dict[str, Any] = told[0]
        return numbers

    def _compare(self, step: int, by: str) -> bool:
        """Whether the latest numbers are the best ones so far; counts those that are not better by enough.

        What is enough is held against a reference: the last number that was. So many small steps are one large one.
        """
        value, best = find_number(self._latest[1], by), math.nan
        if self._best is not None:
            best = find_number(self._best[_QUALITY], by)
        is_new, self._counted_step = step > self._counted_step, max(step, self._counted_step)
        is_best = _gain(value, best, by) > 0
        if is_best:
            self._best = {"step": step, _QUALITY: self._latest[1]}
        if _gain(value, self._reference, by) > self._options.min_improvement:
            self._reference, self._since_best = value, 0
        elif is_new and (is_best or self._best is None or step > self._best["step"]):  # else measured before a kill
            self._since_best += 1
        if self.is_over and self._ranks.is_first:
            than = f"than {best:.4f}, that of step {self._best['step']}" if self._best else "at all"
            enough = f" by more than {self._options.min_improvement:g}" if self._options.min_improvement else ""
            text = f"{self._since_best} times in a row no better {by} {than}{enough}"
            logger.info("ends early after step %d: %s", step, text)
        return is_best

    def finish(self, model: nn.Module, optimizer: Any, step: int, extra: Mapping[str, Any]) -> dict[str, Any]:
        """Measures the model that training ended with; a collective, with the arguments of ``look``.

        Returns:
            The exact numbers, and those of the best evaluation beside them.
        """
        return {**self.look(model, optimizer, step, extra), **self.summary()}

    def summary(self) -> dict[str, Any]:
        """The best evaluation, and whether the run has ended early; empty where only the end is evaluated."""
        if self._best is None:
            return {}
        step = self._best["step"]
        path = str(self._directory / f"step-{step:08d}")
        best = {"by": self._options.best, "step": step, "checkpoint": path, **self._best[_QUALITY]}
        return {"best": best, "ended_early": self.is_over}

    def _read_best(self) -> dict[str, Any] | None:
        """The best evaluation of earlier attempts, from its checkpoint: what counts is what is there."""
        checkpoint.remove_unfinished(self._directory)
        path = checkpoint.find_newest(self._directory)
        found = checkpoint.read_description(path) if path else None
        if found is None:
            return None
        return {"step": found.step, _QUALITY: _null_to_nan(found.extra[_QUALITY])}


def _gain(value: float, before: float | None, by: str) -> float:
    """By how much a number is better than one before, infinitely if there is none; not at all if it is no number."""
    if not math.isfinite(value):
        return -math.inf
    if before is None or not math.isfinite(before):
        return math.inf
    return (value - before) * direction(by.rpartition(".")[2])


def _null_to_nan(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers as JSON has them, nan where it has null; those of the tasks are one level below."""
    known = {k: _null_to_nan(v) if isinstance(v, Mapping) else v for k, v in numbers.items()}
    return {k: math.nan if v is None else v for k, v in known.items()}
