"""Alarms of a run that trains: what is wrong with its speed, its memory, its disk or its rows, and what helps.

Each alarm is a line of the log when it rises, a curve ``alarms/NAME`` of 0 and 1 on the dashboard, and a line in
summary.json. One bad point is no alarm: the condition must hold at ``POINTS`` points in a row. It ends with the first
point at which the condition does not hold. ``docs/runbook.md`` has a row for each.
"""

import logging
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from recd_dist.screen.numbers import size
from recd_dist.train.counting import Point

logger = logging.getLogger(__name__)

POINTS = 3
"""Points in a row at which the condition of an alarm must hold."""

READER_WAIT_SHARE = 0.3
"""Share of the time in which ranks wait for the reader, above which the reader bounds the run."""

SLOWER = 2.0
"""A step is slow if it takes this many times the median of the run's points."""

ENOUGH_POINTS = 8
"""Points that a median must have, and points after which a model must beat the base rate."""

LESS_DEDUP = 0.5
"""Share of the table's dedup factor below which batches lose what the table has."""

FULL = 0.9
"""Share of the memory that this host or container has."""

CHECKPOINTS = 2
"""Checkpoints for which the disk must have room: a new one, and an old one that is still there."""


@dataclass(frozen=True)
class Limits:
    """What the numbers of a run are held against.

    Attributes:
        dedup_factors: samples per stored row of each deduplicated group, from the table's manifest.
        batch_samples: samples of one rank's batch, for the remedy.
        local_world_size: ranks of this host; each is taken to use as much memory as this one.
        memory_bytes: the memory of this host or container.
        run_dir: the directory whose disk must have room.
        checkpoint_bytes: the size of a checkpoint; 0 where it is not known.
    """

    dedup_factors: Mapping[str, float]
    batch_samples: int
    local_world_size: int
    memory_bytes: int
    run_dir: Path
    checkpoint_bytes: float = 0.0


@dataclass
class _State:
    """What is known of one alarm: points in a row, and when it rose."""

    num_points: int = 0
    is_up: bool = False
    steps: list[int] = field(default_factory=list)  # first and last step at which it was up
    text: str = ""


class Alarms:
    """Looks at the points of a run on rank 0.

    Args:
        limits: what the numbers are held against.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits, self._step_ms, self._num_points = limits, list[float](), 0
        self._checks: dict[str, Callable[[Point], str | None]] = {
            "slow_reader": self._slow_reader,
            "slow_steps": self._slow_steps,
            "weak_dedup": self._weak_dedup,
            "no_better_than_base_rate": self._no_better_than_base_rate,
            "memory_nearly_full": self._memory_nearly_full,
            "disk_nearly_full": self._disk_nearly_full,
        }
        self._states = {name: _State() for name in self._checks}

    def look(self, step: int, point: Point) -> dict[str, float]:
        """Raises and ends alarms, with a line of the log each.

        Args:
            step: the number of steps that are done.
            point: the numbers since the last point.

        Returns:
            1.0 for each alarm that is up, by name, and 0.0 for the others.
        """
        self._num_points += 1
        for name, check in self._checks.items():
            self._take(name, step, check(point))
        if "step_ms" in point.speed:
            self._step_ms.append(point.speed["step_ms"])
        return {name: float(state.is_up) for name, state in self._states.items()}

    def summary(self) -> dict[str, Any]:
        """The alarms that were up in this attempt: first and last step of each, and its text at the last one."""
        risen = {name: state for name, state in self._states.items() if state.steps}
        if not risen:
            return {}
        return {
            "alarms": {name: {"steps": [s.steps[0], s.steps[-1]], "text": s.text} for name, s in risen.items()},
        }

    def _take(self, name: str, step: int, text: str | None) -> None:
        """Moves one alarm on: ``text`` says what is wrong at this point."""
        state = self._states[name]
        state.num_points = state.num_points + 1 if text else 0
        if text and state.num_points >= POINTS:
            if not state.is_up:
                logger.warning("alarm %s at step %d: %s", name, step, text)
            state.is_up, state.text = True, text
            state.steps = [*state.steps[:1], step]
        elif not text and state.is_up:
            state.is_up = False
            logger.warning("alarm %s ended at step %d", name, step)

    def _slow_reader(self, point: Point) -> str | None:
        share = point.speed.get("reader_wait_share", 0.0)
        if share <= READER_WAIT_SHARE:
            return None
        return f"ranks wait for the reader {share:.0%} of the time; more reader.num_workers, or a faster disk"

    def _slow_steps(self, point: Point) -> str | None:
        step_ms = point.speed.get("step_ms", 0.0)
        if len(self._step_ms) < ENOUGH_POINTS or step_ms <= SLOWER * median(self._step_ms):
            return None
        times = step_ms / median(self._step_ms)
        return f"steps take {times:.1f} times as long as before; look for other programs on the hosts"

    def _weak_dedup(self, point: Point) -> str | None:
        weak = [
            f"{group} {point.dedup_factors[group]:.1f} instead of {stored:.1f}"
            for group, stored in self._limits.dedup_factors.items()
            if group in point.dedup_factors and point.dedup_factors[group] < LESS_DEDUP * stored
        ]
        if not weak:
            return None
        return (
            f"batches share fewer rows than the table: samples per row {', '.join(weak)}; a larger batch_size "
            f"(now {self._limits.batch_samples}) keeps more of a session together"
        )

    def _no_better_than_base_rate(self, point: Point) -> str | None:
        ne = point.quality.get("ne", 0.0)
        if self._num_points <= ENOUGH_POINTS or not ne > 1:
            return None
        return f"NE is {ne:.3f}: predictions are worse than the base rate; lower learning rates, or look at the labels"

    def _memory_nearly_full(self, point: Point) -> str | None:
        used = point.memory.get("rss_gib", 0.0) * 2**30 * self._limits.local_world_size
        if used <= FULL * self._limits.memory_bytes:
            return None
        return (
            f"the ranks of a host use {size(used)} of {size(self._limits.memory_bytes)}; a smaller "
            "batch_size or reader.window, fewer reader.num_workers, or more hosts"
        )

    def _disk_nearly_full(self, point: Point) -> str | None:
        del point
        free, needed = shutil.disk_usage(self._limits.run_dir).free, CHECKPOINTS * self._limits.checkpoint_bytes
        if free >= needed:
            return None
        return (
            f"{size(free)} are free for {self._limits.run_dir}, a checkpoint takes "
            f"{size(self._limits.checkpoint_bytes)}; make room, or a smaller checkpoint.keep"
        )
