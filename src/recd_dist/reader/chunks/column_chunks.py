"""Decodes the column chunks of a Parquet file's row groups into plain memory, all columns in a few calls.

::

    file        one read of the bytes that the columns lie in
    pages       found by their headers; unpacked by pyarrow's codecs (lz4, zstd)
    values      decoded by one call for all pages: required numbers, and lists of them

pyarrow's reader makes some objects for each column of each row group, which takes longer than decoding a column of 8192
ids does. What it can read and this cannot (nulls, other types, encodings and codecs) is left to it.
"""

import os
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recd_dist.reader.chunks import pages as page_loops
from recd_dist.reader.chunks import thrift
from recd_dist.table.addresses import address_of
from recd_dist.table.column import Array, Column

_CODECS = {0: None, 4: None, 6: "zstd", 7: "lz4_raw"}
_ITEMS = {1: 4, 2: 8, 4: 4}
"""Bytes of a value by physical type: INT32, INT64, FLOAT."""
_ALIGN = 64


@dataclass(frozen=True)
class DecodedChunks:
    """Columns of a row group in memory.

    Attributes:
        block: uint8, what holds all of it.
        values: int64 [C], where the values of each column begin in memory.
        offsets: int64 [C], where the int32 offsets of lists do; 0 for single values.
        num_values: int64 [C].
        num_rows: the number of rows.
        types: for each column the dtype of its values.
        is_list: for each column whether it has lists.
    """

    block: Array
    values: Array
    offsets: Array
    num_values: Array
    num_rows: int
    types: tuple[np.dtype[Any], ...]
    is_list: tuple[bool, ...]

    def column(self, number: int) -> Column:
        """The rows of a column."""
        return Column(self.array(number), self.offsets_of(number) if self.is_list[number] else None)

    def array(self, number: int) -> Array:
        """The values of a column."""
        dtype, start = self.types[number], int(self.values[number]) - address_of(self.block)
        return self.block[start : start + int(self.num_values[number]) * dtype.itemsize].view(dtype)

    def offsets_of(self, number: int) -> Array:
        """The offsets of a column of lists, int32 [rows + 1]."""
        start = int(self.offsets[number]) - address_of(self.block)
        return self.block[start : start + 4 * (self.num_rows + 1)].view(np.int32)


class ChunkReader:
    """Reads columns of the row groups of a local file.

    Args:
        path: the file.
        file: the same file, open.
        names: the columns to read.

    Attributes:
        numbers: for each column its number in what is decoded.
        close: closes the file; it is closed, too, when nobody refers to this reader any more.

    Raises:
        ValueError: the columns are not what this decodes.
        KeyError: there is no such column.
    """

    def __init__(self, path: Path, file: pq.ParquetFile, names: Sequence[str]) -> None:
        metadata, schema = file.metadata, file.schema
        leaves = {schema.column(n).path.split(".")[0]: n for n in range(len(schema))}
        self.numbers = {name: number for number, name in enumerate(names)}
        self._columns = np.array([leaves[name] for name in names], np.int64)
        chosen = [schema.column(int(n)) for n in self._columns]
        if any((c.max_repetition_level, c.max_definition_level) not in ((0, 0), (1, 1)) for c in chosen):
            raise ValueError("columns that may hold nulls")
        self._is_list = np.array([c.max_repetition_level == 1 for c in chosen], bool)
        self._lists = tuple(self._is_list.tolist())
        self._num_rows = [metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)]
        self._descriptor = os.open(path, os.O_RDONLY)
        self.close = weakref.finalize(self, os.close, self._descriptor)
        size = os.fstat(self._descriptor).st_size
        length = int.from_bytes(os.pread(self._descriptor, 4, size - 8), "little")
        footer = np.frombuffer(os.pread(self._descriptor, length, size - 8 - length), np.uint8)
        self._chunks = np.empty((metadata.num_row_groups, metadata.num_columns, 6), np.int64)
        if not thrift.read_footer(address_of(footer), len(footer), self._chunks):
            raise ValueError("a footer of another kind")
        own = self._chunks[:, self._columns]
        _check_bounds(own, np.array(self._num_rows, np.int64), size)
        codecs, kinds = np.unique(own[:, :, thrift.CODEC]), own[0, :, thrift.TYPE]
        if len(codecs) != 1 or int(codecs[0]) not in (0, 6, 7) or any(int(kind) not in _ITEMS for kind in kinds):
            raise ValueError("another codec or type")
        name = _CODECS[int(codecs[0])]
        self._codec = pa.Codec(name) if name else None
        self._items = np.array([_ITEMS[int(kind)] for kind in kinds], np.int64)
        dtypes: dict[int, np.dtype[Any]] = {1: np.dtype(np.int32), 2: np.dtype(np.int64), 4: np.dtype(np.float32)}
        self._types = tuple(dtypes[int(kind)] for kind in kinds)
        self._pages = np.empty((4 * len(names) + 64, 7), np.int64)
        self._scratch = np.empty(1 << 16, np.int32)

    def fetch(self, row_group: int) -> tuple[int, bytes]:
        """Reads the bytes of a row group's columns: the place in the file of the first of them, and the bytes.

        Raises:
            OSError: they cannot be read.
        """
        own = self._chunks[row_group][self._columns]
        dictionaries = own[:, thrift.DICTIONARY_START]
        starts = np.where(dictionaries < 0, own[:, thrift.DATA_START], dictionaries)
        first = int(starts.min())
        return first, os.pread(self._descriptor, int((starts + own[:, thrift.BYTES]).max()) - first, first)

    def decode(self, row_group: int, first: int, packed: bytes) -> DecodedChunks:
        """Decodes a row group.

        Args:
            row_group: its number, counted from 0.
            first: the place in the file of the first byte.
            packed: what ``fetch`` has read.

        Raises:
            ValueError: it cannot be decoded here.
        """
        chunks, num_rows = self._chunks[row_group], self._num_rows[row_group]
        own, buffer = chunks[self._columns], pa.py_buffer(packed)
        while True:
            found = page_loops.find_pages(buffer.address, first, len(packed), chunks, self._columns, self._pages)
            if found != -2:
                break
            self._pages = np.empty((2 * len(self._pages), 7), np.int64)
        if found < 0:
            raise ValueError("a page of another kind")
        pages = self._pages[:found]
        unpacked, kept = self._unpack(buffer, pages)
        num_values = own[:, thrift.NUM_VALUES].copy()
        spaces = -(-num_values * self._items // _ALIGN) * _ALIGN
        lists = np.where(self._is_list, -(-4 * (num_rows + 1) // _ALIGN) * _ALIGN, 0)
        ends = np.cumsum(spaces + lists)
        block = np.empty(int(ends[-1]) + _ALIGN, np.uint8)
        base = -(-address_of(block) // _ALIGN) * _ALIGN
        values = base + ends - spaces - lists
        offsets = np.where(self._is_list, values + spaces, 0)
        largest = int(pages[:, page_loops.PAGE_COUNT].max()) if found else 0
        if largest > len(self._scratch):
            self._scratch = np.empty(2 * largest, np.int32)
        wrong = page_loops.decode_pages(
            pages, unpacked, self._items, num_values, values, offsets, num_rows, self._scratch
        )
        del kept
        if wrong >= 0:
            raise ValueError(f"column {wrong}")
        return DecodedChunks(block, values, offsets, num_values, num_rows, self._types, self._lists)

    def _unpack(self, buffer: pa.Buffer, pages: Array) -> tuple[Array, list[pa.Buffer]]:
        """Unpacks pages: the addresses of their bytes, int64 [P], and what keeps them."""
        codec = self._codec
        if codec is None:
            if (pages[:, page_loops.SIZE] != pages[:, page_loops.UNPACKED_SIZE]).any():
                raise ValueError("a page that tells of more bytes than it has")
            return buffer.address + pages[:, page_loops.PLACE], []
        kept = [
            codec.decompress(buffer.slice(place, size), unpacked) if unpacked else buffer
            for place, size, unpacked in pages[:, page_loops.PLACE :].tolist()
        ]
        return np.array([one.address for one in kept], np.int64), kept


def _check_bounds(chunks: Array, num_rows: Array, size: int) -> None:
    """Refuses a footer whose numbers do not fit the file, so that no address is computed from them.

    Args:
        chunks: int64 [row groups, columns, 6], see ``thrift``.
        num_rows: int64 [row groups].
        size: the bytes of the file.

    Raises:
        ValueError: columns lie outside of the file, or have fewer values than rows, or none, or more than offsets take.
    """
    if not chunks.size:
        raise ValueError("no row group")
    _, _, num_values, num_bytes, data, dictionaries = np.moveaxis(chunks, 2, 0)
    starts = np.where(dictionaries < 0, data, dictionaries)
    if (starts < 0).any() or (num_bytes < 0).any() or (starts > size - num_bytes).any():
        raise ValueError("columns outside of the file")
    if (num_rows <= 0).any() or (num_values < num_rows[:, None]).any() or num_values.max() > np.iinfo(np.int32).max:
        raise ValueError("another number of values")
