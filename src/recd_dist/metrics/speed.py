"""How fast training runs, and how long it waits for the reader."""

import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

from recd_dist.metrics.gather import reduce_over_ranks

T = TypeVar("T")


class Speed:
    """Counts samples and seconds between two calls of ``compute``.

    ::

        for batch in speed.time_reads(reader):    # or give speed.time_reads(reader) to the train pipeline
            train(batch)
            speed.count_step(batch.batch_size)
        speed.compute()    # {"samples_per_s": 82114.0, "step_ms": 49.9, "reader_wait_share": 0.03}

    Steps are timed on the host. On CUDA the host runs ahead of the device, so let many steps pass between two calls.

    Args:
        device: where the collectives of the process group run.
        clock: a function that returns the time in seconds; tests pass their own.
    """

    def __init__(self, device: torch.device, clock: Callable[[], float] = time.perf_counter) -> None:
        self._device, self._clock = device, clock
        self._started = clock()
        self._num_steps, self._num_samples, self._wait_s = 0, 0, 0.0
        self._total_samples, self._total_s = 0.0, 0.0

    def time_reads(self, batches: Iterator[T]) -> Iterator[T]:
        """Yields the batches unchanged, and counts the time until each batch comes as waiting for the reader."""
        while True:
            asked_s = self._clock()
            try:
                batch = next(batches)
            except StopIteration:
                return
            finally:
                self._wait_s += self._clock() - asked_s
            yield batch

    def count_step(self, num_samples: int) -> None:
        """Counts a step that this rank has done.

        Args:
            num_samples: the number of samples in this rank's batch.
        """
        self._num_steps += 1
        self._num_samples += num_samples

    def compute(self) -> dict[str, float]:
        """The rates since the last ``compute``, over all ranks and the same on all of them; a collective.

        Returns:
            ``samples_per_s`` of all ranks together, ``step_ms``, and the ranks' mean ``reader_wait_share``, in [0, 1].
        """
        elapsed_s = max(self._clock() - self._started, 1e-9)
        mine = {"samples": float(self._num_samples), "wait": self._wait_s / elapsed_s, "elapsed": elapsed_s}
        all_ranks = reduce_over_ranks(mine, {"samples": "sum", "wait": "mean", "elapsed": "max"}, self._device)
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
        """Forgets what was counted since the last ``compute``; for the time after an evaluation or a checkpoint."""
        self._started = self._clock()
        self._num_steps, self._num_samples, self._wait_s = 0, 0, 0.0

    @property
    def total_s(self) -> float:
        """Seconds that ``compute`` has reported so far."""
        return self._total_s

    @property
    def samples_per_s(self) -> float:
        """Samples per second of all ranks, over all the time that ``compute`` has reported."""
        return self._total_samples / self._total_s if self._total_s else 0.0
