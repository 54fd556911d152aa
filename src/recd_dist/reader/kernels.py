"""Compiled loops that find the distinct rows of a batch and gather their values.

They take writable arrays only, since a read-only one would be compiled a second time. ``table.loops.gather_slices``
gathers by slices; here the rows' own offsets do, so that a batch, the hot path, needs no array of starts and offsets.
"""

import numpy as np

from recd_dist.table.column import Array
from recd_dist.table.loops import jit, splitmix64_one


@jit
def find_unique_rows(
    row_of_sample: Array, picked: Array, seen: Array, shift: int, unique: Array, inverse: Array
) -> int:
    """Finds the distinct rows of some samples, in order of first appearance.

    Args:
        row_of_sample: int32 [N], the stored row of each sample.
        picked: int64 [B], places of the samples to take.
        seen: int32 [stored rows], all -1 before and after.
        shift: added to what is written to inverse.
        unique: int32 [at least min(B, stored rows)], receives the distinct rows.
        inverse: int32 [B], receives for each sample the place of its row among the distinct ones.

    Returns:
        U, the number of distinct rows.
    """
    size = 0
    for i in range(len(picked)):
        row = row_of_sample[picked[i]]
        if seen[row] < 0:
            seen[row] = size
            unique[size] = row
            size += 1
        inverse[i] = seen[row] + shift
    for i in range(size):
        seen[unique[i]] = -1
    return size


@jit
def gather_lengths(offsets: Array, rows: Array, lengths: Array) -> int:
    """Writes the lengths of some rows.

    Args:
        offsets: int64 [stored rows + 1], where each row begins.
        rows: int32 or int64 [R], the rows to take.
        lengths: int32 [R], receives their lengths.

    Returns:
        Sum of the lengths.
    """
    total = 0
    for i in range(len(rows)):
        length = offsets[rows[i] + 1] - offsets[rows[i]]
        lengths[i] = length
        total += length
    return total


@jit
def gather_lists(values: Array, offsets: Array, rows: Array, out: Array) -> int:
    """Writes the values of some rows, row after row (RecD's O6, JaggedIndexSelect).

    Args:
        values: [V], ids or weights.
        offsets: int64 [stored rows + 1], where each row begins in values.
        rows: int32 or int64 [R], the rows to take.
        out: receives their values from its beginning on.

    Returns:
        Number of values that were written.
    """
    place = 0
    for i in range(len(rows)):
        start = offsets[rows[i]]
        length = offsets[rows[i] + 1] - start
        for j in range(length):
            out[place + j] = values[start + j]
        place += length
    return place


@jit
def gather_scalars(values: Array, rows: Array, out: Array) -> None:
    """Writes the one value of each of some rows.

    Args:
        values: [stored rows].
        rows: int32 or int64 [R], the rows to take.
        out: [R], receives their values.
    """
    for i in range(len(rows)):
        out[i] = values[rows[i]]


@jit
def hash_ids(ids: Array, num_embeddings: int, out: Array) -> None:
    """Maps ids into [0, num_embeddings): splitmix64, then modulo.

    Args:
        ids: int64 [V].
        num_embeddings: rows of the embedding table.
        out: int64 [V], receives the rows; may be ids.
    """
    for i in range(len(ids)):
        out[i] = np.int64(splitmix64_one(np.uint64(ids[i])) % np.uint64(num_embeddings))
