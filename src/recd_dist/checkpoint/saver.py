"""Checkpoints that are written while training goes on.

::

    step 100   copy, 10 ms   step 101 ...                        step 200   copy, 10 ms  ...
                  '-- a thread: files, checksums, checkpoint.json, latest --'

One copy is kept at most. A save that comes while the one before is still being written waits a moment for it, and is
then left out, unless it must not be. The ranks' threads meet in a process group of their own, so that their collectives
do not mix with those of training.
"""

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from recd_dist.checkpoint.agreement import rank, world_size
from recd_dist.checkpoint.catalog import step_name
from recd_dist.checkpoint.staging import Stage
from recd_dist.checkpoint.state import Rename, flatten, rng_state
from recd_dist.checkpoint.writing import Draft, write
from recd_dist.table.location import Location
from recd_dist.table.schema import Schema

logger = logging.getLogger(__name__)

PATIENCE_S = 2.0
"""How long a save waits for the one before it, until it is left out."""

WRITE_TIMEOUT_S = 3600.0
"""How long ranks that have written their part wait for the slowest one. A rank that has died is noticed at once."""

LEAVE_S = 10.0
"""How long a run that ends by an error waits for the checkpoint that is being written."""


@dataclass
class SaveCounts:
    """What saving has cost so far, on this rank.

    Attributes:
        num_saved: checkpoints that were begun.
        num_left_out: checkpoints that were left out, as the one before was still being written.
        waited_s: seconds in which training waited.
        write_s: seconds from the copy to the whole checkpoint, of the last one that was written.
        write_cpu_s: seconds that the thread has computed for it.
        staged_bytes: the copy's size.
    """

    num_saved: int = 0
    num_left_out: int = 0
    waited_s: float = 0.0
    write_s: float = 0.0
    write_cpu_s: float = 0.0
    staged_bytes: int = 0


class Saver:
    """Saves one run's checkpoints. A context manager, on every rank; making it is a collective.

    Args:
        in_background: copy the state, and write while training goes on; otherwise a save returns when it is whole, and
            nothing is copied.

    Attributes:
        counts: what saving has cost so far.
        latest: the checkpoint that was begun last, if any.
    """

    def __init__(self, in_background: bool = True) -> None:
        self._in_background = in_background
        self.counts = SaveCounts()
        self.latest: Location | None = None
        self._stage = Stage()
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None
        self._group: Any = None  # a ProcessGroup; which types torch names for it changes from release to release
        if world_size() > 1:
            self._group = dist.new_group(backend="gloo", timeout=timedelta(seconds=WRITE_TIMEOUT_S))

    def __enter__(self) -> "Saver":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or isinstance(error, SystemExit):
            self.wait()
            if self._group is not None:
                dist.destroy_process_group(self._group)
        elif self._thread is not None:
            self._thread.join(LEAVE_S)

    @property
    def has_failed(self) -> bool:
        """Whether a checkpoint could not be written; ``wait`` says why. A rank may know it a moment before others."""
        return self._failure is not None

    def save(
        self,
        directory: Location,
        step: int,
        model: nn.Module,
        optimizer: Any,
        schema: Schema,
        extra: Mapping[str, Any] | None = None,
        keep: int = 2,
        rename: Rename | None = None,
        may_leave_out: bool = False,
    ) -> bool:
        """Copies the state and begins to write it; a collective.

        Args:
            directory: ``RUN/checkpoints``, which all ranks see; it is made if absent.
            step: the number of optimizer steps done, at least 1 (before that dense optimizers have no state to save).
            model: a DistributedModelParallel, or any module.
            optimizer: the KeyedOptimizer of the whole model.
            schema: the features and labels that the model was trained on.
            extra: further values to keep, JSON-ready; those of rank 0 are written.
            keep: how many whole checkpoints to keep, at least 1.
            rename: maps a parameter's name here to its name in the checkpoint; None keeps the names.
            may_leave_out: leave this one out where the one before is still being written, and log it.

        Returns:
            Whether it was begun; the same on all ranks.

        Raises:
            UserError: the checkpoint before this one could not be written.
        """
        begun = time.perf_counter()
        try:
            if not self._is_free(step, may_leave_out):
                return False
            tensors: dict[str, Any] = flatten(model.state_dict(), optimizer.state_dict(), rename or str)
            if self._in_background:
                tensors = self._stage.fill(tensors)
            draft = Draft(directory, step, tensors, rng_state(), schema, dict(extra or {}), keep, time.time())
            self._thread = threading.Thread(target=self._write, args=(draft,), name=f"checkpoint-{step}", daemon=True)
            self._thread.start()
            self.latest = directory / step_name(step)
            self.counts.num_saved += 1
            self.counts.staged_bytes = self._stage.num_bytes
            if not self._in_background:
                self._join()
            return True
        finally:
            self.counts.waited_s += time.perf_counter() - begun

    def wait(self) -> None:
        """Waits until nothing is being written.

        Raises:
            UserError: the last checkpoint could not be written.
        """
        begun = time.perf_counter()
        try:
            self._join()
        finally:
            self.counts.waited_s += time.perf_counter() - begun

    def _join(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def _is_free(self, step: int, may_leave_out: bool) -> bool:
        """Whether a save can begin, the same on all ranks; it waits for the one before."""
        if self._thread is not None and may_leave_out:
            self._thread.join(PATIENCE_S)
            if not _all_ranks(not self._thread.is_alive()):
                self.counts.num_left_out += 1
                if self.counts.num_left_out == 1 and rank() == 0:
                    logger.warning(
                        "the checkpoint of step %d is left out: the one before is still being written; checkpoints "
                        "are written as fast as they can be, so a larger checkpoint.every loses nothing",
                        step,
                    )
                return False
        self._join()
        return True

    def _write(self, draft: Draft) -> None:
        """The thread's work."""
        try:
            write(draft, self._group)
        except BaseException as error:
            self._failure = error
        self.counts.write_s, self.counts.write_cpu_s = time.time() - draft.started, time.thread_time()


def _all_ranks(value: bool) -> bool:
    """Whether all ranks say so; a collective of the default group."""
    if world_size() == 1:
        return value
    told = torch.tensor([float(value)], device="cuda" if dist.get_backend() == "nccl" else "cpu")
    dist.all_reduce(told, op=dist.ReduceOp.MIN)
    return bool(told.item())
