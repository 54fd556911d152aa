"""A progress bar of two steps: rows read, samples written."""

import sys
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.text import Text


class _Speed(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f} rows/s" if speed else "")


class Progress:
    """Shows what the ETL is at, on stderr; silent when ``shown`` is False."""

    def __init__(self, shown: bool) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Speed(), TimeRemainingColumn())
        self._bar = RichProgress(*columns, console=Console(file=sys.stderr), disable=not shown, refresh_per_second=4)
        self._task = self._bar.add_task("reading", total=None, visible=False)

    def reading(self, num_rows: int | None = None) -> None:
        """Starts to count rows read.

        Args:
            num_rows: how many there are, where that is known.
        """
        self._bar.start()  # not before: an error in the description is all that is shown of it
        self._bar.update(self._task, visible=True, total=num_rows)

    def writing(self, num_samples: int) -> None:
        """Starts to count samples written."""
        self._bar.start()
        task = self._bar.tasks[0]
        self._bar.update(self._task, total=task.completed, refresh=True)
        self._task = self._bar.add_task("writing", total=num_samples)

    def measuring(self, num_steps: int) -> None:
        """Starts to count measurements."""
        self._bar.start()
        self._task = self._bar.add_task("measuring", total=num_steps)

    def uploading(self, num_bytes: int) -> None:
        """Starts to count bytes that have arrived in a store."""
        self._bar.start()
        self._task = self._bar.add_task("uploading", total=num_bytes)

    def advance(self, num_rows: int) -> None:
        """Counts rows; any thread may call it."""
        self._bar.advance(self._task, num_rows)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar.live.is_started:
            self._bar.stop()
