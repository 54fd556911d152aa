"""How unevenly the ranks of a step work. In every step each rank waits for the slowest one.

::

    rank 0   computing ======== waiting ....        largest 12, mean 9: imbalance 1.33, of all ranks' time a quarter
    rank 1   computing ============                 is waiting
    rank 2   computing ======= waiting .....

Nothing is exchanged in a step: each rank keeps its numbers of the last steps, and they are put side by side at a point
of the curves. Computing is the processor time of the thread that trains, which stands still while it waits in a
collective, for the reader, or for a free core. On CUDA the host does not know it, and only the work is compared.
"""

import time
from collections.abc import Callable, Mapping

import torch

from recd_dist.metrics.gather import gather_over_ranks

COMPUTING = "computing"
UNEVEN = 1.1
"""Imbalance from which it is worth a word: a tenth of a step's computing is waiting."""


class Imbalance:
    """Compares the ranks step by step. All ranks count the same steps.

    Args:
        device: where the collectives of the process group run.
        clock: the seconds that this thread has computed; tests pass their own. None: the device computes, and how long
            is not known.
    """

    def __init__(self, device: torch.device, clock: Callable[[], float] | None = time.thread_time) -> None:
        self._device, self._clock = device, clock
        self._names: tuple[str, ...] = ()
        self._steps: list[list[float]] = []
        self._largest, self._mean = torch.zeros(()), torch.zeros(())
        self.restart()

    def count_step(self, work: Mapping[str, float]) -> None:
        """Counts a step that this rank has done.

        Args:
            work: how much of each kind of work the rank had, the same names in every step.
        """
        numbers = dict(work)
        if self._clock is not None:
            numbers = {COMPUTING: self._clock() - self._started, **numbers}
        self._names = tuple(numbers)
        self._steps.append(list(numbers.values()))
        self.restart()

    def compute(self) -> dict[str, float]:
        """The imbalance of the steps since the last call, the same on all ranks; a collective.

        Returns:
            For computing and for each kind of work the sum of the steps' largest values over that of their means: 1
            where ranks are even, at most their number. Empty where no step was counted.
        """
        steps, self._steps = self._steps, []
        if not steps:
            return {}
        of_ranks = gather_over_ranks(torch.tensor(steps, dtype=torch.float64, device=self._device))
        largest, mean = of_ranks.amax(0).sum(0), of_ranks.mean(0).sum(0)
        self._largest, self._mean = self._largest + largest, self._mean + mean
        return self._divide(largest, mean)

    def restart(self) -> None:
        """What this thread has computed since the last step was no step."""
        self._started = self._clock() if self._clock is not None else 0.0

    def forget(self) -> None:
        """Leaves out the steps since the last ``compute``."""
        self._steps = []

    @property
    def total(self) -> dict[str, float]:
        """The imbalance of all steps that ``compute`` has seen; empty before the first."""
        return self._divide(self._largest, self._mean) if self._largest.ndim else {}

    def _divide(self, largest: torch.Tensor, mean: torch.Tensor) -> dict[str, float]:
        pairs = zip(self._names, largest.tolist(), mean.tolist(), strict=False)
        return {name: most / middle for name, most, middle in pairs if middle > 0}


def find_worst(imbalance: Mapping[str, float]) -> float:
    """What uneven ranks cost: the imbalance of computing, or of ids where that is not known; 1 for a single rank.

    Args:
        imbalance: what ``Imbalance`` gives.
    """
    return imbalance.get(COMPUTING, imbalance.get("ids", 1.0))
