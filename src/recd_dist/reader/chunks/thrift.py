"""Reads Parquet's own records, which are in Thrift's compact protocol: the footer of a file and the headers of pages.

pyarrow has a footer as objects, one a column of a row group, which take longer to ask than the columns take to decode.
These loops take of it what decoding needs. Whatever they do not expect they report, and pyarrow reads the file instead.
"""

import numpy as np

from recd_dist.table.column import Array
from recd_dist.table.loops import jit, load_byte

_FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _STRUCT = 2, 3, 7, 8, 9, 10, 12
_MAX_DEPTH = 16

TYPE, CODEC, NUM_VALUES, BYTES, DATA_START, DICTIONARY_START = range(6)
"""Of a column chunk: its physical type, its codec, its values (those of empty lists counted), its bytes on disk, and
where its first data page and its dictionary begin in the file (-1 for none)."""

_SLOTS = (-1, TYPE, -1, -1, CODEC, NUM_VALUES, -1, BYTES, -1, DATA_START, -1, DICTIONARY_START)
"""For each field of a ColumnMetaData where it is kept."""

_ROW_GROUPS, _COLUMNS, _METADATA = 4, 1, 3
"""Fields of FileMetaData, RowGroup and ColumnChunk."""

KIND, UNPACKED, PACKED, COUNT, ENCODING, HEADER_END = range(6)
"""Of a page: its kind, its bytes unpacked and on disk, number and encoding of its values, and where its header ends."""

DATA, DICTIONARY = 0, 2
"""Kinds of page; others are newer, and the ETL writes none."""

_DATA_HEADER, _DICTIONARY_HEADER, _INTEGERS, _RUNS = 5, 7, (4, 5, 6), 3


@jit
def read_varint(address: int, place: int, end: int) -> tuple[int, int]:
    """An unsigned number of 7 bits a byte, and the place behind it; -1 as place where the bytes end before."""
    value, shift = 0, 0
    while 0 <= place < end and shift < 64:
        byte = load_byte(address, place)
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
        shift += 7
    return 0, -1


@jit
def read_zigzag(address: int, place: int, end: int) -> tuple[int, int]:
    """A signed number, small ones in few bytes, and the place behind it; -1 as place where the bytes end before."""
    value, place = read_varint(address, place, end)
    return ((value >> 1) & 0x7FFFFFFFFFFFFFFF) ^ -(value & 1), place


@jit
def skip(address: int, place: int, end: int, kind: int) -> int:
    """The place behind a value of some kind; -1 where it is damaged or nested too deep."""
    # What is open, from the outermost on: -1 for a struct, of a list the elements that are left, and their kind.
    left, kinds, depth = np.zeros(_MAX_DEPTH, np.int64), np.zeros(_MAX_DEPTH, np.int64), 0
    while 0 <= place <= end:
        if kind not in (_LIST, _SET, _STRUCT):
            place = _skip_plain(address, place, end, kind)
        elif depth == _MAX_DEPTH:
            return -1
        else:
            left[depth] = -1
            if kind != _STRUCT:
                left[depth], kinds[depth], place = read_list(address, place, end)
            depth += 1
        kind, place, depth = _next_inside(address, place, end, left, kinds, depth)
        if not kind:
            return place if place <= end else -1
    return -1


@jit
def _skip_plain(address: int, place: int, end: int, kind: int) -> int:
    """The place behind a value that holds no others; -1 where it is damaged or unknown."""
    if kind == _BYTE:
        place += 1
    elif _BYTE < kind < _DOUBLE:
        _, place = read_varint(address, place, end)
    elif kind == _DOUBLE:
        place += 8
    elif kind == _BINARY:
        size, place = read_varint(address, place, end)
        place = -1 if place < 0 or size < 0 or size > end - place else place + size
    elif kind > _FALSE:
        place = -1
    return place


@jit
def _next_inside(address: int, place: int, end: int, left: Array, kinds: Array, depth: int) -> tuple[int, int, int]:
    """The kind of the next value inside what is open (0: all is closed), its place, and how much is open then."""
    while depth and place >= 0:
        if left[depth - 1] < 0:
            _, kind, place = next_field(address, place, end, 0)
            if kind and place >= 0:
                return kind, place, depth
        elif left[depth - 1]:
            left[depth - 1] -= 1
            return max(kinds[depth - 1], _BYTE), place, depth  # in a list a truth value has a byte of its own
        depth -= 1
    return 0, place, 0


@jit
def read_list(address: int, place: int, end: int) -> tuple[int, int, int]:
    """The elements of a list, their kind, and the place of the first; -1 as place where the bytes end before."""
    if place < 0 or place >= end:
        return 0, 0, -1
    header = load_byte(address, place)
    size, place = header >> 4, place + 1
    if size == 15:
        size, place = read_varint(address, place, end)
    if place < 0 or size < 0 or size > end - place:
        return 0, 0, -1
    return size, header & 15, place


@jit
def next_field(address: int, place: int, end: int, last: int) -> tuple[int, int, int]:
    """The next field of a struct: its number, its kind (0: the end), and the place behind its header (-1: damaged)."""
    if place < 0 or place >= end:
        return 0, 0, -1
    header = load_byte(address, place)
    place += 1
    if not header & 15:
        return 0, 0, place
    if header >> 4:
        return last + (header >> 4), header & 15, place
    number, place = read_zigzag(address, place, end)
    return number, header & 15, place


@jit
def _read_metadata(address: int, place: int, end: int, out: Array) -> int:
    """Reads a ColumnMetaData into int64 [6]; returns the place behind it, -1 where it is damaged."""
    field = 0
    while True:
        field, kind, place = next_field(address, place, end, field)
        if place < 0 or not kind:
            return place
        slot = _SLOTS[field] if 0 <= field < len(_SLOTS) else -1
        if slot >= 0:
            out[slot], place = read_zigzag(address, place, end)
        else:
            place = skip(address, place, end, kind)


@jit
def _read_column_chunk(address: int, place: int, end: int, out: Array) -> int:
    """Reads a ColumnChunk into int64 [6]; returns the place behind it, -1 where it is damaged."""
    field = 0
    out[:] = -1
    while True:
        field, kind, place = next_field(address, place, end, field)
        if place < 0 or not kind:
            return place
        if field == _METADATA and kind == _STRUCT:
            place = _read_metadata(address, place, end, out)
        else:
            place = skip(address, place, end, kind)


@jit
def _read_row_group(address: int, place: int, end: int, out: Array) -> int:
    """Reads a RowGroup into int64 [columns, 6]; returns the place behind it, -1 where it is damaged or another one."""
    field = 0
    while True:
        field, kind, place = next_field(address, place, end, field)
        if place < 0 or not kind:
            return place
        if field == _COLUMNS and kind == _LIST:
            size, _, place = read_list(address, place, end)
            if size != len(out):
                return -1
            for column in range(size):
                place = _read_column_chunk(address, place, end, out[column]) if place >= 0 else -1
        else:
            place = skip(address, place, end, kind)


@jit
def read_footer(address: int, size: int, out: Array) -> bool:
    """Reads what a footer says of column chunks.

    Args:
        address: of the footer, Thrift's FileMetaData.
        size: its bytes.
        out: int64 [row groups, columns, 6], receives them.

    Returns:
        Whether it was read whole, and has as many row groups and columns.
    """
    place, field = 0, 0
    while True:
        field, kind, place = next_field(address, place, size, field)
        if place < 0 or not kind:
            return False
        if field == _ROW_GROUPS and kind == _LIST:
            break
        place = skip(address, place, size, kind)
    found, _, place = read_list(address, place, size)
    if found != len(out):
        return False
    for row_group in range(found):
        place = _read_row_group(address, place, size, out[row_group]) if place >= 0 else -1
    return place >= 0


@jit
def read_page_header(address: int, place: int, end: int, page: Array) -> int:
    """Reads the header of a page into int64 [6]; returns the place behind it, -1 where it is damaged."""
    page[:] = -1
    field = 0
    while True:
        field, kind, place = next_field(address, place, end, field)
        if place < 0 or not kind:
            page[HEADER_END] = place
            return place
        if 1 <= field <= 3 and kind in _INTEGERS:
            page[field - 1], place = read_zigzag(address, place, end)
        elif field in (_DATA_HEADER, _DICTIONARY_HEADER) and kind == _STRUCT:
            place = _read_inner_header(address, place, end, page)
        else:
            place = skip(address, place, end, kind)


@jit
def _read_inner_header(address: int, place: int, end: int, page: Array) -> int:
    """Reads what a header says of the values of a page: their number and their encoding; levels must be in runs."""
    field = 0
    while True:
        field, kind, place = next_field(address, place, end, field)
        if place < 0 or not kind:
            return place
        if field in (1, 2) and kind in _INTEGERS:
            page[COUNT if field == 1 else ENCODING], place = read_zigzag(address, place, end)
        elif field in (3, 4) and kind in _INTEGERS:
            levels, place = read_zigzag(address, place, end)
            if levels != _RUNS:
                return -1
        else:
            place = skip(address, place, end, kind)
