"""A run's curves in TensorBoard, with a ready dashboard.

Tags are ``subject/name``; the subjects are quality, optim, ids, speed, reader, dedup, traffic, memory,
alarms and days, whose curves go over days and not over steps. Curves that
share a chart (train and eval; the groups; sent and expanded) differ in a third part of the tag: ``quality/loss``,
``quality/loss/eval``. With several tasks ``quality/loss`` is their sum, and ``quality/auc/liked`` and
``quality/auc/liked/eval`` are those of one. A training is one run of TensorBoard, with one colour: beyond 500 runs
TensorBoard shows no chart by itself.
"""

import io
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from recd_dist.files.whole_file import write_whole

logger = logging.getLogger(__name__)

BOARD_DIRECTORY = "board"
"""The directory of the event files in the run's directory."""

DAYS = "days"
"""The subject of curves over days. Each attempt drops them and writes them anew, from the first day on."""

# category -> chart -> tags, as regular expressions that match from the start
_LAYOUT: dict[str, dict[str, list[str]]] = {
    "quality": {
        "loss": ["quality/loss(/.*)?$"],
        "NE: below 1 beats the base rate": ["quality/ne(/.*)?$"],
        "AUC": ["quality/auc(/.*)?$"],
        "recall@K among all items": ["quality/recall@.*"],
        "NDCG@K among all items": ["quality/ndcg@.*"],
        "inside requests: AUC by samples, NDCG": ["quality/(gauc|ndcg)/.*"],
        "R2: above 0 beats the mean": ["quality/r2/.*"],
        "calibration: 1 is right": ["quality/calibration(/.*)?$"],
    },
    "day by day": {
        "AUC of a day before it is trained": ["days/auc$"],
        "NE of a day before it is trained": ["days/ne$"],
        "loss of a day: before, and while it is trained": ["days/loss/.*"],
        "RMSE of a day before it is trained": ["days/rmse$"],
        "recall@K of a day before it is trained": ["days/recall@.*"],
        "rows that nobody has trained before": ["days/new_rows/.*"],
        "lookups of such rows, share": ["days/unknown/.*"],
        "samples/s": ["days/samples_per_s$"],
    },
    "optimizers": {
        "learning rate of the tables": ["optim/rate_tables$"],
        "learning rate of the dense layers": ["optim/rate_dense$"],
        "length of the dense gradient, before it is clipped": ["optim/gradient_norm$"],
    },
    "ids that come and go": {
        "rows in use, share": ["ids/rows_used/.*"],
        "lookups of the unknown row, share": ["ids/unknown/.*"],
        "admitted a step": ["ids/admitted/.*"],
        "evicted a step": ["ids/evicted/.*"],
    },
    "speed": {
        "samples/s of all ranks": ["speed/samples_per_s$"],
        "step, ms": ["speed/step_ms$"],
        "reader wait, share of time": ["speed/reader_wait_share$"],
        "imbalance of ranks: most over mean, 1 is even": ["speed/imbalance/.*"],
        "waiting for checkpoints, share of time": ["speed/checkpoint_share$"],
    },
    "reader": {
        "wait of the trainer for it, share of time": ["speed/reader_wait_share$"],
        "work for a batch, ms by stage, threads added up": ["reader/stage_ms/(io|decode|convert|transform|collate)$"],
        "the reader waits for room, ms a batch": ["reader/stage_ms/queue$"],
        "batches of a rank that lie ready": ["reader/batches_ready$"],
        "samples/s of one thread or worker, while it works": ["reader/samples_per_busy_s$"],
        "values dropped, set to zero or unknown, so far": ["reader/skipped/.*"],
        "dedup factor of its batches, by group": ["dedup/factor/.*"],
    },
    "what deduplication saves": {
        "dedup factor by group": ["dedup/factor/.*"],
        "bytes a step: sent, expanded": ["traffic/bytes/.*"],
        "bytes a step by group, by formula": ["traffic/group_bytes/.*"],
    },
    "memory": {"GiB, rank 0": ["memory/.*"]},
    "alarms": {"1 while an alarm is up": ["alarms/.*"]},
}


class CurveWriter:
    """Writes a run's curves. It is a context manager, and on ranks other than rank 0 it writes nothing.

    Args:
        run_dir: the run's directory.
        start_step: the number of steps done; points beyond it, which an attempt that died has written, are dropped.
        is_writer: True on rank 0.
    """

    def __init__(self, run_dir: Path, start_step: int = 0, is_writer: bool = True) -> None:
        self._writer: Any = None
        if is_writer:
            from torch.utils.tensorboard import SummaryWriter

            directory = run_dir / BOARD_DIRECTORY
            for file in sorted(directory.glob("*.tfevents.*")):
                drop_points(file, start_step)
            # The mark is for a server that runs: it has the dropped points in memory. The first attempt marks its
            # beginning too: TensorBoard's Python server takes the first mark for that, and purges nothing there
            # (plugin_event_accumulator.py, _CheckForRestartAndMaybePurge). The Rust server knows no marks.
            purge_step = start_step + 1 if start_step else 0
            self._writer = SummaryWriter(str(directory), purge_step=purge_step, flush_secs=10)
            layout = {c: {t: ["Multiline", tags] for t, tags in charts.items()} for c, charts in _LAYOUT.items()}
            self._writer.add_custom_scalars(layout)

    def add_points(self, step: int, subject: str, numbers: Mapping[str, float], line: str | None = None) -> None:
        """Adds a point to each of several curves; nan and infinity are left out.

        Args:
            step: the number of optimizer steps done.
            subject: the first part of the tags.
            numbers: the points' values by the names of the curves.
            line: the line, such as ``eval``, where several share a chart; absent for those of training.
        """
        for name, number in numbers.items():
            if self._writer and math.isfinite(number):
                self._writer.add_scalar(f"{subject}/{name}" + (f"/{line}" if line else ""), number, step)

    def add_points_by_line(self, step: int, subject: str, name: str, numbers: Mapping[str, float]) -> None:
        """Adds a point to each line of one chart.

        Args:
            step: the number of optimizer steps done.
            subject: the first part of the tags.
            name: the name that the lines share.
            numbers: the points' values by line, such as ``{"sent": 4.3e5, "expanded": 6.9e6}`` for the bytes that were
                sent and those that the expanded batch would have sent.
        """
        for line, number in numbers.items():
            self.add_points(step, subject, {name: number}, line)

    def add_text(self, name: str, text: str) -> None:
        """Adds a text, such as the resolved config, which TensorBoard shows as it is."""
        if self._writer:
            self._writer.add_text(name, "\n".join("    " + line for line in text.splitlines()))

    def add_table(self, name: str, markdown: str, number: int) -> None:
        """Adds a table in Markdown, which TensorBoard shows as one.

        Args:
            name: the name of the text.
            markdown: the table.
            number: where it stands among those of the same name; the largest one is shown first.
        """
        if self._writer:
            self._writer.add_text(name, markdown, number)

    def add_run(self, step: int, config: Mapping[str, object], results: Mapping[str, float]) -> None:
        """Adds the run to the HParams table; call it at the end.

        Args:
            step: the number of optimizer steps done.
            config: the config's values by dotted names; a value that is no number, bool or string is shown as text.
            results: the results by name; ``{"auc": 0.79}`` is shown as ``result/auc``.
        """
        if self._writer:
            from torch.utils.tensorboard.summary import hparams

            plain = {k: v if isinstance(v, bool | int | float | str) else str(v) for k, v in config.items()}
            numbers = {f"result/{k}": v for k, v in results.items() if math.isfinite(v)}
            for summary in hparams(plain, numbers):  # SummaryWriter.add_hparams would open another file
                self._writer.file_writer.add_summary(summary)
            for tag, number in numbers.items():
                self._writer.add_scalar(tag, number, step)

    def flush(self) -> None:
        """Writes the points that are still in memory."""
        if self._writer:
            self._writer.flush()

    def close(self) -> None:
        """Writes the points that are still in memory and closes the file."""
        if self._writer:
            self._writer.close()

    def __enter__(self) -> "CurveWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def drop_points(file: Path, last_step: int) -> None:
    """Removes the points beyond a step, and those over days, from an event file, so that no reader shows them.

    What a killed writer left torn at the end goes too. A file that cannot be read or written stays as it is.

    Args:
        file: an event file that nobody writes any more.
        last_step: the last step whose points stay.
    """
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter

    kept, num_dropped = io.BytesIO(), 0
    try:
        for record in RawEventFileLoader(str(file)).Load():
            event = Event.FromString(record)
            of_days = any(value.tag.startswith(f"{DAYS}/") for value in event.summary.value)
            if event.HasField("summary") and (event.step > last_step or of_days):
                num_dropped += 1
            else:
                RecordWriter(kept).write(record)
        if num_dropped:
            write_whole(file, kept.getvalue())
    except Exception as error:  # curves are for the eye: damaged ones do not keep a run from going on
        logger.warning("%s: points beyond step %d stay there (%s)", file, last_step, error)
