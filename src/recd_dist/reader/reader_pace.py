"""What reading has taken: seconds by stage, batches, samples, and how long batches lay ready."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import monotonic_ns

from recd_dist.reader.stages import STAGES, WORK, Stage
from recd_dist.reader.worker import Result


@dataclass(frozen=True)
class Pace:
    """What a loader's threads and processes did between two looks.

    Attributes:
        elapsed_s: seconds between the two.
        num_batches, num_samples: what the trainer took.
        seconds: for each stage the seconds that threads and processes spent on it, added up.
        ready_s: seconds that batches lay ready before the trainer took them, added up.
    """

    elapsed_s: float
    num_batches: int
    num_samples: int
    seconds: Mapping[Stage, float]
    ready_s: float

    @property
    def work_s(self) -> float:
        """Seconds in which threads and processes were busy, added up."""
        return sum(self.seconds[stage] for stage in WORK)

    @property
    def batches_ready(self) -> float:
        """How many batches lay ready in the mean, by Little's law: 0 where the trainer waits for every one."""
        return self.ready_s / self.elapsed_s if self.elapsed_s else 0.0


class ReaderPace:
    """Adds up what the results of a loader tell.

    Args:
        clock_ns: the monotonic clock in nanoseconds; tests pass their own.
    """

    def __init__(self, clock_ns: Callable[[], int] = monotonic_ns) -> None:
        self._clock_ns = clock_ns
        self._restart()

    def _restart(self) -> None:
        self._began_ns = self._clock_ns()
        self._spent_ns: Counter[str] = Counter()
        self._num_batches, self._num_samples, self._lay_ns = 0, 0, 0

    def count(self, result: Result, num_samples: int) -> None:
        """Counts a batch that the trainer takes now.

        Args:
            result: what the batch came in.
            num_samples: its samples.
        """
        self._spent_ns.update(result.spent_ns)
        self._num_batches += 1
        self._num_samples += num_samples
        self._lay_ns += max(self._clock_ns() - max(result.ready_ns, self._began_ns), 0)

    def take(self) -> Pace:
        """What was counted since the last call."""
        seconds = {stage: self._spent_ns[stage] / 1e9 for stage in STAGES}
        elapsed_s = (self._clock_ns() - self._began_ns) / 1e9
        pace = Pace(elapsed_s, self._num_batches, self._num_samples, seconds, self._lay_ns / 1e9)
        self._restart()
        return pace
