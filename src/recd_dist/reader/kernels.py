"""The loops that make a batch: distinct rows, and their lengths and values gathered by row number.

They take writable arrays only, since a read-only one would be compiled a second time. ``table.loops.gather_slices``
gathers by slices; here the rows' own offsets do, so that a batch, the hot path, needs no array of starts and offsets.
"""

import numpy as np

from recd_dist.table.column import Array
from recd_dist.table.loops import jit, splitmix64_one


@jit
def unique_rows(rows: Array, picked: Array, seen: Array, shift: int, first: Array, inverse: Array) -> int:
    """The distinct rows of some samples, in order of first appearance.

    Args:
        rows: int32 [N], the stored row of each sample of the window.
        picked: int64 [B], the samples.
        seen: int32 [rows of the window], all -1 before and after.
        shift: added to what is written to inverse.
        first: int32 [at least min(B, rows)], receives the distinct rows.
        inverse: int32 [B], receives each sample's place among them.

    Returns:
        U.
    """
    size = 0
    for i in range(len(picked)):
        row = rows[picked[i]]
        if seen[row] < 0:
            seen[row] = size
            first[size] = row
            size += 1
        inverse[i] = seen[row] + shift
    for i in range(size):
        seen[first[i]] = -1
    return size


@jit
def gather_lengths(offsets: Array, rows: Array, lengths: Array) -> int:
    """Writes the lengths of some rows (int32) and returns their sum."""
    total = 0
    for i in range(len(rows)):
        length = offsets[rows[i] + 1] - offsets[rows[i]]
        lengths[i] = length
        total += length
    return total


@jit
def gather_lists(values: Array, offsets: Array, rows: Array, out: Array) -> int:
    """Writes the values of some rows, row after row (RecD's O6, JaggedIndexSelect), and returns how many."""
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
    """Writes the one value of each of some rows."""
    for i in range(len(rows)):
        out[i] = values[rows[i]]


@jit
def hash_ids(ids: Array, num_embeddings: int, out: Array) -> None:
    """Maps int64 ids into [0, num_embeddings): splitmix64, then modulo; out may be ids."""
    for i in range(len(ids)):
        out[i] = np.int64(splitmix64_one(np.uint64(ids[i])) % np.uint64(num_embeddings))
