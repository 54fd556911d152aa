"""Copies chosen rows of all features of a group into one block of memory, in two calls of compiled loops.

::

    decoded     [7 8] [7 8] [9]  |  [1] [1] [4]       a row for each sample
    rows        0 2                                   the distinct ones
    block       7 8 9, 0 2 3     |  1 4, 0 1 2        values and offsets, column after column

Ids of 64 bits become 32 bits where all of them fit: a batch then copies them as they are.
"""

from collections.abc import Mapping
from functools import partial

import numpy as np

from recd_dist.reader.row_group_columns import PlainColumn
from recd_dist.table.addresses import address_of
from recd_dist.table.column import Array, Column, Rows
from recd_dist.table.loops import copy_bytes, jit, load_int64, load_offset, store_int32

_ALIGN = 64
_VALUES, _ITEM, _OFFSETS, _OFFSET_ITEM, _OUT_ITEM = range(5)
"""Of a column: the address of its values, bytes of one, the address of its offsets (0 for single values), bytes of one,
and bytes of a value when it is copied."""


def take_columns(columns: Mapping[str, Column], rows: Array) -> tuple[dict[str, PlainColumn], dict[str, Rows]]:
    """Copies rows: the features that a batch can copy from there, and all others.

    Args:
        columns: features, N rows each.
        rows: int64 [U], the rows to copy, in rising order.
    """
    sources, owners = np.zeros((len(columns), 5), np.int64), list[object]()
    for n, column in enumerate(columns.values()):
        values = np.ascontiguousarray(column.values)
        sources[n] = address_of(values), values.itemsize, 0, 0, values.itemsize
        owners.append(values)
        if column.offsets is not None:
            offsets = np.ascontiguousarray(column.offsets)
            sources[n, _OFFSETS], sources[n, _OFFSET_ITEM] = address_of(offsets), offsets.itemsize
            owners.append(offsets)
        if values.dtype == np.int64 and column.weights is None:
            sources[n, _OUT_ITEM] = 4
    counts = np.empty(len(columns), np.int64)
    _count_values(sources, rows, counts)
    while True:
        block, values, offsets = _block_for(sources, counts, len(rows))
        wide = _copy_rows(sources, rows, values, offsets)
        if wide < 0:
            break
        sources[wide, _OUT_ITEM] = 8
    plain, others = dict[str, PlainColumn](), dict[str, Rows]()
    for n, (name, column) in enumerate(columns.items()):
        is_list, narrow = column.offsets is not None, column.values.dtype == np.int64 and sources[n, _OUT_ITEM] == 4
        dtype = np.dtype(np.int32) if narrow else column.values.dtype
        places = int(values[n]), int(offsets[n]) if is_list else 0
        of_block = partial(_column_in, block, *places, dtype, int(counts[n]), len(rows))
        if column.weights is None and dtype.itemsize == 4:
            plain[name] = PlainColumn(*places, len(rows), of_block, block)
            continue
        taken = of_block()
        if column.weights is not None:
            weights, _ = take_columns({"": Column(column.weights, column.offsets)}, rows)
            taken = Column(taken.values, taken.offsets, weights[""].rows().values)
        others[name] = taken
    return plain, others


def _block_for(sources: Array, counts: Array, num_rows: int) -> tuple[Array, Array, Array]:
    """Memory for all columns, and the addresses of the values and the offsets of each."""
    spaces = -(-counts * sources[:, _OUT_ITEM] // _ALIGN) * _ALIGN
    lists = np.where(sources[:, _OFFSETS], -(-4 * (num_rows + 1) // _ALIGN) * _ALIGN, 0)
    ends = np.cumsum(spaces + lists)
    block = np.empty((int(ends[-1]) if len(ends) else 0) + _ALIGN, np.uint8)
    values = -(-address_of(block) // _ALIGN) * _ALIGN + ends - spaces - lists
    return block, values, values + spaces


def _column_in(
    block: Array,
    values: int,
    offsets: int,
    dtype: np.dtype,
    num_values: int,
    num_rows: int,
) -> Column:
    """The rows of a column, as arrays over its block."""
    place, bounds = values - address_of(block), offsets - address_of(block)
    return Column(
        block[place : place + num_values * dtype.itemsize].view(dtype),
        block[bounds : bounds + 4 * (num_rows + 1)].view(np.int32) if offsets else None,
    )


@jit
def _count_values(sources: Array, rows: Array, counts: Array) -> None:
    """Counts the values of the chosen rows of each column."""
    for n in range(len(sources)):
        offsets, size = sources[n, _OFFSETS], sources[n, _OFFSET_ITEM]
        total = len(rows)
        if offsets:
            total = 0
            for i in range(len(rows)):
                total += load_offset(offsets, size, rows[i] + 1) - load_offset(offsets, size, rows[i])
        counts[n] = total


@jit
def _copy_rows(sources: Array, rows: Array, values: Array, offsets: Array) -> int:
    """Copies the chosen rows; returns -1, or the first column with an id that does not fit into 32 bits."""
    for n in range(len(sources)):
        source, item, bounds, size = (
            sources[n, _VALUES],
            sources[n, _ITEM],
            sources[n, _OFFSETS],
            sources[n, _OFFSET_ITEM],
        )
        narrow, place, i = item != sources[n, _OUT_ITEM], 0, 0
        while i < len(rows):
            run = i + 1
            while run < len(rows) and rows[run] == rows[run - 1] + 1:
                run += 1
            start, end = rows[i], rows[run - 1] + 1
            if bounds:
                start, end = load_offset(bounds, size, start), load_offset(bounds, size, end)
                for k in range(i, run):
                    store_int32(offsets[n], k, place + load_offset(bounds, size, rows[k]) - start)
            if narrow:
                wide = np.int64(0)
                for j in range(end - start):
                    value = load_int64(source, start + j)
                    wide |= (value >> 31) ^ (value >> 63)
                    store_int32(values[n], place + j, value)
                if wide:
                    return n
            else:
                copy_bytes(values[n] + place * item, source + start * item, (end - start) * item)
            place += end - start
            i = run
        if bounds:
            store_int32(offsets[n], len(rows), place)
    return -1
