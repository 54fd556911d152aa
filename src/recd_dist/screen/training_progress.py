"""The progress of training on the screen: a bar on a terminal, plain lines in a pipe.

A pipe (a scheduler's log, CI) gets a line at the first step, and then a line every few seconds::

    step 120/468  loss 0.4312  auc 0.7421  ne 0.91  82,114 samples/s  reader wait 3%  eta 0:12
"""

import math
import sys
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

_FORMATS: dict[str, Callable[[float], str]] = {
    "loss": lambda v: f"loss {v:.4f}",
    "auc": lambda v: f"auc {v:.4f}",
    "ne": lambda v: f"ne {v:.2f}",
    "eval_auc": lambda v: f"eval auc {v:.4f}",
    "eval_ne": lambda v: f"eval ne {v:.2f}",
    "samples_per_s": lambda v: f"{v:,.0f} samples/s",
    "reader_wait_share": lambda v: f"reader wait {v:.0%}",
    "imbalance": lambda v: f"imbalance {v:.2f}",
    "eta_s": lambda v: f"eta {_clock_time(v)}",
}


class TrainingProgress:
    """Shows on one line how far training is. A context manager; only rank 0 should make one.

    ::

        with TrainingProgress(num_steps=468) as progress:
            if progress.is_due(step):
                progress.show(step, {"loss": loss.value(), "samples_per_s": rate})

    Args:
        num_steps: the number of steps of the whole run; ``sys.maxsize`` where nobody knows.
        start_step: the number of steps that earlier attempts have done.
        every_s: seconds between two lines in a pipe; a terminal is redrawn four times a second.
        stream: the stream to write to; stderr when absent.
        clock: a function that returns the time in seconds; tests pass their own.
    """

    def __init__(
        self,
        num_steps: int,
        start_step: int = 0,
        every_s: float = 5.0,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = stream or sys.stderr
        self._num_steps, self._first, self._clock = num_steps, start_step, clock
        self._bar = _build_bar(self._stream) if self._stream.isatty() else None
        self._every_s = 0.25 if self._bar else every_s
        self._began = clock()
        self._total = f"/{num_steps}" if num_steps < sys.maxsize else ""
        self._shown_at_s: float | None = None
        self._latest: dict[str, float] = {}

    def is_due(self, step: int) -> bool:
        """Whether it is time for ``show``: at the first step, at the last step, and every few seconds.

        Args:
            step: the step that was just done, counted from 1.
        """
        return self._shown_at_s is None or step >= self._num_steps or self._clock() - self._shown_at_s >= self._every_s

    def show(self, step: int, numbers: Mapping[str, float]) -> None:
        """Shows the step and the latest value of each number.

        Args:
            step: the step that was just done, counted from 1.
            numbers: any of ``loss``, ``auc``, ``ne``, ``eval_auc``, ``eval_ne``, ``samples_per_s``,
                ``reader_wait_share`` and ``imbalance``; a nan is not shown, and an absent number keeps the value of an
                earlier call.
        """
        now = self._clock()
        self._latest |= numbers
        done = step - self._first
        eta_s = (self._num_steps - step) * (now - self._began) / done if done > 1 and self._total else math.nan
        shown = {**self._latest, "eta_s": eta_s}
        parts = [text(shown[name]) for name, text in _FORMATS.items() if math.isfinite(shown.get(name, math.nan))]
        self._shown_at_s = now
        if self._bar:
            self._bar.update(self._bar.task_ids[0], completed=step, text="  ".join(parts))
        else:
            self._stream.write("  ".join([f"step {step}{self._total}", *parts]) + "\n")
            self._stream.flush()

    def __enter__(self) -> "TrainingProgress":
        if self._bar:
            self._bar.add_task(
                "", total=self._num_steps if self._total else None, completed=self._first, text="starting"
            )
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()


def _build_bar(stream: TextIO) -> Progress:
    return Progress(
        TextColumn("step {task.completed}/{task.total}"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[text]}"),
        console=Console(file=stream),
    )


def _clock_time(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02d}:{s:02d}" if hours else f"{m}:{s:02d}"
