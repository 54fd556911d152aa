"""Bytes that features cost as a group, and in ``sample``.

::

    cost = samples x (row number, inverse, index) + rows x (row number, lengths, values, look-ups, pooled vectors)

The cost adds up what is read, what is sent, what is looked up, and the vectors that come back.
"""

from collections.abc import Iterable, Sequence

from recd_dist.etl.write.repeating_features import RepeatingFeature
from recd_dist.table.flat_columns import Flags
from recd_dist.table.stats.batch_cost import LENGTH_BYTES, VECTOR_BYTES

SAMPLE_BYTES = 16
"""What a group costs per sample: the row number that is read (8), the inverse (4) and the index of expansion (4)."""

GROUP_BYTES = 300
"""What a group must save per sample to stand alone. A batch of 4096 then saves a megabyte, which is about what one more
set of files, kernels and messages costs. A single id saves 292 bytes at most. Groups that save less join another group,
or stay in ``sample``."""

ROW_BYTES = 8
"""What a group costs per row: the number of the row."""

LOOKUP_BYTES = VECTOR_BYTES // 8
"""What the look-up of an id costs: a vector is read from memory about eight times as fast as it is sent."""


def group_cost(features: Sequence[RepeatingFeature], flags: Flags) -> float:
    """Bytes that a group of features costs over all samples.

    Args:
        features: the features of the group.
        flags: bool [N], whether a stored row begins with a sample.
    """
    values = sum(feature.num_stored(flags) * _value_bytes(feature) for feature in features)
    return SAMPLE_BYTES * len(flags) + values + int(flags.sum()) * (ROW_BYTES + row_overhead(features))


def cost_in_sample(features: Sequence[RepeatingFeature]) -> float:
    """Bytes that features cost over all samples if they stay in ``sample``, with a row for each sample."""
    num_samples = len(features[0].flags)
    values = sum(feature.num_values() * _value_bytes(feature) for feature in features)
    return float(values + num_samples * row_overhead(features))


def row_overhead(features: Iterable[RepeatingFeature]) -> int:
    """Bytes of the lengths and pooled vectors of one row."""
    return sum(
        (LENGTH_BYTES if feature.lengths is not None else 0) + (VECTOR_BYTES if feature.feature.is_sparse else 0)
        for feature in features
    )


def _value_bytes(feature: RepeatingFeature) -> int:
    """Bytes of one value and of its look-up."""
    return feature.width + (LOOKUP_BYTES if feature.feature.is_sparse else 0)
