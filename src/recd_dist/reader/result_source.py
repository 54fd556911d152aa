"""What a loader may read with in place of threads and processes of its own: batches that are read elsewhere."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from recd_dist.reader.worker import ReaderOptions, Result, Task


class ResultSource(Protocol):
    """Reads tasks somewhere else; ``tier.remote_reader.RemoteReader`` asks servers."""

    def num_streams(self, num_workers: int) -> int:
        """Streams of a rank, each of which is dealt the share of a worker.

        Args:
            num_workers: workers that are wanted; 0 wants what is usual.
        """
        ...

    def results(
        self, options: ReaderOptions, tasks: Sequence[Iterator[Task]], prefetch: int, pin_memory: bool
    ) -> AbstractContextManager[Iterator[Result]]:
        """The results of an epoch's tasks, a stream's after another's.

        Args:
            options: what to read and how.
            tasks: for each stream its tasks.
            prefetch: results of each stream that may wait to be taken.
            pin_memory: put batches into page-locked memory.
        """
        ...

    def close(self) -> None:
        """Ends what it has begun."""
        ...
