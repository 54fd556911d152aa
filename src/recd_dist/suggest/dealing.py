"""How the ETL would deal sessions into shards, as far as keys and the size of samples tell.

::

    session   hash -> bucket -> shard      neighbours by id lie in different shards, and share no row there
"""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recd_dist.etl.deal.spill import BucketSizes, bucket_of, num_buckets
from recd_dist.etl.source.inspection import SESSION
from recd_dist.table.hash import GOLDEN

I64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Dealing:
    """The shard of each session.

    Attributes:
        shard_of_bucket: int64 [buckets], the shard to which each bucket belongs.
    """

    shard_of_bucket: I64

    @staticmethod
    def estimate(keys: I64, counts: I64, num_rows: int, sample_bytes: float, shard_bytes: int) -> "Dealing":
        """Estimates how sessions are dealt.

        Args:
            keys: int64, the session keys of the source, or a share of them.
            counts: int64, the number of samples of each of them.
            num_rows: the number of samples of the source.
            sample_bytes: mean bytes of a sample in memory.
            shard_bytes: the most bytes of a shard.
        """
        number = num_buckets(int(num_rows * sample_bytes), shard_bytes)
        in_bucket = np.bincount(bucket_of(keys, number), counts, number)
        rows = np.ceil(in_bucket * (num_rows / max(in_bucket.sum(), 1))).astype(np.int64)
        shard_of_bucket = np.zeros(number, np.int64)
        sizes = BucketSizes(rows, (rows * sample_bytes).astype(np.int64))
        for shard, buckets in enumerate(sizes.group_by_shard(shard_bytes)):
            shard_of_bucket[buckets] = shard
        return Dealing(shard_of_bucket)

    @property
    def num_shards(self) -> int:
        """Number of shards."""
        return int(self.shard_of_bucket.max()) + 1

    def shard_of(self, session: I64) -> I64:
        """The shard of each session key, int64 [N]."""
        return self.shard_of_bucket[bucket_of(session, len(self.shard_of_bucket))]

    def condition(self, shards: Collection[int]) -> str:
        """Some shards as a condition in SQL on the session key: ``bucket_of`` in numbers of 128 bits."""
        buckets = np.flatnonzero(np.isin(self.shard_of_bucket, list(shards))).tolist()
        shift = 65 - len(self.shard_of_bucket).bit_length()
        key = f"(({SESSION}::hugeint + {2**64}) % {2**64})::uhugeint"
        return f"({key} * {GOLDEN}::uhugeint % {2**64}::uhugeint) >> {shift} in ({', '.join(map(str, buckets))})"
