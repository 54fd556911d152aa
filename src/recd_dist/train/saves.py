"""When a run saves, and what saving costs it."""

import logging
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from recd_dist.checkpoint import checkpoint
from recd_dist.checkpoint.saver import Saver
from recd_dist.embedding.tables import portable_name
from recd_dist.errors import UserError
from recd_dist.job.job import Job
from recd_dist.job.run_places import best_of, checkpoints_of
from recd_dist.ranks import progress
from recd_dist.table.location import Location
from recd_dist.train.watch import Watch

logger = logging.getLogger(__name__)

Votes = tuple[bool, bool]
"""Whether a save has failed, and whether the minutes are over; of one rank, or of any rank."""


class Saves:
    """Saves a run's checkpoints, in the background unless the config says otherwise. A context manager, on every rank.

    Args:
        job: the job.

    Attributes:
        path: the newest checkpoint of the run, if any; while it is being written, its future place.
    """

    def __init__(self, job: Job) -> None:
        self._job, self._options = job, job.config.checkpoint
        self._saver = Saver(self._options.background)
        self._directory, self._best_directory = checkpoints_of(job.config), best_of(job.config)
        self._saved_s = time.monotonic()
        self._has_warned = False
        self.path: Location | None = checkpoint.find_newest(self._directory)

    def __enter__(self) -> "Saves":
        self._saver.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._saver.__exit__(*error)

    def votes(self) -> Votes:
        """What this rank knows; the ranks put it together before they act on it."""
        minutes = self._options.every_minutes
        is_over = minutes is not None and time.monotonic() - self._saved_s >= 60 * minutes
        return self._saver.has_failed, is_over

    def is_due(self, step: int, votes: Sequence[bool]) -> bool:
        """Whether to save after a step.

        Args:
            step: the number of steps that are done.
            votes: those of all ranks; empty where the ranks did not ask each other.

        Raises:
            UserError: the last save has failed, on all ranks.
        """
        has_failed, is_over = votes or (False, False)
        if has_failed:
            self._saver.wait()
            raise UserError("a checkpoint could not be written by another rank, which says why")
        return is_over or (self._options.every is not None and step % self._options.every == 0)

    def save(
        self,
        step: int,
        model: nn.Module,
        optimizer: Any,
        extra: Mapping[str, Any],
        watch: Watch,
        must: bool,
    ) -> None:
        """Saves the run; a collective.

        Args:
            step: the number of steps that are done.
            model: the sharded model.
            optimizer: the optimizer of the whole model.
            extra: the extra values of the checkpoint.
            watch: told that the time is no training, and what it costs.
            must: wait for the one before where it is still being written, instead of leaving this one out.

        Raises:
            UserError: it, or the one before it, could not be written.
        """
        watch.pause()
        keep = self._options.keep
        if self._begin(self._directory, step, model, optimizer, extra, keep, not must):
            self.path = self._saver.latest
        self._saved_s = time.monotonic()
        watch.saved(step, self.costs(watch.train_s))

    def save_best(self, step: int, model: nn.Module, optimizer: Any, extra: Mapping[str, Any]) -> None:
        """Saves the best checkpoint so far; a collective.

        Raises:
            UserError: the checkpoint before it could not be written.
        """
        self._begin(self._best_directory, step, model, optimizer, extra, self._options.keep_best, False)

    def wait(self) -> None:
        """Waits until nothing is being written.

        Raises:
            UserError: the last checkpoint could not be written.
        """
        with progress.phase("a checkpoint"):
            self._saver.wait()
        self._warn_of_slow_saves()

    def costs(self, train_s: float) -> dict[str, float]:
        """What saving has cost this attempt, for summary.json and the curves.

        Args:
            train_s: seconds of steps, without those in which training waited for checkpoints.
        """
        counts = self._saver.counts
        whole_s = train_s + counts.waited_s
        return {
            "checkpoint_share": counts.waited_s / whole_s if train_s else math.nan,
            "checkpoint_wait_s": counts.waited_s,
            "checkpoint_write_s": counts.write_s if counts.num_saved else math.nan,
            "checkpoints_saved": counts.num_saved,
            "checkpoints_left_out": counts.num_left_out,
        }

    def _begin(
        self,
        directory: Location,
        step: int,
        model: nn.Module,
        optimizer: Any,
        extra: Mapping[str, Any],
        keep: int,
        may_leave_out: bool,
    ) -> bool:
        values = {**extra, "step": step}
        with progress.phase("a checkpoint"):
            begun = self._saver.save(
                directory, step, model, optimizer, self._job.schema, values, keep, portable_name, may_leave_out
            )
        self._warn_of_slow_saves()
        return begun

    def _warn_of_slow_saves(self) -> None:
        took_s, grace_s = self._saver.counts.write_s, self._options.grace_s
        if took_s > grace_s / 2 and not self._has_warned:
            self._has_warned = True
            logger.warning(
                "a checkpoint took %.0f s to write; after SIGTERM the scheduler gives %.0f s (checkpoint.grace_s): let "
                "it give %.0f s (Slurm KillWait, Kubernetes terminationGracePeriodSeconds), or write to a faster place",
                took_s,
                grace_s,
                4 * took_s,
            )
