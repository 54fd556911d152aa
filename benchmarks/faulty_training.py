"""The training, with a place at which it hangs when it is told to: what `benchmarks/faults.py` starts."""

import signal
import time
from collections.abc import Sequence
from types import FrameType

from recd_dist.train import training

prepare = training.prepare


def hang(number: int, frame: FrameType | None) -> None:
    """Code that never comes back; signals, SIGTERM among them, do not end it."""
    del number, frame
    while True:
        time.sleep(0.1)


def main(overrides: Sequence[str]) -> None:
    """One rank of a training job.

    Args:
        overrides: see ``recd_dist.train.training``.
    """
    signal.signal(signal.SIGUSR1, hang)
    training.main(overrides)
