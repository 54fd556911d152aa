"""What the readers of all ranks did between two points on the curves: time by stage, batches ready, values skipped."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch

from recd_dist.metrics.gather import reduce_over_ranks
from recd_dist.reader.reader_pace import ReaderPace
from recd_dist.reader.stages import STAGES

_STAGE = "stage/"
_SKIPPED = "skipped/"


@dataclass(frozen=True)
class ReaderPoint:
    """The readers at one point.

    Attributes:
        stage_ms: for each stage the milliseconds that reading a rank's batch took, of all its threads and workers.
        numbers: ``samples_per_busy_s``, the samples that a thread or worker reads in a second of work, and
            ``batches_ready``, how many batches of a rank lay ready in the mean.
        skipped: for each feature the values that were dropped, set to zero or unknown so far, on all ranks.
    """

    stage_ms: Mapping[str, float] = field(default_factory=dict)
    numbers: Mapping[str, float] = field(default_factory=dict)
    skipped: Mapping[str, float] = field(default_factory=dict)


class Counted(Protocol):
    """What reads, and counts it: a loader, or what goes from one loader to the next."""

    @property
    def pace(self) -> ReaderPace:
        """What reading has taken, by stage."""

    @property
    def counts(self) -> Mapping[str, int]:
        """For each feature the values that were dropped or set to zero."""


class ReaderCounts:
    """Adds up what the loaders of all ranks tell.

    Args:
        loader: this rank's.
        features: the names of the features that are trained, the same on every rank.
        device: where the collectives of the process group run.
    """

    def __init__(self, loader: Counted, features: tuple[str, ...], device: torch.device) -> None:
        self._loader, self._features, self._device = loader, features, device
        self._total_s = dict.fromkeys(STAGES, 0.0)
        loader.pace.take()  # what was read before the first step begins a run, and says nothing of its pace

    def measure(self) -> ReaderPoint:
        """What was read since the last call; a collective."""
        pace = self._loader.pace.take()
        mine = {
            "batches": float(pace.num_batches),
            "samples": float(pace.num_samples),
            "ready": pace.batches_ready,
            "work": pace.work_s,
            "ranks": 1.0,
            **{_STAGE + stage: seconds for stage, seconds in pace.seconds.items()},
            **{_SKIPPED + name: 0.0 for name in self._features},
        }
        for what, num in self._loader.counts.items():
            mine[_SKIPPED + what.partition(":")[0]] += float(num)
        found = reduce_over_ranks(mine, "sum", self._device)
        for stage in STAGES:
            self._total_s[stage] += found[_STAGE + stage]
        numbers = {"batches_ready": found["ready"] / found["ranks"]}
        if found["work"] and found["samples"]:
            numbers["samples_per_busy_s"] = found["samples"] / found["work"]
        batches = max(found["batches"], 1.0)
        return ReaderPoint(
            {stage: 1e3 * found[_STAGE + stage] / batches for stage in STAGES},
            numbers,
            {name: n for name in self._features if (n := found[_SKIPPED + name])},
        )

    def totals(self) -> dict[str, float]:
        """Seconds of each stage in this attempt, of all ranks as far as they were measured."""
        return {stage: round(seconds, 3) for stage, seconds in self._total_s.items()}
