"""Decodes columns of a foreign file row by row, as far as its row groups are of the usual kind.

::

    row group        |  a million rows: one read of the bytes of its columns              |
    pages of item    |    0    |    1    |    2    |  ...      each is decoded when its rows are asked for
    rows             |   8192   |   8192   | ...               views into memory that is used again

Required and nullable numbers, and lists of them, are read in which nothing is missing. All else is left to pyarrow,
column by column: a column that cannot be decoded here is passed over, and named.
"""

import os
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recd_dist.reader.chunks import flat_pages, thrift
from recd_dist.reader.chunks import pages as page_loops
from recd_dist.table.addresses import address_of
from recd_dist.table.column import Array, Column
from recd_dist.table.flat_columns import is_any_list

_CODECS = {0: None, 1: "snappy", 2: "gzip", 4: "brotli", 6: "zstd", 7: "lz4_raw"}
_INT32: "tuple[int, np.dtype[Any]]" = (1, np.dtype(np.int32))
_TYPES: "dict[pa.DataType, tuple[int, np.dtype[Any]]]" = {
    pa.int8(): _INT32,
    pa.int16(): _INT32,
    pa.int32(): _INT32,
    pa.uint8(): _INT32,
    pa.uint16(): _INT32,
    pa.int64(): (2, np.dtype(np.int64)),
    pa.float32(): (4, np.dtype(np.float32)),
    pa.float64(): (5, np.dtype(np.float64)),
}
"""Parquet's physical type and the dtype that its values have here."""
_GAP = 1 << 16
"""Bytes between the chunks of two columns that are read along, since a read costs more."""
_LARGEST = 1 << 29
"""Values of a column that are in memory at once: offsets have 32 bits."""


@dataclass(frozen=True)
class _Leaf:
    """A column that may be decoded.

    Attributes:
        number: of the column in the file.
        physical: Parquet's type.
        dtype: of its values.
        most: the definition level of a value.
        empty: that of an empty list; -1 for single values.
    """

    number: int
    physical: int
    dtype: np.dtype[Any]
    most: int
    empty: int


class FlatFile:
    """A foreign file: which of its columns can be decoded.

    Args:
        path: the file, here.
        file: the same file, open.
        names: the columns that are wanted.

    Attributes:
        leaves: the columns that may be decoded, by name.
        close: closes the file; it is closed, too, when nobody refers to this any more.
    """

    def __init__(self, path: Path, file: pq.ParquetFile, names: Iterable[str]) -> None:
        metadata = file.metadata
        self._descriptor = os.open(path, os.O_RDONLY)
        self.close = weakref.finalize(self, os.close, self._descriptor)
        self.row_groups = tuple(metadata.row_group(n).num_rows for n in range(metadata.num_row_groups))
        size = os.fstat(self._descriptor).st_size
        length = int.from_bytes(os.pread(self._descriptor, 4, size - 8), "little")
        footer = np.frombuffer(os.pread(self._descriptor, length, max(size - 8 - length, 0)), np.uint8)
        self.chunks = np.empty((metadata.num_row_groups, metadata.num_columns, 6), np.int64)
        is_read = len(footer) and thrift.read_footer(address_of(footer), len(footer), self.chunks)
        leaves = {name: leaf for name in names if (leaf := _leaf_of(file, name)) is not None} if is_read else {}
        self.leaves = {name: leaf for name, leaf in leaves.items() if self._fits(leaf)}

    def _fits(self, leaf: _Leaf) -> bool:
        """Whether the chunks of a column are all of its type, and packed by a codec that is known."""
        own = self.chunks[:, leaf.number]
        return bool(np.isin(own[:, thrift.CODEC], list(_CODECS)).all() and (own[:, thrift.TYPE] == leaf.physical).all())

    def fetch(self, row_group: int, leaves: Sequence[_Leaf]) -> tuple[Array, Array]:
        """Reads the bytes of some columns of a row group.

        Returns:
            The bytes, and for each column its numbers in ``chunks`` with the place where it begins in these bytes.

        Raises:
            OSError: they cannot be read.
        """
        chunks = self.chunks[row_group][[leaf.number for leaf in leaves]].copy()
        dictionaries = chunks[:, thrift.DICTIONARY_START]
        # Some writers leave 0 for a dictionary that there is not.
        starts = np.where(dictionaries <= 0, chunks[:, thrift.DATA_START], dictionaries)
        starts = np.minimum(starts, chunks[:, thrift.DATA_START])
        order = np.argsort(starts, kind="stable")
        ranges: list[list[int]] = []
        for start, size in zip(starts[order].tolist(), chunks[order, thrift.BYTES].tolist(), strict=True):
            if start < 0 or size < 0:
                raise OSError("a footer with negative places")
            if ranges and start - ranges[-1][1] <= _GAP:
                ranges[-1][1] = max(ranges[-1][1], start + size)
            else:
                ranges.append([start, start + size])
        packed = np.empty(sum(end - start for start, end in ranges), np.uint8)
        place = 0
        for start, end in ranges:
            inside = (starts >= start) & (starts < end)
            chunks[inside, thrift.DATA_START] = starts[inside] - start + place
            self._read(packed[place : place + end - start], start)
            place += end - start
        chunks[:, thrift.DICTIONARY_START] = -1
        return packed, chunks

    def _read(self, out: Array, start: int) -> None:
        done = 0
        while done < len(out):
            size = os.preadv(self._descriptor, [out.data[done:]], start + done)
            if size <= 0:
                raise OSError("the file ends before its columns do")
            done += size


def _leaf_of(file: pq.ParquetFile, name: str) -> _Leaf | None:
    """A column of numbers or of lists of numbers; None for any other."""
    schema, arrow = file.schema, file.schema_arrow
    paths = [schema.column(n).path for n in range(len(schema))]
    mine = [n for n, path in enumerate(paths) if path == name or path.startswith(f"{name}.")]
    place = arrow.get_field_index(name)
    if place < 0 or len(mine) != 1:
        return None
    known, column = arrow.field(place), schema.column(mine[0])
    kind = known.type
    is_list = is_any_list(kind)
    physical, dtype = _TYPES.get(kind.value_type if is_list else kind, (-1, _INT32[1]))
    most = int(known.nullable) + (1 + int(kind.value_field.nullable) if is_list else 0)
    if physical < 0 or (column.max_repetition_level, column.max_definition_level) != (int(is_list), most):
        return None
    return _Leaf(mine[0], physical, dtype, most, int(known.nullable) if is_list else -1)


class FlatRows:
    """The rows of a row group, read forward.

    Args:
        file: a foreign file.
        row_group: counted from 0.
        names: columns of its ``leaves``.
        spaces: memory of each column, which is used again; what was read into it before is lost.

    Attributes:
        start: rows before it cannot be read any more.
        failed: the columns that cannot be decoded here.

    Raises:
        ValueError: the row group cannot be decoded here.
        OSError: it cannot be read.
    """

    def __init__(self, file: FlatFile, row_group: int, names: Sequence[str], spaces: "dict[str, Space]") -> None:
        self.start, self.failed = 0, set[str]()
        self._names, leaves = list(names), [file.leaves[name] for name in names]
        self._types = [leaf.dtype for leaf in leaves]
        self._num_rows = file.row_groups[row_group]
        packed, chunks = file.fetch(row_group, leaves)
        self._packed = pa.py_buffer(packed)
        self._codecs = [_CODECS[codec] for codec in chunks[:, thrift.CODEC].tolist()]
        self._pages = _find_pages(packed, chunks)
        self._next, self._end = (
            np.searchsorted(self._pages[:, page_loops.COLUMN], np.arange(len(names)), side)
            for side in ("left", "right")
        )
        self._columns = np.zeros((len(names), flat_pages.FAILED + 1), np.int64)
        for n, leaf in enumerate(leaves):
            self._columns[n, : flat_pages.VALUES] = leaf.dtype.itemsize, leaf.most, leaf.empty
        self._is_list = self._columns[:, flat_pages.EMPTY] >= 0
        self._first = np.zeros(len(names), np.int64)  # the row with which each column begins in memory
        self._spaces = [spaces.setdefault(name, Space()) for name in names]
        self._dictionaries: dict[int, pa.Buffer] = {}
        self._scratch = np.empty(int(self._pages[:, page_loops.PAGE_COUNT].max(initial=0)), np.int32)

    def read(self, start: int, end: int) -> dict[str, Column]:
        """Reads rows [start, end), which must not lie before those that were read.

        Returns:
            The columns that can be decoded: views that the next call makes invalid, offsets not from 0.
        """
        self.start, columns = start, self._columns
        while True:
            wanted = end - self._first + self._is_list  # the end of a list is where the next one begins
            is_short = (columns[:, flat_pages.NUM_ROWS] < wanted) & (columns[:, flat_pages.FAILED] == 0)
            short = np.flatnonzero(is_short & (self._next < self._end))
            if not len(short):
                break
            self._decode_next(short.tolist())
        found = {}
        for n, (name, dtype, space) in enumerate(zip(self._names, self._types, self._spaces, strict=True)):
            first, last = start - int(self._first[n]), end - int(self._first[n])
            num_values, num_rows = columns[n, flat_pages.NUM_VALUES], int(columns[n, flat_pages.NUM_ROWS])
            if self._next[n] == self._end[n] and num_rows + self._first[n] != self._num_rows:
                columns[n, flat_pages.FAILED] = 1
            if columns[n, flat_pages.FAILED] or num_rows < last:
                self.failed.add(name)
                continue
            values = space.values[: num_values * dtype.itemsize].view(dtype)
            if not self._is_list[n]:
                found[name] = Column(values[first:last])
                continue
            if num_rows == last:
                space.offsets[last] = num_values
            found[name] = Column(values, space.offsets[first : last + 1])
        return found

    def _decode_next(self, short: Sequence[int]) -> None:
        """Decodes the next page of some columns, and the dictionary before it."""
        numbers, unpacked, kept = list[int](), list[int](), list[pa.Buffer]()
        for n in short:
            self._drop_read(n)
            while self._next[n] < self._end[n]:
                number = int(self._next[n])
                self._next[n] += 1
                page = self._unpack(number, self._codecs[n])
                numbers.append(number)
                unpacked.append(page.address)
                kept.append(page)
                if self._pages[number, page_loops.PAGE_KIND] != thrift.DICTIONARY:
                    self._make_room(n, int(self._pages[number, page_loops.PAGE_COUNT]))
                    break
                self._dictionaries[n] = page
        flat_pages.decode_flat_pages(self._pages[numbers], np.array(unpacked, np.int64), self._columns, self._scratch)

    def _unpack(self, number: int, codec: str | None) -> pa.Buffer:
        """The bytes of a page."""
        place, size, unpacked = self._pages[number, page_loops.PLACE :].tolist()
        packed = self._packed.slice(place, size)
        if codec is None or not unpacked:
            self._pages[number, page_loops.UNPACKED_SIZE] = min(size, unpacked)
            return packed
        return _codec(codec).decompress(packed, unpacked)

    def _drop_read(self, n: int) -> None:
        """Moves what is still to be read of a column to the beginning of its memory."""
        column, space = self._columns[n], self._spaces[n]
        num_rows, num_values = int(column[flat_pages.NUM_ROWS]), int(column[flat_pages.NUM_VALUES])
        dropped = min(self.start - int(self._first[n]), num_rows - int(self._is_list[n]))  # the last list may go on
        if dropped <= 0:
            return
        begin, item = dropped, int(column[flat_pages.ITEM])
        if self._is_list[n]:
            begin = int(space.offsets[dropped])
            space.offsets[: num_rows - dropped] = space.offsets[dropped:num_rows] - begin
        space.values[: (num_values - begin) * item] = space.values[begin * item : num_values * item]
        column[flat_pages.NUM_ROWS], column[flat_pages.NUM_VALUES] = num_rows - dropped, num_values - begin
        self._first[n] += dropped

    def _make_room(self, n: int, count: int) -> None:
        """Makes room for the values and rows of a page."""
        column, space = self._columns[n], self._spaces[n]
        num_rows, num_values = int(column[flat_pages.NUM_ROWS]), int(column[flat_pages.NUM_VALUES])
        if num_values + count > _LARGEST:
            column[flat_pages.FAILED] = 1
            return
        space.values = _grow(space.values, num_values * self._types[n].itemsize, count * self._types[n].itemsize)
        column[flat_pages.VALUES] = address_of(space.values)
        if self._is_list[n]:
            space.offsets = _grow(space.offsets, num_rows, min(count, self._num_rows) + 1)
            column[flat_pages.OFFSETS], column[flat_pages.ROOM] = address_of(space.offsets), len(space.offsets)


@dataclass
class Space:
    """Memory of a column: uint8 for its values, int32 for the offsets of its lists."""

    values: Array = field(default_factory=lambda: np.empty(0, np.uint8))
    offsets: Array = field(default_factory=lambda: np.empty(0, np.int32))


def _grow(space: Array, used: int, more: int) -> Array:
    """Memory that has room for more, with what is used of it."""
    if used + more <= len(space):
        return space
    larger = np.empty(max(used + more, len(space) * 3 // 2), space.dtype)
    larger[:used] = space[:used]
    return larger


def _find_pages(packed: Array, chunks: Array) -> Array:
    """The pages of all columns, int64 [P, 7]."""
    capacity = 4 * len(chunks) + 64
    places, sizes, num_values = (chunks[:, n].copy() for n in (thrift.DATA_START, thrift.BYTES, thrift.NUM_VALUES))
    while True:
        pages = np.empty((capacity, 7), np.int64)
        found = page_loops.find_pages(address_of(packed), len(packed), places, sizes, num_values, pages)
        if found >= 0:
            return pages[:found]
        if found == -1:
            raise ValueError("a page of another kind")
        capacity *= 4


@cache
def _codec(name: str) -> pa.Codec:
    return pa.Codec(name)
