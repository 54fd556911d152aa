"""A progress bar for work in phases, such as reading and then writing."""

import sys
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f} rows/s" if speed else "")


class PhaseProgress:
    """Shows on stderr how far each phase of the work is, a bar per phase. A context manager.

    Nothing is shown before the first phase starts, so that an error in the description is all that the user sees.

    Args:
        shown: whether anything is shown at all.
    """

    def __init__(self, shown: bool) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
        self._bars = Progress(*columns, console=Console(file=sys.stderr), disable=not shown, refresh_per_second=4)
        self._phase: TaskID | None = None

    def start_reading(self, num_rows: int | None = None) -> None:
        """Starts to count the rows that are read.

        Args:
            num_rows: how many rows there are; None when that is unknown.
        """
        self._start("reading", num_rows)

    def start_writing(self, num_samples: int) -> None:
        """Starts to count the samples that are written; the rows read so far are then all rows.

        Args:
            num_samples: how many samples there are to write.
        """
        for task in self._bars.tasks:
            self._bars.update(task.id, total=task.completed, refresh=True)
        self._start("writing", num_samples)

    def start_scoring(self, num_samples: int) -> None:
        """Starts to count the samples that are scored.

        Args:
            num_samples: how many samples there are to score.
        """
        self._start("scoring", num_samples)

    def start_measuring(self, num_steps: int) -> None:
        """Starts to count measurements.

        Args:
            num_steps: how many measurements there are.
        """
        self._start("measuring", num_steps)

    def start_uploading(self, num_bytes: int) -> None:
        """Starts to count the bytes that have arrived in a store.

        Args:
            num_bytes: how many bytes there are to upload.
        """
        self._start("uploading", num_bytes)

    def start_comparing(self, side: str, num_samples: int) -> None:
        """Starts to count the samples of one side of a comparison.

        Args:
            side: the name of the side.
            num_samples: how many samples the side has.
        """
        self._start(side, num_samples)

    def advance(self, num: int) -> None:
        """Counts rows, samples, measurements or bytes of the phase; any thread may call it."""
        if self._phase is not None:
            self._bars.advance(self._phase, num)

    def _start(self, phase: str, total: int | None) -> None:
        self._bars.start()
        self._phase = self._bars.add_task(phase, total=total)

    def __enter__(self) -> "PhaseProgress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars.live.is_started:
            self._bars.stop()
