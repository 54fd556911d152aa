"""How fast training runs, and how much of it waits for the reader."""

import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

from recd_dist.metrics.gather import over_ranks

T = TypeVar("T")


class Speed:
    """Counts samples and seconds between two calls of ``compute``.

    ::

        for batch in speed.watch(reader):    # or hand speed.watch(reader) to the train pipeline
            train(batch)
            speed.step(batch.batch_size)
        speed.compute()                      # {"samples_per_s": 82114.0, "step_ms": 49.9, "reader_wait_share": 0.03}

    On CUDA a step is timed from the host, which runs ahead of the device: read windows of many steps.

    Args:
        device: where the group's collectives run.
        clock: seconds; a test gives its own.
    """

    def __init__(self, device: torch.device, clock: Callable[[], float] = time.perf_counter) -> None:
        self._device, self._clock = device, clock
        self._started = clock()
        self._num_steps, self._num_samples, self._wait_s = 0, 0, 0.0
        self._total_samples, self._total_s = 0.0, 0.0

    def watch(self, batches: Iterator[T]) -> Iterator[T]:
        """The same batches; the time spent in fetching each counts as waiting for the reader."""
        while True:
            asked = self._clock()
            try:
                batch = next(batches)
            except StopIteration:
                return
            finally:
                self._wait_s += self._clock() - asked
            yield batch

    def step(self, num_samples: int) -> None:
        """One step of this rank is done.

        Args:
            num_samples: of this rank's batch.
        """
        self._num_steps += 1
        self._num_samples += num_samples

    def compute(self) -> dict[str, float]:
        """Rates since the last ``compute``, over all ranks and the same on all; a collective.

        Returns:
            ``samples_per_s`` of all ranks together, ``step_ms``, ``reader_wait_share`` in [0, 1]: mean over the ranks.
        """
        elapsed_s = max(self._clock() - self._started, 1e-9)
        mine = {"samples": float(self._num_samples), "wait": self._wait_s / elapsed_s, "elapsed": elapsed_s}
        all_ranks = over_ranks(mine, {"samples": "sum", "wait": "mean", "elapsed": "max"}, self._device)
        self._total_samples += all_ranks["samples"]
        self._total_s += all_ranks["elapsed"]
        step_ms = 1e3 * all_ranks["elapsed"] / max(self._num_steps, 1)
        self.restart()
        return {
            "samples_per_s": all_ranks["samples"] / all_ranks["elapsed"],
            "step_ms": step_ms,
            "reader_wait_share": all_ranks["wait"],
        }

    def restart(self) -> None:
        """Forgets what was counted since ``compute``: call it after an evaluation or a checkpoint."""
        self._started = self._clock()
        self._num_steps, self._num_samples, self._wait_s = 0, 0, 0.0

    @property
    def samples_per_s(self) -> float:
        """Of all ranks, over everything that ``compute`` has reported."""
        return self._total_samples / self._total_s if self._total_s else 0.0
