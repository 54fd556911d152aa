"""SIGTERM while steps run: a checkpoint and a clean end, at a step on which all ranks agree.

A scheduler sends SIGTERM and, 30 s later, SIGKILL (Slurm, Kubernetes and torch's elastic agent alike). Every rank must
stop after the same step, or the others wait for it in a collective. So the ranks ask each other about once a second.
Outside of steps (while a job plans, loads or evaluates) there is nothing to save: there SIGTERM ends a rank at once.
The module loads no torch until steps run.
"""

import signal
import time
from collections.abc import Sequence
from types import FrameType, TracebackType

from recd_dist.ranks import progress

AGREE_S = 1.0
"""Seconds of steps between two agreements."""

MOST_STEPS = 32
"""Steps between two agreements, at most: steps may become slow all of a sudden."""


class Stopped(SystemExit):
    """A rank that SIGTERM has stopped ends, with the exit code 143.

    Args:
        message: what the next run of the same command goes on from, in one line.
    """

    def __init__(self, message: str) -> None:
        super().__init__(128 + signal.SIGTERM)
        self.message = message


class Stop:
    """Takes SIGTERM while steps run. A context manager, on every rank.

    Args:
        step: the number of steps that were done before, the same on all ranks.

    Attributes:
        asked: whether SIGTERM came to a rank; the same on all ranks after each step.
        votes: for each vote of the last step, whether any rank has given it; empty where the ranks did not ask.
    """

    def __init__(self, step: int = 0) -> None:
        self.asked = False
        self.votes: tuple[bool, ...] = ()
        self._signalled = False
        self._last_step, self._next_step, self._last_s = step, step + 1, time.monotonic()

    def __enter__(self) -> "Stop":
        self._before = signal.signal(signal.SIGTERM, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.signal(signal.SIGTERM, self._before)
        progress.end_steps()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._signalled = True

    def agree(self, step: int, *, now: bool = False, votes: Sequence[bool] = ()) -> None:
        """Asks after each step whether SIGTERM came to a rank; a collective, most of the time without any cost.

        The slowest rank's pace decides when the ranks ask next, so that all of them ask after the same step: every
        ``AGREE_S`` seconds, after each step where steps are slower than that, and after ``MOST_STEPS`` at the latest.

        Args:
            step: the number of steps that are done, the same on all ranks.
            now: ask in any case; the same on all ranks.
            votes: what else to ask, as many on all ranks.
        """
        self.votes = ()
        progress.count_step(step)
        if step < self._next_step and not now:
            return
        import torch
        import torch.distributed as dist

        now_s = time.monotonic()
        step_s = (now_s - self._last_s) / max(1, step - self._last_step)
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        told = torch.tensor([float(self._signalled), step_s, *map(float, votes)], device=device)
        dist.all_reduce(told, op=dist.ReduceOp.MAX)
        signalled, slowest_s, *voted = told.tolist()
        self.asked, self.votes = bool(signalled), tuple(map(bool, voted))
        self._last_step, self._last_s = step, now_s
        self._next_step = step + min(MOST_STEPS, max(1, int(AGREE_S / max(slowest_s, 1e-9))))
