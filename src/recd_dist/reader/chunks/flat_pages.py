"""Compiled loops that decode pages of foreign files, which say of each value whether it is there.

::

    rows          [7 8]  []  [9]         optional lists of optional numbers
    repetition    0 1    0   0           0 where a row begins
    definition    3 3    1   3           3: a value, 2: a missing value, 1: an empty list, 0: a missing list

Where a value or a list is missing, the column is left to pyarrow. Any other page is one of a table but for its levels.
"""

from recd_dist.reader.chunks.encodings import PLAIN, PLAIN_DICTIONARY, decode_values
from recd_dist.reader.chunks.pages import COLUMN, PAGE_COUNT, PAGE_ENCODING, PAGE_KIND, UNPACKED_SIZE
from recd_dist.reader.chunks.thrift import DICTIONARY, read_varint
from recd_dist.table.column import Array
from recd_dist.table.loops import jit, load_byte, load_int32, load_int64, store_int32

_MAX_BITS = 32

ITEM, MOST, EMPTY, VALUES, OFFSETS, ROOM, NUM_VALUES, NUM_ROWS, DICTIONARY_AT, DICTIONARY_SIZE, FAILED = range(11)
"""Of a column that is being decoded: bytes of a value; the level of a value that is there, and of an empty list (-1 for
single values); where its values and the int32 offsets of its lists lie, and how many offsets there is room for; values
and rows that were decoded, the last of which may go on; where its dictionary lies and how large it is; whether it
cannot be decoded."""


@jit
def find_lower(start: int, end: int, most: int, allowed: int, count: int, out: Array) -> int:
    """Finds the levels below the highest one, in runs and bit-packed groups.

    Args:
        start: the address of the bytes.
        end: the address behind them.
        most: the highest level, 1 to 3.
        allowed: the only level beside it that may be there; -1 for none.
        count: the levels that are looked at.
        out: int32 [at least count], receives the places of the lower ones.

    Returns:
        How many there are; -1 where another level is among them, or there are fewer levels.
    """
    place, done, found, size = 0, 0, 0, end - start
    width = 1 if most == 1 else 2
    while done < count and found >= 0:
        header, place = read_varint(start, place, size)
        if place < 0 or header < 2 or header >> _MAX_BITS:
            return -1
        if header & 1:
            taken = min((header >> 1) * 8, count - done)
            if (taken * width + 7) // 8 > size - place:
                return -1
            found = _find_packed(start + place, taken, done, found, most, allowed, out)
            place += (header >> 1) * width
        else:
            taken = min(header >> 1, count - done)
            if place >= size:
                return -1
            level = load_byte(start, place)
            if level != most:
                for i in range(taken if level == allowed else 0):
                    out[found + i] = done + i
                found = found + taken if level == allowed else -1
            place += 1
        done += taken
    return found


@jit
def _find_packed(start: int, count: int, first: int, found: int, most: int, allowed: int, out: Array) -> int:
    """Finds lower levels among bit-packed ones, and returns how many there are with those that were found before."""
    width = 1 if most == 1 else 2
    each = 8 // width
    usual, eight = (255, -1) if most != 2 else (0b10101010, -0x5555555555555556)
    used, k = (count + each - 1) // each, 0
    while k < used:
        if k + 8 <= used and load_int64(start + k, 0) == eight:
            k += 8
            continue
        byte = load_byte(start, k)
        for i in range(each * k, min(each * (k + 1), count) if byte != usual else 0):
            level = (byte >> ((i - each * k) * width)) & ((1 << width) - 1)
            if level != most:
                if level != allowed:
                    return -1
                out[found] = first + i
                found += 1
        k += 1
    return found


@jit
def decode_flat_pages(pages: Array, unpacked: Array, columns: Array, scratch: Array) -> None:
    """Decodes pages, each behind what its column has already.

    Args:
        pages: int64 [P, 7], see ``pages``.
        unpacked: int64 [P], the addresses of their bytes, unpacked.
        columns: int64 [C, 11], see above; there is room for the values and rows of the pages.
        scratch: int32 [at least the values of the largest page].
    """
    for p in range(len(pages)):
        page, start = pages[p], unpacked[p]
        column = columns[page[COLUMN]]
        end, count, encoding = start + page[UNPACKED_SIZE], page[PAGE_COUNT], page[PAGE_ENCODING]
        if column[FAILED]:
            continue
        if page[PAGE_KIND] == DICTIONARY:
            column[FAILED] = encoding not in (PLAIN, PLAIN_DICTIONARY) or count > (end - start) // column[ITEM]
            column[DICTIONARY_AT], column[DICTIONARY_SIZE] = start, count
            continue
        if count > len(scratch):
            column[FAILED] = 1
            continue
        if column[OFFSETS]:
            start, count = _begin_lists(start, end, count, column, scratch)
        else:
            start = _pass_levels(start, end, count, column[MOST], scratch)
            column[NUM_ROWS] += count
        to = column[VALUES] + column[NUM_VALUES] * column[ITEM]
        if start < 0 or not decode_values(
            encoding, start, end, count, column[ITEM], column[DICTIONARY_AT], column[DICTIONARY_SIZE], to, scratch
        ):
            column[FAILED] = 1
            continue
        column[NUM_VALUES] += count


@jit
def _pass_levels(start: int, end: int, count: int, most: int, scratch: Array) -> int:
    """The address behind the levels of single values, which must all be there; -1 where one is not."""
    if not most:
        return start
    levels, behind = _bounds_of_levels(start, end)
    return behind if behind >= 0 and find_lower(levels, behind, most, -1, count, scratch) == 0 else -1


@jit
def _bounds_of_levels(start: int, end: int) -> tuple[int, int]:
    """Where levels begin behind their length, and the address behind them; -1 where they are damaged."""
    if end - start < 4:
        return -1, -1
    size = load_int32(start, 0)
    if size < 0 or size > end - start - 4:
        return -1, -1
    return start + 4, start + 4 + size


@jit
def _begin_lists(start: int, end: int, count: int, column: Array, scratch: Array) -> tuple[int, int]:
    """Writes where the lists of a page begin.

    Returns:
        The address behind the levels (-1 where they are damaged, or something is missing), and the number of values.
    """
    repetition, definition = _bounds_of_levels(start, end)
    if definition < 0:
        return -1, 0
    begins = find_lower(repetition, definition, 1, 0, count, scratch)
    levels, values = _bounds_of_levels(definition, end)
    if begins < 0 or values < 0:
        return -1, 0
    offsets, row, place = column[OFFSETS], column[NUM_ROWS], column[NUM_VALUES]
    is_headless = not row and count and (not begins or scratch[0])
    if is_headless or row + begins >= column[ROOM]:
        return -1, 0
    for i in range(begins):
        store_int32(offsets, row + i, place + scratch[i])
    empty = find_lower(levels, values, column[MOST], column[EMPTY], count, scratch)
    if empty < 0:
        return -1, 0
    # Each empty list stands among the levels and not among the values: rows behind it begin one value earlier.
    passed = 0
    for i in range(begins if empty else 0):
        at = load_int32(offsets, row + i) - place
        while passed < empty and scratch[passed] < at:
            passed += 1
        store_int32(offsets, row + i, place + at - passed)
    column[NUM_ROWS] += begins
    return values, count - empty
