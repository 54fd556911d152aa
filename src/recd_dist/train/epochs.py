"""What a run trains, one epoch after the other: a table again and again, its days, or the parts of a stream."""

import logging
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from recd_dist.direct.footers import FlatFiles
from recd_dist.direct.stream_form import TRANSFORMS, save_form
from recd_dist.direct.stream_parts import (
    PartWatcher,
    StreamPart,
    files_from,
    first_folder,
    part_from_json,
    table_of_parts,
)
from recd_dist.errors import ConfigError
from recd_dist.job.job import Job
from recd_dist.ranks import progress
from recd_dist.ranks.process_group import Ranks
from recd_dist.ranks.stop import Stop
from recd_dist.reader.direct_table import DirectTable
from recd_dist.reader.loader import Loader
from recd_dist.reader.reader_pace import ReaderPace
from recd_dist.reader.transform import Transforms
from recd_dist.train import build
from recd_dist.train.day_by_day import DayByDay
from recd_dist.train.day_records import DayRecords
from recd_dist.train.measured_work import cutter_of
from recd_dist.train.run import samples_trained
from recd_dist.train.shared_table import agree_on

logger = logging.getLogger(__name__)

_LOOK_S, _SAY_S = 1.0, 30.0
STREAM = "stream"
"""Where the position of a reader has the parts of a stream that were taken."""

Taken = tuple[DirectTable, tuple[StreamPart, ...]]
Agree = Callable[[Callable[[], Any], Ranks], Any]
"""Calls a function on rank 0, and returns its result on every rank."""


def fit_transforms(job: Job) -> Transforms:
    """The fitted transforms of a job; those of its beginning where it goes on with a stream or day by day."""
    kept = job.manifest.source.get(TRANSFORMS) if job.config.reader.follow else None
    return job.transforms.fit(job.table) if kept is None else Transforms.parse(job.schema, kept)


def open_epochs(
    job: Job,
    ranks: Ranks,
    transforms: Transforms,
    state: Mapping[str, Any] | None,
    model: Any,
    days: DayRecords,
    agree: "Agree" = agree_on,
) -> "Epochs":
    """What a run trains, from a position on; a collective.

    Args:
        job: the job.
        ranks: this rank.
        transforms: fitted.
        state: the position in the checkpoint that the run goes on from; None at its start.
        model: the sharded model; None where nothing is trained.
        days: the days of a run that goes day by day.
        agree: shows all ranks what rank 0 sees; a collective.

    Raises:
        ConfigError, DataError: a position of another table, or files that have changed.
    """
    if days.is_on:
        return DayByDay(job, ranks, transforms, state, model, days)
    if not job.config.reader.follow:
        cutter = cutter_of(job, ranks, model, transforms, state or {})
        return RepeatedTable(job, build.build_loader(job, ranks, transforms, state=state, cutter=cutter, model=model))
    if state is not None and STREAM not in state:
        raise ConfigError(
            "reader.follow=true: the run in run_dir did not follow a stream; take another run_dir=..., or follow=false"
        )
    if ranks.is_first and isinstance(job.table, DirectTable) and TRANSFORMS not in job.manifest.source:
        save_form(Path(job.config.run_dir), job.table, transforms.to_json())
    return FollowedParts(job, ranks, transforms, state, model, agree)


class RepeatedTable:
    """A table that is trained ``epochs`` times.

    Args:
        job: the job.
        loader: this rank's batches.

    Attributes:
        loader: this rank's batches of the epoch.
    """

    def __init__(self, job: Job, loader: Loader) -> None:
        self._job, self.loader = job, loader

    @property
    def number(self) -> int:
        """The epoch, counted from 0."""
        return self.loader.epoch

    @property
    def pace(self) -> ReaderPace:
        """What reading has taken."""
        return self.loader.pace

    @property
    def counts(self) -> Counter[str]:
        """For each feature the values that were dropped or set to zero."""
        return self.loader.counts

    def begin(self, stop: Stop, step: int) -> bool:
        """Whether an epoch is left to train."""
        del stop, step
        return self.loader.epoch < self._job.config.epochs

    def num_steps_left(self, samples_per_step: int) -> int:
        """About how many steps are left."""
        later = self._job.config.epochs - self.loader.epoch - 1
        return len(self.loader) + later * -(-self._job.manifest.num_samples // samples_per_step)

    def end(self) -> None:
        """The epoch is trained."""
        self.loader.start_epoch(self.loader.epoch + 1)

    def state(self, num_trained: int) -> dict[str, Any]:
        """The position when each rank has trained its first batches of this iteration; see ``Loader.state``."""
        return self.loader.state(num_trained)

    def num_samples(self, num_trained: int) -> int:
        """Samples that all ranks have trained since the first step of the run."""
        return samples_trained(self._job, self.loader.state(num_trained))

    def close(self) -> None:
        """Ends worker processes and threads."""
        self.loader.close()


class FollowedParts:
    """The parts of a folder that grows. Those that are there together are an epoch; the next is what has come since.

    ::

        parts     a b c | d | e f          looked for when the epoch before is trained
        epoch     0       1   2            each in the reader's order; an epoch has parts of one folder (day) only

    The position has the names of all parts that were taken, so that none is trained twice, and what is left of the
    last.

    Args:
        job: the job; its table is what the stream began with.
        ranks: this rank.
        transforms: fitted on the first parts.
        state: the position of an earlier attempt.
        model, agree: as for ``open_epochs``.

    Attributes:
        number: the epoch, counted from 0.
        pace, counts: those of all loaders, see ``Loader``.
    """

    def __init__(
        self,
        job: Job,
        ranks: Ranks,
        transforms: Transforms,
        state: Mapping[str, Any] | None,
        model: Any,
        agree: "Agree" = agree_on,
    ) -> None:
        self._job, self._ranks, self._transforms, self._model, self._agree = job, ranks, transforms, model, agree
        stream = (state or {}).get(STREAM, {})
        taken = [part_from_json(part) for part in stream.get("parts", ())]
        num_done = len(taken) - int(stream.get("open", 0))
        self._done, self._open = taken[:num_done], taken[num_done:]
        self._first_sample, self.number = int(stream.get("first_sample", 0)), int((state or {}).get("epoch", 0))
        self._base, path = job.table, str(job.config.data.path)
        if not isinstance(self._base, DirectTable):
            raise ConfigError("reader.follow=true: needs data.reader=direct")
        self._watcher = PartWatcher(path, self._base, taken) if ranks.is_first else None
        self._waiting: tuple[list[StreamPart], FlatFiles] | None = None
        self._loader: Loader | None = None
        self.pace, self.counts = ReaderPace(), Counter[str]()
        if self._open:
            self._read(agree(self._reopen, ranks), state)

    @property
    def loader(self) -> Loader:
        """This rank's batches of the parts that are trained now, after ``begin``."""
        if self._loader is None:
            raise RuntimeError("no parts are open: begin() has found none")
        return self._loader

    def begin(self, stop: Stop, step: int) -> bool:
        """Waits for new parts; a collective.

        Args:
            stop: ends the wait.
            step: steps that are done.

        Returns:
            False where SIGTERM came, or no part for ``reader.follow_idle_s``.

        Raises:
            DataError: a part was written anew, or has other columns.
        """
        began_s = said_s = time.monotonic()
        while self._loader is None:
            with progress.phase("waiting for new parts"):
                taken, waited_s = self._agree(lambda: (self._look(), time.monotonic() - began_s), self._ranks)
            if taken is not None:
                self._read(taken, None)
                break
            stop.agree(step, now=True)
            if self._ranks.is_first and time.monotonic() - said_s >= _SAY_S:
                said_s = time.monotonic()
                logger.info("%s: waiting for new parts for %.0f s", self._job.config.data.path, waited_s)
            idle_s = self._job.config.reader.follow_idle_s
            if stop.asked or (idle_s is not None and waited_s >= idle_s):
                self._warn_of_rest()
                return False
        return True

    def num_steps_left(self, samples_per_step: int) -> int:
        """Nobody knows how many samples will come."""
        del samples_per_step
        return sys.maxsize

    def end(self) -> None:
        """The parts are trained."""
        self._first_sample += self.loader.num_samples
        self._done, self._open, self.number = [*self._done, *self._open], [], self.number + 1
        self.loader.close()
        self._loader = None

    def state(self, num_trained: int) -> dict[str, Any]:
        """The position of the stream when each rank has trained its first batches of this iteration."""
        position = self.loader.state(num_trained)
        is_over = position["epoch"] > self.number
        first = self._first_sample + (self.loader.num_samples if is_over else 0)
        parts = [asdict(part) for part in (*self._done, *self._open)]
        stream = {"parts": parts, "open": 0 if is_over else len(self._open), "first_sample": first}
        return {**position, STREAM: stream, **({"remaining": []} if is_over else {})}

    def num_samples(self, num_trained: int) -> int:
        """Samples that all ranks have trained since the first step of the run."""
        if self._loader is None:
            return self._first_sample
        left = sum(end - start for start, end in self.state(num_trained)["remaining"])
        return self._first_sample + self._loader.num_samples - left

    def close(self) -> None:
        """Ends worker processes and threads."""
        if self._loader is not None:
            self._loader.close()

    def _read(self, taken: Taken, state: Mapping[str, Any] | None) -> None:
        """Opens the batches of some parts."""
        table, parts = taken
        self._open = list(parts)
        self._loader = build.build_loader(
            self._job, self._ranks, self._transforms, table=table, state=state, model=self._model
        )
        self._loader.pace, self._loader.counts = self.pace, self.counts
        if state is None:
            self._loader.start_epoch(self.number)
        if self._ranks.is_first:
            named = parts[0].name if len(parts) == 1 else f"{parts[0].name} to {parts[-1].name}"
            logger.info("epoch %d: %s, %d samples", self.number, named, table.manifest.num_samples)

    def _reopen(self) -> Taken:
        """On rank 0: the parts that an earlier attempt has not trained to their end."""
        if self._watcher is None:
            raise RuntimeError("only rank 0 looks")
        flat = self._watcher.reopen(self._open)
        return self._table_of(flat), tuple(self._open)

    def _look(self) -> Taken | None:
        """On rank 0: the parts to train next; None where there are none yet, after a second."""
        if self._watcher is None:
            raise RuntimeError("only rank 0 looks")
        parts, flat = self._watcher.look()
        if flat is not None:
            before, rest = self._waiting or ([], files_from(flat, 0, 0))
            flat = replace(flat, files=rest.files + flat.files, metadata=rest.metadata + flat.metadata)
            self._waiting = ([*before, *parts], flat)
        if self._waiting is not None:
            parts, flat = self._waiting
            if num := first_folder(flat, parts, self._ranks.world_size):
                rest = files_from(flat, num, len(parts))
                self._waiting = (parts[num:], rest) if num < len(parts) else None
                return self._table_of(files_from(flat, 0, num)), tuple(parts[:num])
        time.sleep(_LOOK_S)
        return None

    def _table_of(self, flat: FlatFiles) -> DirectTable:
        if not isinstance(self._base, DirectTable):
            raise ConfigError("reader.follow=true: needs data.reader=direct")
        return table_of_parts(self._base, flat, self._first_sample)

    def _warn_of_rest(self) -> None:
        if self._waiting is not None:
            parts = self._waiting[0]
            logger.warning(
                "%d samples of %s are left: too few for %d ranks; the next run trains them",
                sum(part.num_rows for part in parts), parts[0].name, self._ranks.world_size,
            )  # fmt: skip


Epochs = RepeatedTable | FollowedParts | DayByDay
"""What a run trains."""
