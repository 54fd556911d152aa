"""How often rows repeat, read from the keys and row numbers of a table's samples.

::

    session        5  5  5  9 | 3  3        two parts
    history_row    0  0  1  1 | p  p        p: the first row of the second part

    neighbours in a session             3    (5 5), (5 5), (3 3)
    neighbours with the same row        2    (0 0), (p p): d is 2/3
    unique rows in batches of 3         4    (0 0 1) (1) (p p): a batch ends with its part, and row 1 counts twice

Only int64 keys, row numbers and labels are read; no list is decoded.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recd_dist.table.location import Location
from recd_dist.table.manifest import Manifest
from recd_dist.table.schema import REQUEST_ID, SESSION_ID, TIMESTAMP
from recd_dist.table.stats.disk import open_file

BATCH_SIZES = (512, 2048, 4096)
"""Batch sizes at which dedup factors are measured."""

SESSION_BATCH = 4096
"""Samples of the batches in which samples per session are counted."""

I64 = NDArray[np.int64]


@dataclass(frozen=True)
class Spread:
    """Mean, median and largest of a count."""

    mean: float
    median: float
    max: int

    @staticmethod
    def of(counts: I64) -> "Spread":
        """The spread of some counts, int64 [n]; zeros where there are none."""
        if not len(counts):
            return Spread(0.0, 0.0, 0)
        return Spread(float(counts.mean()), float(np.median(counts)), int(counts.max()))


@dataclass(frozen=True)
class RowRepeats:
    """How often the rows of one group repeat.

    Attributes:
        num_pairs: number of neighbouring samples in one session.
        num_same: number of these neighbours that have the same row.
        unique_at: batch size -> unique rows, summed over batches of that many consecutive samples.
    """

    num_pairs: int
    num_same: int
    unique_at: dict[int, int]

    @property
    def stay_rate(self) -> float:
        """Share d of the neighbours in a session that have the same row; nan without any."""
        return self.num_same / self.num_pairs if self.num_pairs else math.nan

    def add(self, rows: I64, same_session: NDArray[np.bool_]) -> "RowRepeats":
        """Counts the samples of one more part.

        Args:
            rows: int64 [N], row number of each sample. They never decrease, so that unique rows are changes.
            same_session: bool [N - 1], whether a sample and the next one are of one session.
        """
        same = rows[1:] == rows[:-1]
        changed = np.append(True, ~same)
        unique_at = {
            # A row that a batch shares with the batch before is unique in both.
            size: num_unique + int(changed.sum() + (~changed[::size]).sum())
            for size, num_unique in self.unique_at.items()
        }
        return RowRepeats(
            self.num_pairs + int(same_session.sum()), self.num_same + int((same_session & same).sum()), unique_at
        )


@dataclass(frozen=True)
class SampleKeys:
    """Keys of all samples, and how often the rows of each group repeat.

    Attributes:
        sessions, requests, times: int64 [N], session, request and timestamp of each sample in table order.
        label_means: the mean of each label, over the samples that have it.
        repeats: group -> how often its rows repeat; the group ``sample`` has no entry.
    """

    sessions: I64
    requests: I64
    times: I64
    label_means: dict[str, float]
    repeats: dict[str, RowRepeats]

    @staticmethod
    def read(table: Location, manifest: Manifest) -> "SampleKeys":
        """Reads keys, labels and row numbers of a table, one part at a time.

        Raises:
            DataError: a file is missing or cut off.
        """
        names, labels = manifest.schema.dedup_groups, manifest.schema.labels
        columns = [SESSION_ID, REQUEST_ID, TIMESTAMP, *labels, *(f"{name}_row" for name in names)]
        keys: dict[str, list[I64]] = {SESSION_ID: [], REQUEST_ID: [], TIMESTAMP: []}
        sums, counts = dict.fromkeys(labels, 0.0), dict.fromkeys(labels, 0)
        repeats = {name: RowRepeats(0, 0, dict.fromkeys(BATCH_SIZES, 0)) for name in names}
        for part in manifest.parts:
            with open_file(table, part.samples) as file:
                samples = file.read(columns)
            for name, chunks in keys.items():
                chunks.append(samples[name].to_numpy())
            for label in labels:
                values = samples[label].to_numpy()
                known = ~np.isnan(values)
                sums[label] += float(values[known].sum(dtype=np.float64))
                counts[label] += int(known.sum())
            same_session = keys[SESSION_ID][-1][1:] == keys[SESSION_ID][-1][:-1]
            for name in names:
                repeats[name] = repeats[name].add(samples[f"{name}_row"].to_numpy(), same_session)
        all_keys = {name: np.concatenate([np.empty(0, np.int64), *chunks]) for name, chunks in keys.items()}
        means = {label: total / max(counts[label], 1) for label, total in sums.items()}
        return SampleKeys(all_keys[SESSION_ID], all_keys[REQUEST_ID], all_keys[TIMESTAMP], means, repeats)

    def samples_per_session(self, in_time_order: bool) -> float:
        """Mean samples per session in batches of ``SESSION_BATCH`` consecutive samples.

        Args:
            in_time_order: sort the samples by time first; else they stay in table order.

        Returns:
            The mean; nan in time order where all timestamps are equal.
        """
        sessions = self.sessions
        if in_time_order:
            if not len(self.times) or self.times.min() == self.times.max():
                return math.nan
            sessions = sessions[np.argsort(self.times, kind="stable")]
        batches = [sessions[start : start + SESSION_BATCH] for start in range(0, len(sessions), SESSION_BATCH)]
        return len(sessions) / max(1, sum(len(np.unique(batch)) for batch in batches))


def run_lengths(*keys: I64) -> I64:
    """Lengths of the runs in which no key changes: (5 5 5 9 3 3) -> (3 1 2).

    Args:
        keys: int64 [N] each, as many keys as there are.

    Returns:
        int64 [number of runs], in order.
    """
    num = len(keys[0])
    if not num:
        return np.zeros(0, np.int64)
    changed = np.append(True, np.logical_or.reduce([key[1:] != key[:-1] for key in keys]))
    return np.diff(np.append(np.flatnonzero(changed), num))
