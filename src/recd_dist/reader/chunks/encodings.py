"""Compiled loops that decode the values of Parquet pages, straight to where a batch will copy them from.

Every loop gets the bytes between two addresses and reads no others, and writes as many values as it was asked for or
tells that it cannot: what pages hold is not trusted.
"""

from recd_dist.reader.chunks.thrift import read_varint, read_zigzag
from recd_dist.table.column import Array
from recd_dist.table.loops import (
    copy_bytes,
    jit,
    load_byte,
    load_int32,
    load_int64,
    store_int32,
    store_int64,
)

_MAX_BITS = 32
"""No page has counts of more bits; those of damaged ones must not overflow when they are multiplied."""

PLAIN, PLAIN_DICTIONARY, DELTA_BINARY_PACKED, RLE_DICTIONARY, BYTE_STREAM_SPLIT = 0, 2, 5, 8, 9


@jit
def read_bits(start: int, end: int, bit: int, width: int) -> int:
    """The number of some bits, at most 64, that begins at a bit of the bytes [start, end); 0 behind their end."""
    address, shift = start + (bit >> 3), bit & 7
    if address + 8 <= end and shift + width <= 64:
        value = load_int64(address, 0) >> shift
        if shift:
            value &= (1 << (64 - shift)) - 1
    else:
        value = 0
        for k in range(9):
            if address + k < end:
                byte, place = load_byte(address, k), 8 * k - shift
                value |= byte >> -place if place < 0 else byte << place if place < 64 else 0
    return value if width >= 64 else value & ((1 << width) - 1)


@jit
def unpack_bits(start: int, end: int, width: int, count: int, out: int) -> None:
    """Writes bit-packed numbers as int32; the bytes [start, end) have all of them, and perhaps more.

    Up to 16 bits, 8 numbers come of two words: their shifts are the same for all, so that none is computed.
    """
    mask, done = (1 << width) - 1, 0
    if width <= 16:
        half, shift = (4 * width) >> 3, (4 * width) & 7
        groups = max(0, min(count >> 3, (end - start - half - 8) // width + 1))
        for g in range(groups):
            low = load_int64(start + g * width, 0)
            high = load_int64(start + g * width + half, 0) >> shift
            for k in range(4):
                store_int32(out, 8 * g + k, (low >> (k * width)) & mask)
                store_int32(out, 8 * g + 4 + k, (high >> (k * width)) & mask)
        done = 8 * groups
    for i in range(done, count):
        at = start + ((i * width) >> 3)
        if at + 8 <= end:
            store_int32(out, i, (load_int64(at, 0) >> ((i * width) & 7)) & mask)
        else:
            store_int32(out, i, read_bits(start, end, i * width, width))


@jit
def decode_indices(
    start: int, end: int, width: int, count: int, dictionary: int, size: int, item: int, to: int, scratch: Array
) -> bool:
    """Decodes runs and bit-packed groups of places in a dictionary, and copies the values that stand there.

    Args:
        start: the address of the bytes.
        end: the address behind them.
        width: bits of a place, at most 32.
        count: the values that are wanted.
        dictionary: the address of the values.
        size: the number of the values.
        item: bytes of a value, 4 or 8.
        to: the address that receives them.
        scratch: int32 [at least count].

    Returns:
        Whether there were enough places, all of them in the dictionary.
    """
    place, done, num_bytes = 0, 0, end - start
    while done < count:
        header, taken = 0, count - done  # without a bit, all of them are the first
        if width:
            header, place = read_varint(start, place, num_bytes)
            if place < 0 or header < 2 or header >> _MAX_BITS:
                return False
            taken = min((header >> 1) * (8 if header & 1 else 1), taken)
        if header & 1:
            if (header >> 1) * width > num_bytes - place:
                return False
            unpack_bits(start + place, end, width, taken, scratch.ctypes.data)
            if not _take(dictionary, size, scratch, taken, item, to + done * item):
                return False
            place += (header >> 1) * width
        else:
            step = (width + 7) >> 3
            if step > num_bytes - place:
                return False
            index = read_bits(start, end, 8 * place, width) if width else 0
            if index >= size:
                return False
            _repeat(dictionary, index, taken, item, to + done * item)
            place += step
        done += taken
    return True


@jit
def find_zeros(start: int, end: int, count: int, out: Array) -> int:
    """Finds where the zeros are among numbers of one bit, in runs and bit-packed groups, without looking at each one.

    Args:
        start: the address of the bytes.
        end: the address behind them.
        count: the numbers that are looked at.
        out: int32 [at least count], receives the places of the zeros.

    Returns:
        How many there are; -1 where there are fewer numbers.
    """
    place, done, found, size = 0, 0, 0, end - start
    while done < count:
        header, place = read_varint(start, place, size)
        if place < 0 or header < 2 or header >> _MAX_BITS:
            return -1
        if header & 1:
            taken, num_bytes = min((header >> 1) * 8, count - done), header >> 1
            if num_bytes > size - place:
                return -1
            for k in range((taken + 7) // 8):
                byte = load_byte(start, place + k)
                if byte != 255:
                    for i in range(8 * k, min(8 * k + 8, taken)):
                        if not (byte >> (i - 8 * k)) & 1:
                            out[found] = done + i
                            found += 1
            place += num_bytes
        else:
            taken = min(header >> 1, count - done)
            if place >= size or load_byte(start, place) > 1:
                return -1
            if not load_byte(start, place):
                for i in range(taken):
                    out[found + i] = done + i
                found += taken
            place += 1
        done += taken
    return found


@jit
def decode_delta(start: int, end: int, count: int, item: int, to: int) -> bool:
    """Decodes DELTA_BINARY_PACKED into int32 (item 4) or int64 (item 8); returns whether there were enough numbers."""
    size, place = end - start, 0
    block, place = read_varint(start, place, size)
    num_parts, place = read_varint(start, place, size) if place >= 0 else (0, -1)
    total, place = read_varint(start, place, size) if place >= 0 else (0, -1)
    value, place = read_zigzag(start, place, size) if place >= 0 else (0, -1)
    if (
        place < 0
        or total < count
        or num_parts <= 0
        or num_parts > 512
        or block <= 0
        or block >> _MAX_BITS
        or block % 128
        or block % (32 * num_parts)
    ):
        return False
    per_part, done = block // num_parts, min(count, 1)
    if done:
        _put(to, 0, item, value)
    while done < count:
        least, place = read_zigzag(start, place, size)
        widths, place = place, place + num_parts
        if widths < 0 or place > size:
            return False
        for part in range(num_parts):
            width, taken = load_byte(start, widths + part), min(per_part, count - done)
            if width > 8 * item or (taken * width + 7) // 8 > size - place:
                return False
            value = _add_up(start + place, end, width, taken, least, value, item, to, done)
            place += (per_part * width + 7) // 8
            done += taken
    return True


@jit
def _put(to: int, place: int, item: int, value: int) -> None:
    """Writes an int32 (item 4) or int64 (item 8) to a place of an array."""
    if item == 4:
        store_int32(to, place, value)
    else:
        store_int64(to, place, value)


@jit
def _add_up(
    start: int, end: int, width: int, count: int, least: int, value: int, item: int, to: int, place: int
) -> int:
    """Adds up bit-packed differences from a value on, writes the sums, and returns the last of them."""
    safe = count
    if width:
        safe = max(0, min(count, ((end - start - 8) * 8) // width)) if width <= 57 else 0
    mask = (1 << width) - 1 if width < 64 else -1
    for i in range(safe):
        at = i * width
        value += least
        if width:
            value += (load_int64(start + (at >> 3), 0) >> (at & 7)) & mask
        _put(to, place + i, item, value)
    for i in range(safe, count):
        value += least + read_bits(start, end, i * width, width)
        _put(to, place + i, item, value)
    return value


@jit
def join_streams(start: int, count: int, item: int, to: int) -> None:
    """Decodes BYTE_STREAM_SPLIT, whose bytes stand apart: all first ones, all second ones, and so on."""
    if item == 4:
        for i in range(count):
            value = load_byte(start, i) | load_byte(start, count + i) << 8
            value |= load_byte(start, 2 * count + i) << 16 | load_byte(start, 3 * count + i) << 24
            store_int32(to, i, value)
    else:
        for i in range(count):
            value = 0
            for k in range(8):
                value |= load_byte(start, k * count + i) << (8 * k)
            store_int64(to, i, value)


@jit
def _take(dictionary: int, size: int, indices: Array, count: int, item: int, to: int) -> bool:
    """Copies the values that indices name; returns whether all are there."""
    outside = 0
    for index in indices[:count]:
        outside |= index | (size - 1 - index)  # below 0 where an index is negative, or too large
    if outside < 0:
        return False
    if item == 4:
        for i in range(count):
            store_int32(to, i, load_int32(dictionary, indices[i]))
    else:
        for i in range(count):
            store_int64(to, i, load_int64(dictionary, indices[i]))
    return True


@jit
def _repeat(dictionary: int, index: int, count: int, item: int, to: int) -> None:
    """Writes a value of a dictionary many times."""
    for i in range(count):
        if item == 4:
            store_int32(to, i, load_int32(dictionary, index))
        else:
            store_int64(to, i, load_int64(dictionary, index))


@jit
def decode_values(
    encoding: int, start: int, end: int, count: int, item: int, dictionary: int, size: int, to: int, scratch: Array
) -> bool:
    """Decodes the values of a page; returns whether it could.

    Args:
        encoding: Parquet's number of it.
        start: the address of the bytes.
        end: the address behind them.
        count: the values that are wanted.
        item: bytes of a value, 4 or 8.
        dictionary: the address of the column chunk's dictionary.
        size: the number of its values.
        to: the address that receives the values.
        scratch: int32 [at least count].
    """
    is_done = False
    if encoding == PLAIN and count * item <= end - start:
        copy_bytes(to, start, count * item)
        is_done = True
    elif encoding == BYTE_STREAM_SPLIT and count * item == end - start:
        join_streams(start, count, item, to)
        is_done = True
    elif encoding == DELTA_BINARY_PACKED:
        is_done = decode_delta(start, end, count, item, to)
    elif encoding in (RLE_DICTIONARY, PLAIN_DICTIONARY) and end > start:
        width = load_byte(start, 0)
        is_done = width <= 32 and decode_indices(start + 1, end, width, count, dictionary, size, item, to, scratch)
    return is_done or not count
