"""A thread that reads batches ahead where there are no worker processes."""

import queue
import threading
from collections.abc import Iterator

from recd_dist.reader.stages import measure
from recd_dist.reader.worker import BatchReader, Result, Task


class ThreadedResults:
    """Results of tasks, read ahead by one thread. An error of the thread is raised where results are taken.

    Args:
        reader: what reads; nobody else may use it while the thread runs.
        tasks: what to read.
        size: results that may wait to be taken.
    """

    def __init__(self, reader: BatchReader, tasks: Iterator[Task], size: int) -> None:
        self._queue: queue.Queue[Result | BaseException | None] = queue.Queue(size)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(reader, tasks), name="recd-reader", daemon=True)
        self._thread.start()

    def _run(self, reader: BatchReader, tasks: Iterator[Task]) -> None:
        """Reads the tasks until all are read or nobody takes results any more."""
        try:
            for task in tasks:
                result = reader.read_result(task)
                with reader.stopwatch.bound(), measure("queue"):
                    if not self._put(result):
                        return
            self._put(None)
        except BaseException as error:
            self._put(error)

    def _put(self, item: "Result | BaseException | None") -> bool:
        """Waits for room and puts a result there; False when nobody takes results any more."""
        while not self._stopped.is_set():
            try:
                self._queue.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def __iter__(self) -> Iterator[Result]:
        while (item := self._queue.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item

    def close(self) -> None:
        """Ends the thread after the batch that it reads now. Whoever still takes results gets an error, not a hang."""
        self._stopped.set()
        self._thread.join()
        while not self._queue.empty():
            self._queue.get_nowait()
        self._queue.put(RuntimeError("reader: this iteration was ended by a newer one or by close()"))
