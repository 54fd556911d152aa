"""Which samples were trained: ids are recorded and counted, across kills and resumes.

::

    RUN/seen/attempt-0000-from-step-00000000/rank-00000.bin    killed at step 130
             attempt-0001-from-step-00000100/rank-00000.bin    resumed from the checkpoint of step 100

A record is int64 [MAGIC, epoch, step, n, crc32 of the ids] followed by n sample ids. An attempt that starts at step k
undoes the steps above k of every earlier attempt, as the checkpoint does: of each attempt only the records up to the
smallest start of a later attempt count. A record that was torn by a kill ends its file.
"""

import logging
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import torch.distributed as dist
from numpy.typing import NDArray

from recd_dist.errors import DataError

logger = logging.getLogger(__name__)

_MAGIC = 0x5EE45EE4
_NUM_HEADER = 5
_ATTEMPT = re.compile(r"attempt-(\d+)-from-step-(\d+)\Z")


class SeenRecords:
    """Writes the ids of the samples that a rank has trained. Opening it is a collective: the ranks agree on a number.

    Call ``flush`` before each checkpoint: what a kill then destroys lies above the checkpoint and is trained again.

    Args:
        run_dir: the directory of the run, which all ranks can write.
        start_step: steps that are done when this attempt starts: 0, or the step of the checkpoint that it resumes from.
        flush_every: steps between two flushes.
    """

    def __init__(self, run_dir: Path, start_step: int, flush_every: int = 50) -> None:
        rank = dist.get_rank() if dist.is_initialized() else 0
        agreed = [len(_attempts(run_dir)) if rank == 0 else 0]
        if dist.is_initialized() and dist.get_world_size() > 1:
            dist.broadcast_object_list(agreed, src=0)
        directory = run_dir / "seen" / f"attempt-{agreed[0]:04d}-from-step-{start_step:08d}"
        directory.mkdir(parents=True, exist_ok=True)
        self._file = (directory / f"rank-{rank:05d}.bin").open("wb", buffering=1 << 20)
        self._flush_every = flush_every
        self._num_steps = 0

    def append(self, epoch: int, step: int, sample_ids: NDArray[np.int64]) -> None:
        """Records a batch that was trained.

        Args:
            epoch: number of the epoch, from 0.
            step: number of the step; the first step of this attempt is ``start_step + 1``.
            sample_ids: ids of the samples of this rank's batch, int64 [B].
        """
        ids = np.ascontiguousarray(sample_ids, dtype=np.int64)
        header = np.array([_MAGIC, epoch, step, len(ids), zlib.crc32(ids.tobytes())], dtype=np.int64)
        self._file.write(header.tobytes())
        self._file.write(ids.tobytes())
        self._num_steps += 1
        if self._num_steps % self._flush_every == 0:
            self._file.flush()

    def flush(self) -> None:
        """Hands all records to the operating system, so that they survive a kill of this process."""
        self._file.flush()

    def close(self) -> None:
        """Flushes and closes."""
        self._file.close()

    def __enter__(self) -> "SeenRecords":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True)
class EpochCount:
    """How often the samples of a table were trained in one epoch.

    Attributes:
        epoch: number of the epoch, from 0.
        num_samples: samples of the table.
        num_never, num_once, num_more: samples that were trained 0 times, once, and twice or more; they add up to
            ``num_samples``.
    """

    epoch: int
    num_samples: int
    num_never: int
    num_once: int
    num_more: int

    @property
    def is_exact(self) -> bool:
        """Whether every sample was trained exactly once."""
        return self.num_once == self.num_samples


def count_trained(
    run_dir: Path, samples: int | Sequence[tuple[int, int]], *, is_stream: bool = False
) -> list[EpochCount]:
    """Counts, epoch by epoch, how often each sample was trained by the steps that count.

    Args:
        run_dir: the directory of the run.
        samples: number N of samples of the table, whose ids are 0..N-1; or intervals of ids, where parts were replaced.
        is_stream: count all epochs as one, since each has other samples.

    Raises:
        DataError: there are no records, or an id lies outside the table.
    """
    attempts = _attempts(run_dir)
    if not attempts:
        raise DataError(f"{run_dir}/seen: no records of trained samples; train with record_samples=true")
    intervals = [(0, samples)] if isinstance(samples, int) else samples
    there = np.zeros(max((end for _, end in intervals), default=0), bool)
    for start, end in intervals:
        there[start:end] = True
    times: dict[int, NDArray[np.int64]] = {}
    for i, (_, directory) in enumerate(attempts):
        last_step = min((start for start, _ in attempts[i + 1 :]), default=None)
        for path in sorted(directory.glob("rank-*.bin")):
            for epoch, step, ids in _records(path):
                if last_step is not None and step > last_step:
                    continue
                if len(ids) and (ids.min() < 0 or ids.max() >= len(there) or not there[ids].all()):
                    raise DataError(
                        f"{path}: step {step}: sample ids {ids.min()}..{ids.max()} leave the table of {there.sum()} "
                        "samples; name the table that was trained on"
                    )
                number = 0 if is_stream else epoch
                times.setdefault(number, np.zeros(len(there), np.int64))
                times[number] += np.bincount(ids, minlength=len(there))
    return [_epoch_count(epoch, times[epoch][there]) for epoch in sorted(times)]


def _epoch_count(epoch: int, times: NDArray[np.int64]) -> EpochCount:
    never, once = int((times == 0).sum()), int((times == 1).sum())
    return EpochCount(epoch, len(times), never, once, len(times) - never - once)


def _attempts(run_dir: Path) -> list[tuple[int, Path]]:
    """(start step, directory) of every attempt, in order."""
    matches = [(m, p) for p in (run_dir / "seen").glob("attempt-*") if (m := _ATTEMPT.match(p.name))]
    return [(int(m[2]), p) for m, p in sorted(matches, key=lambda mp: int(mp[0][1]))]


def _records(path: Path) -> list[tuple[int, int, NDArray[np.int64]]]:
    """The (epoch, step, ids) of every whole record of a file; what follows a torn record is dropped."""
    data = path.read_bytes()
    words = np.frombuffer(data, np.int64, count=len(data) // 8)
    records, at = [], 0
    while at + _NUM_HEADER <= len(words):
        magic, epoch, step, num_ids, crc = (int(w) for w in words[at : at + _NUM_HEADER])
        ids = words[at + _NUM_HEADER : at + _NUM_HEADER + max(num_ids, 0)]
        if magic != _MAGIC or len(ids) != num_ids or zlib.crc32(ids.tobytes()) != crc:
            break
        records.append((epoch, step, ids))
        at += _NUM_HEADER + num_ids
    if at * 8 != len(data):
        logger.info("%s: the last record is torn (the process was killed); it does not count", path)
    return records
