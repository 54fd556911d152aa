"""What a proposal would save, estimated for storage, reader, wire and compute.

::

    storage   bytes of Parquet files, written with the table's own encodings and scaled to all samples
    reader    bytes that are decoded, and rows that are gathered into tensors
    wire      ids and lengths out to the embeddings, pooled vectors back
    compute   embedding rows looked up, rows pooled, keys and values of attention over histories

Storage is that of all samples. Everything else is counted in the sample and given for a batch of 4096.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recd_dist.etl.write.propose_groups import ProposedGroup
from recd_dist.suggest.batch_factors import BATCH, mark_batches
from recd_dist.suggest.features import SampledFeature
from recd_dist.suggest.sample_columns import Flags
from recd_dist.suggest.storage_bytes import StorageBytes
from recd_dist.table.stats.batch_cost import LENGTH_BYTES, VECTOR_BYTES

_WINDOW_BYTES = 8  # where a window begins in the stream
_ROW_NUMBER_BYTES = 8


@dataclass(frozen=True)
class Estimate:
    """What a proposal comes to: storage of the whole table, everything else of a batch of 4096 samples.

    Attributes:
        storage_bytes: bytes of the table's files, with windows where the ETL writes some.
        decoded_bytes: bytes that are read from disk, once decompressed.
        gathered_rows: number of rows of features that become tensors.
        ids: number of ids that are sent and looked up.
        sent_bytes: bytes of these ids and of the lengths of their lists.
        vector_bytes: bytes of the pooled vectors that come back, float32 of width ``dim``.
        pooled_rows: number of rows of ids that are pooled.
        attention_rows: number of ids in histories, for each of which attention makes a key and a value.
    """

    storage_bytes: float
    decoded_bytes: float
    gathered_rows: float
    ids: float
    sent_bytes: float
    vector_bytes: float
    pooled_rows: float
    attention_rows: float


def estimate_savings(
    groups: Sequence[ProposedGroup],
    features: Sequence[SampledFeature],
    storage: StorageBytes,
    in_time_order: bool = False,
) -> Estimate:
    """Estimates what a proposal comes to.

    Args:
        groups: the groups that are deduplicated; every other feature is in ``sample``.
        features: every feature.
        storage: measures bytes on disk.
        in_time_order: whether the table is flat and in order of time, as the logs are.
    """
    flags_of = {name: group.flags for group in groups for name in group.features}
    num_samples = len(features[0].flags)
    every = np.ones(num_samples, np.bool_)
    stored = storage.key_bytes(clustered=not in_time_order)
    spared = 0
    for feature in features:
        flags = flags_of.get(feature.name, every)
        if in_time_order:
            stored += storage.flat_bytes(feature.name)
        elif feature.name in flags_of and feature.has_windows(flags):
            stored += storage.window_bytes(feature.name, flags)
            spared += _spared_by_windows(feature, flags)
        else:
            stored += storage.row_bytes(feature.name, flags)
    numbers = sum(storage.row_number_bytes(group.flags) for group in groups)
    counts = [_count_feature(feature, flags_of.get(feature.name, every)) for feature in features]
    decoded = sum(c.decoded_bytes for c in counts) + sum(
        _ROW_NUMBER_BYTES * (num_samples + group.num_rows) for group in groups
    )
    per_batch = BATCH / num_samples
    num_pooled = sum(c.pooled_rows for c in counts)
    return Estimate(
        storage_bytes=stored + numbers,
        decoded_bytes=(decoded - spared) * per_batch,
        gathered_rows=sum(c.rows for c in counts) * per_batch,
        ids=sum(c.ids for c in counts) * per_batch,
        sent_bytes=sum(c.sent_bytes for c in counts) * per_batch,
        vector_bytes=num_pooled * VECTOR_BYTES * per_batch,
        pooled_rows=num_pooled * per_batch,
        attention_rows=sum(c.attention_rows for c in counts) * per_batch,
    )


def _spared_by_windows(feature: SampledFeature, flags: Flags) -> int:
    """Bytes of ids in the sample that need not be decoded if a history is stored as windows over a stream."""
    num_bytes = feature.num_new * feature.width + _WINDOW_BYTES * int(flags.sum())
    return max(0, feature.num_values(flags) * feature.width - num_bytes)


@dataclass(frozen=True)
class _FeatureCounts:
    """One feature over the whole sample, cut into batches; attributes as in :class:`Estimate`."""

    decoded_bytes: int
    rows: int
    ids: int
    sent_bytes: int
    pooled_rows: int
    attention_rows: int


def _count_feature(feature: SampledFeature, flags: Flags) -> _FeatureCounts:
    in_batches = mark_batches(flags, BATCH)
    num_rows, num_ids = int(in_batches.sum()), feature.num_values(in_batches)
    lengths = LENGTH_BYTES * int(flags.sum()) if feature.lengths is not None else 0
    decoded_bytes = feature.num_values(flags) * feature.width + lengths
    if not feature.feature.is_sparse:
        return _FeatureCounts(decoded_bytes, num_rows, 0, 0, 0, 0)
    sent_bytes = num_ids * feature.width + LENGTH_BYTES * num_rows
    return _FeatureCounts(decoded_bytes, num_rows, num_ids, sent_bytes, num_rows, num_ids * feature.is_history)
