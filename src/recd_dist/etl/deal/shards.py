"""Samples into shards: they are read once and dealt by session.

::

    query      a1 b1 a2 c1 b2 ...        (a..c: sessions)                                    (RecD's O1)
    shard 0    a1 a2                     every sample of a session is in one shard
    shard 1    b1 b2 c1                  a shard is at most ``shard_bytes``: it is sorted in memory          (O2)
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa

from recd_dist.errors import DataError
from recd_dist.etl.deal.prepare import Preparation
from recd_dist.etl.deal.spill import BucketSizes, RunFiles, Spill
from recd_dist.etl.deal.tally import Tally
from recd_dist.files.whole_file import write_whole


class ShardSamples(Protocol):
    """The samples of one shard, wherever they lie."""

    def read_keys(self) -> pa.Table:
        """The key columns of every sample."""
        ...

    def read_samples(self) -> Iterable[pa.Table]:
        """All columns of every sample, in the order of :meth:`read_keys`, in tables one after the other."""
        ...


@dataclass(frozen=True)
class ShardInRunFiles:
    """The samples of one shard in run files.

    Attributes:
        run_files: the samples of all shards.
        buckets: the buckets of this shard.
    """

    run_files: RunFiles
    buckets: Sequence[int]

    def read_keys(self) -> pa.Table:
        """The key columns of every sample."""
        return self.run_files.read_keys(self.buckets)

    def read_samples(self) -> Iterator[pa.Table]:
        """All columns of every sample, a table for each bucket of a run file."""
        return self.run_files.read_samples(self.buckets)


@dataclass(frozen=True)
class Shards:
    """Samples in shards, and what was noted while they were read; on disk, so that a killed run finds them again.

    Attributes:
        run_files: the samples.
        tally: what was noted of all samples.
        shard_bytes: the most bytes that a piece of a shard may take in memory.
    """

    run_files: RunFiles
    tally: Tally
    shard_bytes: int

    @property
    def samples(self) -> list[ShardInRunFiles]:
        """The samples of each shard, in the order of the shards."""
        buckets_of_shards = self.run_files.sizes.group_by_shard(self.shard_bytes)
        return [ShardInRunFiles(self.run_files, buckets) for buckets in buckets_of_shards]

    def save(self, path: Path) -> None:
        """Writes a file with all that is needed beside the run files, whole or not at all."""
        value = {
            "tally": asdict(self.tally),
            "num_rows": self.run_files.sizes.num_rows.tolist(),
            "num_bytes": self.run_files.sizes.num_bytes.tolist(),
            "shard_bytes": self.shard_bytes,
        }
        write_whole(path, json.dumps(value))

    @staticmethod
    def load(path: Path, directory: Path) -> "Shards":
        """Reads what ``save`` wrote.

        Args:
            path: the file that ``save`` wrote.
            directory: the directory of the run files.
        """
        value = json.loads(path.read_text())
        sizes = BucketSizes(np.array(value["num_rows"], np.int64), np.array(value["num_bytes"], np.int64))
        return Shards(RunFiles(directory, sizes), Tally.from_json(value["tally"]), value["shard_bytes"])


def deal_samples(
    batches: Iterable[pa.RecordBatch],
    preparation: Preparation,
    directory: Path,
    *,
    buffer_bytes: int,
    shard_bytes: int,
    num_buckets: int,
    done: Callable[[int], None],
) -> Shards:
    """Reads all samples and deals them by session into run files.

    Args:
        batches: the result of the normalised samples query.
        preparation: prepares each batch.
        directory: the directory for run files, which is made here.
        buffer_bytes: the bytes of samples that are held in memory before a run file is written.
        shard_bytes: the most bytes that a piece of a shard may take in memory.
        num_buckets: the number of buckets, a power of two.
        done: called with the number of rows of each batch that is dealt.

    Raises:
        DataError: there are no samples, or one of them cannot be used.
    """
    tally = Tally()
    spill = Spill(directory, buffer_bytes, num_buckets)
    try:
        for batch in batches:
            if batch.num_rows:
                table, noted = preparation.prepare(batch, tally.num_rows)
                tally.merge(noted)
                spill.add(table)
                done(batch.num_rows)
        run_files = spill.finish()
    finally:
        spill.close()
    check_any_left(tally, int(run_files.sizes.num_rows.sum()))
    return Shards(run_files, tally, shard_bytes)


def check_any_left(tally: Tally, num_samples: int) -> None:
    """Checks that there is a sample to go on with.

    Args:
        tally: what was noted of all samples.
        num_samples: the number of samples that are left after the policies.

    Raises:
        DataError: there are no samples, before or after the policies.
    """
    if not tally.num_rows:
        raise DataError("the samples query returned no rows; check path and query")
    if not num_samples:
        left_out = ", ".join(f"{reason} {count:,}" for reason, count in tally.dropped.counts.items())
        raise DataError(f"no sample of {tally.num_rows:,} is left after the policies ({left_out}); check data.policy")
