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

from recd_dist.table.addresses import address_of
from recd_dist.table.column import Array, Column
from recd_dist.table.flat_columns import Flags
from recd_dist.table.hash import GOLDEN, MIX_1
from recd_dist.table.loops import jit, load_int32, load_int64, load_offset, scramble_one

Rows = npt.NDArray[np.int64]

_BLOCK = 64
"""Words of 8 bytes that are compared before one looks whether they differ."""
_HALF, _USED_BITS = np.uint64(0xFFFFFFFF), np.uint64(0xFFFFFFFFFFFFFFFF)


def flag_changed_rows(columns: Sequence[Column]) -> Flags:
    """Flags the rows that differ from the row before in any column; the first is always flagged.

    Args:
        columns: the features of a group, N rows each.

    Returns:
        bool [N].
    """
    changed = np.zeros(len(columns[0]), np.bool_)
    changed[:1] = True
    arrays, _owners = _arrays_of(columns)
    _flag_rows(arrays, changed)
    return changed


def _arrays_of(columns: Sequence[Column]) -> tuple[Array, list[Array]]:
    """Where the values and weights of columns lie, and what keeps them.

    For each int64: its address, bytes of a value, the address of its offsets (0 for single values), and bytes of an
    offset. Single values stand first, since they are the cheapest to compare.
    """
    arrays, owners = list[tuple[int, int, int, int]](), list[Array]()
    for column in sorted(columns, key=lambda column: column.offsets is not None):
        offsets = None if column.offsets is None else np.ascontiguousarray(column.offsets)
        of_offsets = (0, 0) if offsets is None else (address_of(offsets), offsets.itemsize)
        for numbers in (column.values, column.weights):
            if numbers is not None:
                values = np.ascontiguousarray(numbers)
                owners += [values] if offsets is None else [values, offsets]
                arrays.append((address_of(values), values.itemsize, *of_offsets))
    return np.array(arrays, np.int64).reshape(-1, 4), owners


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
    is_own = representative == np.arange(len(first), dtype=np.int32)
    row_of_run = (np.cumsum(is_own, dtype=np.int32) - np.int32(1))[representative]
    return row_of_run[run_of_sample], first[is_own]


def _find_representatives(columns: Sequence[Column], rows: Rows) -> Array:
    """For each of some rows the first of them that equals it, by its place among them; int32 [n]."""
    arrays, _owners = _arrays_of(columns)
    slots = np.full(1 << max(len(rows) * 2 - 1, 1).bit_length(), -1, np.int32)
    representative = np.empty(len(rows), np.int32)
    _find_first_equals(arrays, rows, _USED_BITS, np.empty(len(rows), np.uint64), slots, representative)
    return representative


@jit
def _flag_rows(arrays: Array, changed: Flags) -> None:
    """Flags the rows that differ from the row before."""
    for k in range(len(arrays)):
        values, item, offsets, size = arrays[k, 0], arrays[k, 1], arrays[k, 2], arrays[k, 3]
        if not offsets:
            if item == 4:
                for i in range(1, len(changed)):
                    changed[i] |= load_int32(values, i) != load_int32(values, i - 1)
            else:
                for i in range(1, len(changed)):
                    changed[i] |= load_int64(values, i) != load_int64(values, i - 1)
            continue
        before, start = 0, load_offset(offsets, size, 0)
        end = load_offset(offsets, size, 1)
        for i in range(1, len(changed)):
            before, start, end = start, end, load_offset(offsets, size, i + 1)
            if not changed[i]:
                length = end - start
                changed[i] = length != start - before or _differ(
                    values + before * item, values + start * item, length * item
                )


@jit
def _differ(one: int, other: int, num_bytes: int) -> bool:
    """Whether bytes differ, a multiple of 4 of them."""
    words, place = num_bytes >> 3, 0
    while place < words:
        # No exit inside a block: that is what lets the loop run in vectors.
        end, differs = min(words, place + _BLOCK), np.int64(0)
        for j in range(place, end):
            differs |= load_int64(one, j) ^ load_int64(other, j)
        if differs:
            return True
        place = end
    return num_bytes & 4 != 0 and load_int32(one, 2 * words) != load_int32(other, 2 * words)


@jit
def _find_first_equals(
    arrays: Array, rows: Rows, used_bits: np.uint64, hashes: Array, slots: Array, representative: Array
) -> None:
    """Finds for each row the first one of its hash, if it equals it, by its place among the rows; else itself.

    A row is compared while it is near: its bytes were just hashed.

    Args:
        arrays: see ``_arrays_of``.
        rows: int64 [n].
        used_bits: those of the hash that count.
        hashes: uint64 [n], receives them.
        slots: int32 of -1, a power of 2 of them, at least twice as many as rows.
        representative: int32 [n], receives the places.
    """
    mask = np.uint64(len(slots) - 1)
    for i in range(len(rows)):
        total = np.uint64(0)
        for k in range(len(arrays)):
            address, num_bytes = _bytes_of(arrays, k, rows[i])
            total = scramble_one(total * MIX_1 + _hash_bytes(address, num_bytes) + np.uint64(k + 1) * GOLDEN)
        total &= used_bits
        slot = total & mask
        while slots[slot] >= 0 and hashes[slots[slot]] != total:
            slot = (slot + np.uint64(1)) & mask
        hashes[i], representative[i] = total, i
        if slots[slot] < 0:
            slots[slot] = i
        else:
            first, is_equal = slots[slot], True
            for k in range(len(arrays)):
                address, num_bytes = _bytes_of(arrays, k, rows[i])
                other, other_bytes = _bytes_of(arrays, k, rows[first])
                if num_bytes != other_bytes or _differ(address, other, num_bytes):
                    is_equal = False
                    break
            if is_equal:
                representative[i] = first


@jit
def _bytes_of(arrays: Array, number: int, row: int) -> tuple[int, int]:
    """The address of a row's part of an array, and its bytes."""
    values, item, offsets, size = arrays[number, 0], arrays[number, 1], arrays[number, 2], arrays[number, 3]
    if not offsets:
        return values + row * item, item
    start, end = load_offset(offsets, size, row), load_offset(offsets, size, row + 1)
    return values + start * item, (end - start) * item


@jit
def _hash_bytes(address: int, num_bytes: int) -> np.uint64:
    """A hash of bytes, a multiple of 4 of them: the halves of each 8, with a key of their place, multiplied (NH).

    A product of halves is one instruction for four words, which one of 64 bits is not.
    """
    words = num_bytes >> 3
    total, key = np.uint64(num_bytes), GOLDEN
    for j in range(words):
        word = np.uint64(load_int64(address, j)) ^ key
        total += (word & _HALF) * (word >> np.uint64(32)) + word
        key += GOLDEN
    if num_bytes & 4:
        word = np.uint64(load_int32(address, 2 * words)) ^ key
        total += (word & _HALF) * (word >> np.uint64(32)) + word
    return total
