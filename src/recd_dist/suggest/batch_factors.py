"""Samples per unique row in batches, in the table's order and in order of time.

::

    flags              1 0 0 1 0 0 0 0        two rows: a a a b b b b b
    batches of 4       a a a b | b b b b      8 samples, 3 unique rows: b counts in both batches
    in order of time   a b b a | b b a b      8 samples, 4 unique rows
"""

import numpy as np

from recd_dist.suggest.sample_columns import I64, Flags

BATCH = 4096
"""Samples in one rank's batch, for which reader, wire and compute are counted."""

CURVE_BATCH_SIZES = (512, 1024, 2048, 4096, 8192, 16384, 32768, 65536)
"""Batch sizes of the curves of factors."""


def mark_batches(flags: Flags, batch_size: int) -> Flags:
    """Flags with every first sample of a batch added: a row that goes on in the next batch is unique in both.

    Args:
        flags: bool [N], whether a row begins with a sample.
        batch_size: number of samples in a batch.
    """
    marked = flags.copy()
    marked[::batch_size] = True
    return marked


def clustered_factor(flags: Flags, batch_size: int) -> float | None:
    """Samples per unique row in batches of the table.

    Args:
        flags: bool [N], whether a row begins with a sample, in clustered order.
        batch_size: number of samples in a batch.

    Returns:
        The factor; None for a batch larger than the sample.
    """
    if batch_size > len(flags):
        return None
    return len(flags) / int(mark_batches(flags, batch_size).sum())


def time_order_factor(flags: Flags, time_rank: I64, batch_size: int, share: float) -> float | None:
    """Samples per unique row in batches in order of time, where rows that the table stores once count once.

    Args:
        flags: bool [N], whether a row begins with a sample, in clustered order.
        time_rank: int64 [N], position of each sample in time.
        batch_size: number of samples in a batch of the whole log; ``batch_size * share`` of them are in the sample.
        share: share of the samples that were read, from 0 to 1.

    Returns:
        The factor; None for a batch larger than the sample.
    """
    num_in_batch = max(1, round(batch_size * share))
    if num_in_batch > len(flags):
        return None
    row = np.cumsum(flags)
    pairs = np.sort(row * (len(flags) // num_in_batch + 1) + time_rank // num_in_batch)
    return len(flags) / (1 + int((pairs[1:] != pairs[:-1]).sum()))
