"""Transforms of single values: what becomes of a value depends on the value alone.

They touch ``values`` only, so that where lists are windows over shared values, each value is transformed once.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from recd_dist.reader import vocabulary_file
from recd_dist.table.column import Rows


def hash_ids(rows: Rows, n: int) -> Rows:
    """Maps ids, negative ones too, into [0, n): splitmix64, then modulo. Distinct ids may share a row."""
    from recd_dist.reader import kernels  # loads numba, which the check before a job does without

    ids = rows.values.astype(np.int64)
    kernels.hash_ids(ids, n, ids)
    return replace(rows, values=ids)


def modulus(rows: Rows, n: int) -> Rows:
    """The remainder of ids divided by n, in [0, n) for negative ones too: -1 becomes n - 1, as Python's % has it."""
    return replace(rows, values=rows.values.astype(np.int64) % n)


def clamp(rows: Rows, min: float | None = None, max: float | None = None) -> Rows:
    """Raises numbers or ids below min to min, and lowers those above max to max."""
    return replace(rows, values=np.clip(rows.values, min, max).astype(rows.values.dtype))


def log(rows: Rows) -> Rows:
    """The natural logarithm of 1 + |x| with the sign of x: counts and prices on a readable scale.

    It is computed in float64, so that it does not depend on the instructions that a processor has.
    """
    logarithms = np.log1p(np.abs(rows.values, dtype=np.float64))
    return replace(rows, values=np.copysign(logarithms, rows.values).astype(rows.values.dtype))


def bucketize(rows: Rows, boundaries: Sequence[float]) -> Rows:
    """The number of boundaries that are at most the value. Ids stay ids, dense numbers stay float32."""
    buckets = np.searchsorted(np.asarray(boundaries), rows.values, side="right")
    return replace(rows, values=buckets.astype(rows.values.dtype))


def standardize(rows: Rows, mean: float, std: float) -> Rows:
    """(x - mean) / std. Where a config leaves them out, ``Transforms.fit`` takes both from the training table."""
    return replace(rows, values=((rows.values - np.float32(mean)) / np.float32(std or 1.0)).astype(np.float32))


def min_max(rows: Rows, min: float, max: float) -> Rows:
    """(x - min) / (max - min), so that the numbers of the training table lie in [0, 1]; 0 where they are all equal.

    Numbers beyond those of the training table go beyond [0, 1]; put a ``clamp`` after it where a model minds.
    """
    return replace(rows, values=((rows.values - np.float32(min)) / np.float32(max - min or 1.0)).astype(np.float32))


def look_up(rows: Rows, file: str, column_name: str | None, text: bool, sha256: str, size: int) -> Rows:
    """The place of each value in a vocabulary, from 1 on; 0 for one that it does not have."""
    del size
    vocabulary = vocabulary_file.load(file, column_name, text, sha256)
    return replace(rows, values=vocabulary.places(rows.values))
