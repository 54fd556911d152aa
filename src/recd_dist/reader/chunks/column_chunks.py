"""Decodes the column chunks of Parquet files' row groups into plain memory, all columns in a few calls.

::

    file        one read of the bytes that the columns lie in
    pages       found by their headers; unpacked by pyarrow's codecs (lz4, zstd)
    values      decoded by one call for all pages: required numbers, and lists of them

pyarrow's reader makes some objects for each column of each row group, which takes longer than decoding a column of 8192
ids does. What it can read and this cannot (nulls, other types, encodings and codecs) is left to it.
"""

import errno
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
from recd_dist.reader.chunks.slabs import Slabs
from recd_dist.table.addresses import address_of
from recd_dist.table.column import Array, Column

_CODECS = {0: None, 6: "zstd", 7: "lz4_raw"}
_DTYPES: dict[int, np.dtype[Any]] = {1: np.dtype(np.int32), 2: np.dtype(np.int64), 4: np.dtype(np.float32)}
"""By physical type: INT32, INT64, FLOAT."""
_ALIGN = 64


@dataclass(frozen=True)
class DecodedChunks:
    """Columns of row groups in memory.

    Attributes:
        block: uint8, what holds all of it.
        values: int64 [C], where the values of each column begin in memory.
        offsets: int64 [C], where the int32 offsets of lists do; 0 for single values.
        num_values: int64 [C].
        num_rows: int64 [C].
        types: for each column the dtype of its values.
    """

    block: Array
    values: Array
    offsets: Array
    num_values: Array
    num_rows: Array
    types: tuple[np.dtype[Any], ...]

    def column(self, number: int) -> Column:
        """The rows of a column."""
        return Column(self.array(number), self.offsets_of(number) if self.offsets[number] else None)

    def array(self, number: int) -> Array:
        """The values of a column."""
        dtype, start = self.types[number], int(self.values[number]) - address_of(self.block)
        return self.block[start : start + int(self.num_values[number]) * dtype.itemsize].view(dtype)

    def offsets_of(self, number: int) -> Array:
        """The offsets of a column of lists, int32 [rows + 1]."""
        start = int(self.offsets[number]) - address_of(self.block)
        return self.block[start : start + 4 * (int(self.num_rows[number]) + 1)].view(np.int32)


class ChunkFile:
    """A local file, and where the chunks of some of its columns lie.

    Args:
        path: the file.
        file: the same file, open.
        names: the columns to read.

    Attributes:
        path: the file.
        identity: what changes when it is replaced or written.
        chunks: int64 [row groups, C, 6], see ``thrift``.
        starts: int64 [row groups, C], where each chunk begins in the file.
        num_rows: int64 [row groups].
        codec: the codec of all chunks; None where they are not compressed.
        is_list: bool [C].
        types: the dtypes of values.

    Raises:
        ValueError: the columns are not what this decodes.
        KeyError: there is no such column.
    """

    def __init__(self, path: Path, file: pq.ParquetFile, names: Sequence[str]) -> None:
        self.path, metadata, schema = path, file.metadata, file.schema
        leaves = {schema.column(n).path.split(".")[0]: n for n in range(len(schema))}
        chosen = [schema.column(leaves[name]) for name in names]
        if any((c.max_repetition_level, c.max_definition_level) not in ((0, 0), (1, 1)) for c in chosen):
            raise ValueError("columns that may hold nulls")
        self.is_list = np.array([c.max_repetition_level == 1 for c in chosen], bool)
        self.num_rows = np.array([metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)], np.int64)
        with path.open("rb", buffering=0) as opened:
            self.identity = _identity_of(opened.fileno())
            size = opened.seek(0, os.SEEK_END)
            length = int.from_bytes(os.pread(opened.fileno(), 4, size - 8), "little")
            footer = np.frombuffer(os.pread(opened.fileno(), length, size - 8 - length), np.uint8)
        found = np.empty((metadata.num_row_groups, metadata.num_columns, 6), np.int64)
        if not thrift.read_footer(address_of(footer), len(footer), found):
            raise ValueError("a footer of another kind")
        self.chunks = found[:, [leaves[name] for name in names]]
        dictionaries = self.chunks[:, :, thrift.DICTIONARY_START]
        self.starts = np.where(dictionaries < 0, self.chunks[:, :, thrift.DATA_START], dictionaries)
        self._check(size)
        name = _CODECS[int(self.chunks[0, 0, thrift.CODEC])]
        self.codec = pa.Codec(name) if name else None
        self.types = tuple(_DTYPES[int(kind)] for kind in self.chunks[0, :, thrift.TYPE])

    def _check(self, size: int) -> None:
        """Refuses chunks that are not decoded here, and numbers that do not fit the file: addresses come from them.

        Args:
            size: of the file.
        """
        if not self.chunks.size:
            raise ValueError("no row group")
        codecs, kinds = np.unique(self.chunks[:, :, thrift.CODEC]), self.chunks[:, :, thrift.TYPE]
        num_values, sizes = (self.chunks[:, :, field] for field in (thrift.NUM_VALUES, thrift.BYTES))
        if len(codecs) > 1 or int(codecs[0]) not in _CODECS:
            raise ValueError("another codec")
        if (kinds != kinds[0]).any() or any(int(kind) not in _DTYPES for kind in kinds[0]):
            raise ValueError("another type")
        if (self.starts < 0).any() or (sizes < 0).any() or (self.starts > size - sizes).any():
            raise ValueError("columns outside of the file")
        num_rows = self.num_rows[:, None]
        is_short = np.where(self.is_list, num_values < num_rows, num_values != num_rows)
        if (num_rows <= 0).any() or is_short.any() or num_values.max() > np.iinfo(np.int32).max:
            raise ValueError("another number of values")


def _identity_of(descriptor: int) -> tuple[int, ...]:
    """What changes when a file is replaced or written."""
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


class Scratch:
    """Memory that decoding takes, the same at every row group; for one thread at a time.

    Attributes:
        pages: int64 [capacity, 7], see ``pages``.
        numbers: int32, as long as the largest page.
        bytes: those of the row group that is decoded.
        buffer: the same memory for pyarrow.
        slabs: memory for what is decoded.
    """

    def __init__(self) -> None:
        self.slabs = Slabs()
        self.pages = np.empty((1024, 7), np.int64)
        self.numbers = np.empty(1 << 16, np.int32)
        self.bytes = np.empty(0, np.uint8)
        self.buffer = pa.py_buffer(self.bytes)

    def reserve(self, size: int) -> None:
        """Makes ``bytes`` at least that large."""
        if size > len(self.bytes):
            self.bytes = np.empty(size + size // 4, np.uint8)
            self.buffer = pa.py_buffer(self.bytes)


class ChunkReader:
    """Reads a row group of some files that belong together, with all of their columns at once.

    Args:
        files: they have as many row groups each.
        scratch: memory that other readers use as well.

    Attributes:
        types: for each column the dtype of its values.

    Raises:
        ValueError: the files do not fit each other.
    """

    def __init__(self, files: Sequence[ChunkFile], scratch: Scratch) -> None:
        if len({len(file.num_rows) for file in files}) > 1 or len({str(file.codec) for file in files}) > 1:
            raise ValueError("files of several kinds")
        self._paths = [(file.path, file.identity) for file in files]
        self._descriptors: list[int] = []
        weakref.finalize(self, _close_all, self._descriptors)
        self._scratch, self._codec = scratch, files[0].codec
        self.types = tuple(kind for file in files for kind in file.types)
        is_list = np.concatenate([file.is_list for file in files])
        self._items = np.array([kind.itemsize for kind in self.types], np.int64)
        counts = [len(file.types) for file in files]
        self._num_rows = np.repeat(np.stack([file.num_rows for file in files], 1), counts, 1)
        chunks = np.concatenate([file.chunks for file in files], 1)
        self._sizes, self._num_values = (chunks[:, :, field].copy() for field in (thrift.BYTES, thrift.NUM_VALUES))
        starts = np.stack([file.starts.min(1) for file in files], 1)
        ends = np.stack([(file.starts + file.chunks[:, :, thrift.BYTES]).max(1) for file in files], 1)
        self._reads = np.stack([starts, ends - starts], 2)
        first = np.cumsum(self._reads[:, :, 1], 1) - self._reads[:, :, 1]
        self._places = np.concatenate([file.starts for file in files], 1) + np.repeat(first - starts, counts, 1)
        spaces = -(-self._num_values * self._items // _ALIGN) * _ALIGN
        lists = np.where(is_list, -(-4 * (self._num_rows + 1) // _ALIGN) * _ALIGN, 0)
        ends = np.cumsum(spaces + lists, 1)
        self._values, self._offsets = ends - spaces - lists, np.where(is_list, ends - lists, -1)
        self._totals = ends[:, -1]

    def close(self) -> None:
        """Closes the files; they are opened again when the next row group is fetched."""
        _close_all(self._descriptors)

    def _open(self) -> None:
        """Opens the files."""
        try:
            for path, identity in self._paths:
                self._descriptors.append(os.open(path, os.O_RDONLY))
                if _identity_of(self._descriptors[-1]) != identity:
                    raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(path))
        except OSError:
            self.close()
            raise

    def fetch(self, row_group: int) -> None:
        """Reads the bytes of a row group's columns into memory; opens the files for it, unless they are open.

        Args:
            row_group: its number, counted from 0.

        Raises:
            OSError: a file is gone, is another one by now, or cannot be read.
            ValueError: a file has become shorter.
        """
        if not self._descriptors:
            self._open()
        reads = self._reads[row_group].tolist()
        self._scratch.reserve(sum(size for _, size in reads))
        view, place = self._scratch.bytes.data, 0
        for descriptor, (start, size) in zip(self._descriptors, reads, strict=True):
            if os.preadv(descriptor, [view[place : place + size]], start) != size:
                raise ValueError("a file that was cut off")
            place += size

    def decode(self, row_group: int) -> DecodedChunks:
        """Decodes the row group that was fetched last.

        Args:
            row_group: its number.

        Raises:
            ValueError: it cannot be decoded here.
        """
        scratch, num_rows = self._scratch, self._num_rows[row_group]
        size = int(self._reads[row_group, :, 1].sum())
        where = scratch.buffer.address, size, self._places[row_group], self._sizes[row_group]
        while (found := page_loops.find_pages(*where, self._num_values[row_group], scratch.pages)) == -2:
            scratch.pages = np.empty((2 * len(scratch.pages), 7), np.int64)
        if found < 0:
            raise ValueError("a page of another kind")
        pages = scratch.pages[:found]
        unpacked, kept = self._unpack(pages)
        block = scratch.slabs.take(int(self._totals[row_group]))
        base, relative = address_of(block), self._offsets[row_group]
        values, offsets = base + self._values[row_group], np.where(relative < 0, 0, base + relative)
        largest = int(pages[:, page_loops.PAGE_COUNT].max()) if found else 0
        if largest > len(scratch.numbers):
            scratch.numbers = np.empty(2 * largest, np.int32)
        num_values = self._num_values[row_group].copy()
        wrong = page_loops.decode_pages(
            pages, unpacked, self._items, num_values, values, offsets, num_rows, scratch.numbers
        )
        del kept
        if wrong >= 0:
            raise ValueError(f"column {wrong}")
        return DecodedChunks(block, values, offsets, num_values, num_rows, self.types)

    def _unpack(self, pages: Array) -> tuple[Array, list[pa.Buffer]]:
        """Unpacks pages: the addresses of their bytes, int64 [P], and what keeps them."""
        codec, buffer = self._codec, self._scratch.buffer
        if codec is None:
            if (pages[:, page_loops.SIZE] != pages[:, page_loops.UNPACKED_SIZE]).any():
                raise ValueError("a page that tells of more bytes than it has")
            return buffer.address + pages[:, page_loops.PLACE], []
        kept = [
            codec.decompress(buffer.slice(place, size), unpacked) if unpacked else buffer
            for place, size, unpacked in pages[:, page_loops.PLACE :].tolist()
        ]
        return np.array([one.address for one in kept], np.int64), kept


def _close_all(descriptors: list[int]) -> None:
    """Closes files, and forgets them."""
    while descriptors:
        os.close(descriptors.pop())
