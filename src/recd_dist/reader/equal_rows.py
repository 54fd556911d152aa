"""Finds the equal rows of a group among the samples of a unit: by neighbours, or also by hash.

::

    rows            A  A  B  A  A  C          all features of the group, bit for bit
    changed         1  0  1  1  0  1          each row compared with the one before it
    by neighbours   0  0  1  2  2  3          the stored row of each sample
    by hash         0  0  1  0  0  2          the first rows of runs that are equal, too

Neighbours find what there is in clustered rows, at more than half of the speed of a copy. In rows by time the same user
comes back later: there the first row of each run is hashed, and two rows of one hash are compared, value for value. Two
different rows of one hash stay two rows; a row like the second that comes later may then be kept twice. Nothing is ever
equal by its hash alone.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from recd_dist.table.column import Array, Column
from recd_dist.table.flat_columns import Flags, bits
from recd_dist.table.hash import GOLDEN, MIX_1
from recd_dist.table.loops import jit, scramble_one

Rows = npt.NDArray[np.int64]


def flag_changed_rows(columns: Sequence[Column]) -> Flags:
    """Flags the rows that differ from the row before in any column; the first is always flagged.

    Args:
        columns: the features of a group, N rows each.

    Returns:
        bool [N].
    """
    changed = np.zeros(len(columns[0]), np.bool_)
    changed[:1] = True
    for column in columns:
        values = bits(column.values)
        if column.offsets is None:
            _flag_numbers(values, changed)
            continue
        _flag_lists(values, column.offsets, changed)
        if column.weights is not None:
            _flag_lists(bits(column.weights), column.offsets, changed)
    return changed


def find_equal_rows(columns: Sequence[Column], by_hash: bool) -> tuple[Array, Rows]:
    """Finds the distinct rows of a group.

    Args:
        columns: the features of the group, N rows each.
        by_hash: look for equal rows beyond the neighbour, too.

    Returns:
        int32 [N], for each sample the place of its row among the distinct ones; and int64 [U], the samples with which
        the distinct rows begin.
    """
    changed = flag_changed_rows(columns)
    first = np.flatnonzero(changed)
    run_of_sample = np.cumsum(changed, dtype=np.int32) - np.int32(1)
    if not by_hash or len(first) < 2:
        return run_of_sample, first
    representative = _find_representatives(columns, first)
    is_own = representative == np.arange(len(first))
    row_of_run = (np.cumsum(is_own) - 1).astype(np.int32)[representative]
    return row_of_run[run_of_sample], first[is_own]


def _find_representatives(columns: Sequence[Column], rows: Rows) -> Rows:
    """For each of some rows the first of them that equals it, by its place among them; int64 [n]."""
    hashes = np.zeros(len(rows), np.uint64)
    for number, column in enumerate(columns):
        seed = np.uint64(number * 2 + 1)
        if column.offsets is None:
            _hash_numbers(bits(column.values), rows, seed, hashes)
            continue
        _hash_lists(bits(column.values), column.offsets, rows, seed, hashes)
        if column.weights is not None:
            _hash_lists(bits(column.weights), column.offsets, rows, seed + np.uint64(1), hashes)
    size = 1 << max(len(rows) * 2 - 1, 1).bit_length()
    candidate = np.empty(len(rows), np.int64)
    _find_candidates(hashes, np.full(size, -1, np.int64), candidate)
    differs = np.zeros(len(rows), np.bool_)
    for column in columns:
        if column.offsets is None:
            values = column.values if column.values.dtype.kind == "i" else bits(column.values)
            differs |= values[rows] != values[rows[candidate]]
            continue
        _compare_lists(bits(column.values), column.offsets, rows, candidate, differs)
        if column.weights is not None:
            _compare_lists(bits(column.weights), column.offsets, rows, candidate, differs)
    return np.where(differs, np.arange(len(rows)), candidate)


@jit
def _flag_numbers(values: Array, changed: Flags) -> None:
    for i in range(1, len(values)):
        changed[i] |= values[i] != values[i - 1]


@jit
def _flag_lists(values: Array, offsets: Array, changed: Flags) -> None:
    for i in range(1, len(changed)):
        if changed[i]:
            continue
        before, start, end = np.int64(offsets[i - 1]), np.int64(offsets[i]), np.int64(offsets[i + 1])
        length = end - start
        if length != start - before:
            changed[i] = True
            continue
        # Slices and no early exit: both are what lets the loop run in vectors, 9 times as fast.
        current, previous, differs = values[start:end], values[before:start], np.int8(0)
        for j in range(length):
            differs |= np.int8(current[j] != previous[j])
        changed[i] = differs != 0


@jit
def _hash_numbers(values: Array, rows: Rows, seed: np.uint64, hashes: Array) -> None:
    for i in range(len(rows)):
        hashes[i] = scramble_one(hashes[i] * MIX_1 + np.uint64(values[rows[i]]) + seed * GOLDEN)


@jit
def _hash_lists(values: Array, offsets: Array, rows: Rows, seed: np.uint64, hashes: Array) -> None:
    """Adds to the hash of each row one of a list: a sum of products with odd factors that depend on the place."""
    for i in range(len(rows)):
        start, end = np.int64(offsets[rows[i]]), np.int64(offsets[rows[i] + 1])
        row, total = values[start:end], np.uint64(end - start)
        for j in range(end - start):
            mixed = (np.uint64(row[j]) ^ (np.uint64(j) * MIX_1)) * (np.uint64(j) * GOLDEN | np.uint64(1))
            total += mixed ^ (mixed >> np.uint64(32))
        hashes[i] = scramble_one(hashes[i] * MIX_1 + total + seed * GOLDEN)


@jit
def _find_candidates(hashes: Array, slots: Array, candidate: Rows) -> None:
    """For each hash the place of the first one like it; slots: int64 of -1, a power of 2 of them, twice as many."""
    mask = np.uint64(len(slots) - 1)
    for i in range(len(hashes)):
        slot = hashes[i] & mask
        while slots[slot] >= 0 and hashes[slots[slot]] != hashes[i]:
            slot = (slot + np.uint64(1)) & mask
        if slots[slot] < 0:
            slots[slot] = i
        candidate[i] = slots[slot]


@jit
def _compare_lists(values: Array, offsets: Array, rows: Rows, candidate: Rows, differs: Flags) -> None:
    for i in range(len(rows)):
        if candidate[i] == i or differs[i]:
            continue
        row, other = rows[i], rows[candidate[i]]
        start, before = np.int64(offsets[row]), np.int64(offsets[other])
        length = np.int64(offsets[row + 1]) - start
        if length != np.int64(offsets[other + 1]) - before:
            differs[i] = True
            continue
        own, others, is_other = values[start : start + length], values[before : before + length], np.int8(0)
        for j in range(length):
            is_other |= np.int8(own[j] != others[j])
        differs[i] = is_other != 0
