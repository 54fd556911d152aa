"""Reads a table as training would, without training, and measures how fast that is and where the time goes."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from recd_dist.errors import ConfigError
from recd_dist.job.job import Job
from recd_dist.ranks.process_group import Ranks
from recd_dist.reader.loader import Loader
from recd_dist.reader.reader_pace import Pace
from recd_dist.reader.stages import STAGES, WORK
from recd_dist.table.schema import SAMPLE
from recd_dist.tensors.batch import Batch
from recd_dist.train import build

_WARM_BATCHES = 3
"""Batches after which the clock starts: the first ones wait for files to open and loops to compile."""


@dataclass(frozen=True)
class ReaderSpeed:
    """What reading a table took.

    Attributes:
        first_batch_s: seconds from opening the reader to the first batch.
        elapsed_s: seconds that were measured after that.
        num_batches, num_samples, num_ids: what was read in them; ids are those of unique rows.
        epochs: how often the table was begun.
        batch_bytes: bytes of the tensors of these batches.
        table_bytes: bytes of the table's files that hold these samples, with the columns that were not read.
        dedup_factor: for each deduplicated group its samples for each unique row of a batch.
        stage_s: for each stage the seconds of all threads and workers, added up.
        skipped: for each reason the values that were dropped, set to 0 or unknown.
        step_ms: the length of a step that the user named; None where there is none.
    """

    first_batch_s: float
    elapsed_s: float
    num_batches: int
    num_samples: int
    num_ids: int
    epochs: int
    batch_bytes: int
    table_bytes: int
    dedup_factor: Mapping[str, float]
    stage_s: Mapping[str, float]
    skipped: Mapping[str, int]
    step_ms: float | None = None

    @property
    def samples_per_s(self) -> float:
        """Samples that were read in a second."""
        return self.num_samples / self.elapsed_s

    @property
    def batch_ms(self) -> float:
        """Milliseconds from one batch to the next, where nobody trains."""
        return 1e3 * self.elapsed_s / max(self.num_batches, 1)

    @property
    def stage_shares(self) -> dict[str, float]:
        """For each stage of work its share of all work."""
        total = sum(self.stage_s[stage] for stage in WORK) or 1.0
        return {stage: self.stage_s[stage] / total for stage in WORK}

    def wait_share(self, step_ms: float) -> float:
        """The share of training that would wait for the reader, if reading has cores of its own.

        Args:
            step_ms: how long a step takes that waits for nothing.
        """
        return max(0.0, 1 - step_ms / self.batch_ms) if self.batch_ms else 0.0

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict."""
        waits = {} if self.step_ms is None else {"wait_share": self.wait_share(self.step_ms)}
        speeds = {"samples_per_s": self.samples_per_s, "batch_ms": self.batch_ms, "stage_shares": self.stage_shares}
        return {**asdict(self), **speeds, **waits}


def measure_reader(
    job: Job,
    seconds: float,
    step_ms: float | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> ReaderSpeed:
    """Reads batches of a job's table for some seconds, as one rank of it would, epoch after epoch.

    Args:
        job: resolved config; batches are cut by samples.
        seconds: how long to measure.
        step_ms: the length of a step, to say what share of it would wait.
        clock: the time in seconds; tests pass their own.

    Raises:
        ConfigError: batches are cut in another way, or the table is too small to measure.
        DataError: something in the table cannot be trained on.
    """
    if job.config.reader.batches != "samples":
        raise ConfigError(
            f"reader.batches={job.config.reader.batches}: costs are measured on a model, so that reading alone has "
            "none; add reader.batches=samples"
        )
    alone = Ranks(0, 1, 0, 1, torch.device("cpu"))
    began_s = clock()
    with closing(build.build_loader(job, alone, job.transforms.fit(job.table))) as loader:
        batches = _epochs(loader)
        next(batches)
        first_s = clock() - began_s
        for _ in range(_WARM_BATCHES):
            next(batches)
        loader.pace.take()
        found = _measure(loader, batches, seconds, clock)
    of_files = round(job.manifest.num_bytes * found.num_samples / max(job.manifest.num_samples, 1))
    return replace(found, first_batch_s=first_s, step_ms=step_ms, table_bytes=of_files)


def _measure(loader: Loader, batches: Iterator[Batch], seconds: float, clock: Callable[[], float]) -> ReaderSpeed:
    """Reads for some seconds."""
    rows: dict[str, int] = {}
    began_s, samples, ids, num_bytes = clock(), 0, 0, 0
    while (elapsed_s := clock() - began_s) < seconds:
        batch = next(batches)
        samples, ids = samples + batch.batch_size, ids + int(batch.sparse.value_offsets[-1])
        num_bytes += batch_bytes(batch)
        for group in batch.sparse.groups:
            rows[group.name] = rows.get(group.name, 0) + group.num_rows
    pace: Pace = loader.pace.take()
    factors = {g: samples / n for g, n in rows.items() if g != SAMPLE and n}
    return ReaderSpeed(
        first_batch_s=math.nan,
        elapsed_s=elapsed_s,
        num_batches=pace.num_batches,
        num_samples=samples,
        num_ids=ids,
        epochs=loader.epoch + 1,
        batch_bytes=num_bytes,
        table_bytes=0,
        dedup_factor=factors,
        stage_s={stage: pace.seconds[stage] for stage in STAGES},
        skipped=dict(loader.counts),
    )


def _epochs(loader: Loader) -> Iterator[Batch]:
    """Batch after batch, epoch after epoch."""
    while True:
        yield from loader
        loader.start_epoch(loader.epoch + 1)


def batch_bytes(batch: Batch) -> int:
    """Bytes of a batch's tensors."""
    sparse = batch.sparse
    tensors = [sparse.values, sparse.lengths, sparse.inverse, sparse.weights, batch.labels, *batch.dense.values()]
    tensors += [batch.sample_ids, batch.request_ids, batch.session_ids]
    return sum(tensor.nbytes for tensor in tensors if tensor is not None)
