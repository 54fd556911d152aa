"""Addresses of arrays, for compiled loops that go through many arrays in one call.

A row group has an array for each column, and a batch takes rows of some hundred of them. One call of a compiled loop
for each array costs more than the copying does. So a loop gets a table of addresses instead (``table.loops`` has
what it needs), and whoever calls it keeps the arrays alive.
"""

import pyarrow as pa

from recd_dist.table.column import Array


def address_of(array: Array) -> int:
    """Where the elements of a contiguous array begin in memory."""
    return int(array.__array_interface__["data"][0])


def address_of_arrow(array: pa.Array) -> int:
    """Where the elements of an Arrow array of numbers begin in memory; 0 where it has none."""
    buffer = array.buffers()[1]
    return 0 if buffer is None else int(buffer.address) + array.offset * array.type.bit_width // 8


def addresses_of_lists(array: pa.Array) -> tuple[int, int]:
    """Where the values of an Arrow array of lists of numbers begin in memory, and its int32 offsets into them."""
    offsets, values = array.buffers()[1], array.values
    data = values.buffers()[1]
    first = 0 if data is None else int(data.address) + values.offset * values.type.bit_width // 8
    return first, 0 if offsets is None else int(offsets.address) + array.offset * 4
