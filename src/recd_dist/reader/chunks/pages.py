"""Compiled loops over the pages of column chunks: which there are, and all of them decoded in one call."""

import numpy as np

from recd_dist.reader.chunks.encodings import PLAIN, PLAIN_DICTIONARY, decode_values, find_zeros
from recd_dist.reader.chunks.thrift import (
    COUNT,
    DATA,
    DICTIONARY,
    ENCODING,
    HEADER_END,
    KIND,
    PACKED,
    UNPACKED,
    read_page_header,
)
from recd_dist.table.column import Array
from recd_dist.table.loops import jit, load_int32, store_int32

LARGEST = 1 << 28
"""Bytes of the largest page that is unpacked: a damaged header may ask for any memory."""

COLUMN, PAGE_KIND, PAGE_COUNT, PAGE_ENCODING, PLACE, SIZE, UNPACKED_SIZE = range(7)
"""Of a page that was found: the column, its kind, values and encoding, where its bytes begin, how many they are, and
how many unpacked."""


@jit
def find_pages(buffer: int, size: int, places: Array, sizes: Array, num_values: Array, pages: Array) -> int:
    """Finds the pages of some column chunks.

    Args:
        buffer: the address of bytes of files.
        size: the number of these bytes.
        places: int64 [C], where each chunk begins among these bytes.
        sizes: int64 [C], bytes of each.
        num_values: int64 [C], values of each, those of empty lists counted.
        pages: int64 [capacity, 7], receives them, column after column, in order.

    Returns:
        The number of pages; -1 where something is damaged or unknown, -2 where there are more than fit.
    """
    found, header = 0, np.empty(6, np.int64)
    for c in range(len(places)):
        place, end, left = places[c], places[c] + sizes[c], num_values[c]
        if place < 0 or end > size:
            return -1
        while left > 0:
            behind = read_page_header(buffer, place, end, header)
            if behind < 0 or header[PACKED] < 0 or header[PACKED] > end - behind:
                return -1
            if header[UNPACKED] < 0 or header[UNPACKED] > LARGEST:
                return -1
            if header[KIND] not in (DATA, DICTIONARY) or header[COUNT] < 0:
                return -1
            if header[KIND] == DATA:
                left -= header[COUNT]
            if found == len(pages):
                return -2
            page = pages[found]
            page[COLUMN], page[PAGE_KIND], page[PAGE_COUNT] = c, header[KIND], header[COUNT]
            page[PAGE_ENCODING], page[PLACE] = header[ENCODING], header[HEADER_END]
            page[SIZE], page[UNPACKED_SIZE] = header[PACKED], header[UNPACKED]
            found += 1
            place = header[HEADER_END] + header[PACKED]
        if left:
            return -1
    return found


@jit
def decode_pages(
    pages: Array,
    unpacked: Array,
    items: Array,
    num_values: Array,
    values: Array,
    offsets: Array,
    num_rows: Array,
    scratch: Array,
) -> int:
    """Decodes pages to arrays.

    Args:
        pages: int64 [P, 7], see ``find_pages``.
        unpacked: int64 [P], the addresses of their bytes, unpacked.
        items: int64 [C], bytes of a value of each column, 4 or 8.
        num_values: int64 [C], in: values of each column, those of empty lists counted; out: those that there are.
        values: int64 [C], the addresses that receive the values.
        offsets: int64 [C], the addresses that receive int32 [rows + 1], for lists; 0 for single values.
        num_rows: int64 [C], rows of each column.
        scratch: int32 [at least the values of the largest page].

    Returns:
        -1; or the number of the first column that cannot be decoded.
    """
    nothing = 0 * len(pages)  # for numba no constant: it would compile each loop that is called once more for constants
    column, rows, left = nothing - 1, nothing, nothing
    place, row, dictionary, dictionary_size = nothing, nothing, nothing, nothing
    for p in range(len(pages)):
        page, start = pages[p], unpacked[p]
        end, count, encoding = start + page[UNPACKED_SIZE], page[PAGE_COUNT], page[PAGE_ENCODING]
        if page[COLUMN] != column:
            column, place, row, dictionary, dictionary_size = page[COLUMN], nothing, nothing, nothing, nothing
            rows, left = num_rows[column], num_values[column]
        item = items[column]
        if page[PAGE_KIND] == DICTIONARY:
            if encoding not in (PLAIN, PLAIN_DICTIONARY) or count > (end - start) // item:
                return column
            dictionary, dictionary_size = start, count
            continue
        if count > left or count > len(scratch):
            return column
        left -= count
        if offsets[column]:
            start, count, row = _decode_levels(start, end, count, offsets[column], place, row, rows, scratch)
        if start < 0 or (not offsets[column] and place + count > rows):
            return column
        to = values[column] + place * item
        if not decode_values(encoding, start, end, count, item, dictionary, dictionary_size, to, scratch):
            return column
        place += count
        if not left and not _is_whole(offsets[column], place, row, rows):
            return column
        if not left:
            num_values[column] = place
    return -1


@jit
def _is_whole(offsets: int, place: int, row: int, num_rows: int) -> bool:
    """Whether a column has all of its rows; writes the end of the last list."""
    if not offsets:
        return place == num_rows
    store_int32(offsets, num_rows, place)
    return row == num_rows


@jit
def _decode_levels(
    start: int, end: int, count: int, offsets: int, place: int, row: int, num_rows: int, scratch: Array
) -> tuple[int, int, int]:
    """Decodes the levels of a page of lists into offsets.

    Returns:
        The address behind the levels (-1 where they are damaged), the number of values, and the next row.
    """
    # Repetition: 0 where a row begins. Definition: 1 where there is a value, 0 for an empty list.
    repetition = start + 4
    if end - start < 4:
        return -1, 0, row
    size = load_int32(start, 0)
    if size < 0 or size > end - repetition - 4:
        return -1, 0, row
    definition = repetition + size + 4
    values = definition + load_int32(repetition + size, 0)
    if values < definition or values > end:
        return -1, 0, row
    begins = find_zeros(repetition, repetition + size, count, scratch)
    if begins < 0 or begins > num_rows - row or (not row and count and (not begins or scratch[0])):
        return -1, 0, row
    for i in range(begins):
        store_int32(offsets, row + i, place + scratch[i])
    empty = find_zeros(definition, values, count, scratch)
    if empty < 0:
        return -1, 0, row
    # Each empty list stands among the levels and not among the values: rows behind it begin one value earlier. It has
    # one level, with which its row begins.
    passed = 0
    for i in range(begins if empty else 0):
        at = load_int32(offsets, row + i) - place
        store_int32(offsets, row + i, place + at - passed)
        if passed < empty and scratch[passed] == at:
            passed += 1
    if passed < empty:
        return -1, 0, row
    return values, count - empty, row + begins
