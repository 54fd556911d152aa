"""Parquet files of a clustered table: one directory for the samples, one per group, one per group's streams.

Encoding matters more than layout: bit packing destroys the matches that zstd would find from row to row (2.6x against
6.6x, measured), and dictionaries lose on hashed ids. So each column's encoding is chosen by writing some rows in
memory; running numbers take DELTA. Every column and list element is ``required``: reading is 30-65% faster.
"""

import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from recd_dist.errors import ConfigError, nearest
from recd_dist.manifest import STREAM, FileEntry, Part, stream_directory
from recd_dist.schema import KEYS, SAMPLE_ID

COMPRESSIONS = {"zstd": 3, "lz4": None}
"""Codecs and their level: levels above 3 gain 2-4%, level 19 costs 20-35 times the time."""

ROW = "row"
PART_SHIFT = 40
"""``row`` = part << 40 | index in the part: unique in the table; ``stream`` likewise."""

_DICTIONARY, _PLAIN, _DELTA, _SPLIT = "RLE_DICTIONARY", "PLAIN", "DELTA_BINARY_PACKED", "BYTE_STREAM_SPLIT"
_WORTH = 0.95  # another encoding than PLAIN, the fastest to read, must save 5%
_TRIED_ROWS, _TRIED_BYTES = 8192, 1 << 21
_MAX_LEVEL = 22
_SUFFIX = stream_directory("")
_CHUNK = 1 << 20


def required(names: Iterable[str], columns: Iterable[pa.Array]) -> pa.Table:
    """A table whose columns cannot be null."""
    named = list(zip(names, columns, strict=True))
    schema = pa.schema([pa.field(name, column.type, nullable=False) for name, column in named])
    return pa.Table.from_arrays([column for _, column in named], schema=schema)


def checked_compression(name: str) -> str:
    """A codec's name, ``zstd``, ``zstd:6`` (a level from 1 to 22) or ``lz4``.

    Raises:
        ConfigError: an unknown codec or level.
    """
    _codec(name)
    return name


def _codec(name: str) -> tuple[str, int | None]:
    codec, has_level, level = name.partition(":")
    if codec not in COMPRESSIONS:
        raise ConfigError(f"compression '{name}': no such codec{nearest(codec, COMPRESSIONS)}")
    if not has_level:
        return codec, COMPRESSIONS[codec]
    if COMPRESSIONS[codec] is None:
        raise ConfigError(f"compression '{name}': {codec} has no levels; write {codec}")
    if not level.isdecimal() or not 1 <= int(level) <= _MAX_LEVEL:
        raise ConfigError(f"compression '{name}': a level is a number from 1 to {_MAX_LEVEL}, such as {codec}:6")
    return codec, int(level)


class PartWriter:
    """Part n of a table: a file of samples, one of each group and one of its streams, whose row groups correspond.

    Args:
        table: directory of the table.
        number: of the part.
        compression: ``zstd``, ``zstd:LEVEL`` or ``lz4``.
        encodings: per directory the encoding of each column's leaf, as ``encodings`` returns it; what is absent is
            tried on the first rows.

    Usage: ``write`` for each directory, then ``close``.
    """

    def __init__(
        self, table: Path, number: int, compression: str, encodings: Mapping[str, Mapping[str, str]] | None = None
    ) -> None:
        self.table = table
        self.number = number
        self.compression = compression
        self._encodings = encodings or {}
        self._entries: dict[str, FileEntry] = {}

    def write(
        self,
        directory: str,
        rows: pa.Table,
        bounds: npt.NDArray[np.int64],
        done: Callable[[int], None] = lambda _: None,
    ) -> None:
        """Writes one file whole.

        Args:
            directory: ``samples``, a group or its streams.
            rows: all rows of the part.
            bounds: int64 [row groups + 1], rows of each row group.
            done: called with the rows of each row group written.
        """
        path = f"{directory}/part-{self.number:05d}.parquet"
        full = self.table / path
        full.parent.mkdir(parents=True, exist_ok=True)
        chosen = self._encodings.get(directory) or encodings(rows, self.compression)
        sizes = np.diff(bounds).tolist()
        with pq.ParquetWriter(str(full), rows.schema, **_options(rows.schema, chosen, self.compression)) as writer:
            for start, size in zip(bounds.tolist(), sizes, strict=False):
                writer.write_table(rows.slice(start, size), row_group_size=max(size, 1))
                done(size)
        self._entries[directory] = _entry(full, path, sizes)

    def close(self) -> Part:
        """The part: its files, their sizes and checksums."""
        streams = {d.removesuffix(_SUFFIX): e for d, e in self._entries.items() if d.endswith(_SUFFIX)}
        groups = {d: e for d, e in self._entries.items() if not d.endswith(_SUFFIX)}
        return Part(groups.pop("samples"), groups, streams, number=self.number)


def encodings(rows: pa.Table, compression: str) -> dict[str, str]:
    """The encoding of each column's leaf that suits these rows: written in memory, as many as tell it."""
    num_rows = max(min(rows.num_rows, _TRIED_ROWS), 1)
    return {_leaf(f): _encoding(rows.select([f.name]).slice(0, num_rows), compression) for f in rows.schema}


def _entry(full: Path, path: str, row_groups: list[int]) -> FileEntry:
    num_bytes, crc32 = 0, 0
    with full.open("rb") as file:
        while block := file.read(_CHUNK):
            num_bytes += len(block)
            crc32 = zlib.crc32(block, crc32)
    return FileEntry(path, tuple(row_groups), num_bytes, crc32)


def _options(schema: pa.Schema, encodings: Mapping[str, str], compression: str) -> dict[str, Any]:
    """Options of a Parquet writer. Only numbers by which rows are found have statistics: ids and lists need none."""
    codec, level = _codec(compression)
    return {
        "compression": codec,
        "compression_level": level,
        "use_dictionary": [leaf for leaf, encoding in encodings.items() if encoding == _DICTIONARY],
        "column_encoding": {leaf: encoding for leaf, encoding in encodings.items() if encoding != _DICTIONARY},
        "write_statistics": [name for name in schema.names if name in KEYS or _is_running(name)],
        "store_schema": False,
    }


def _leaf(field: pa.Field) -> str:
    return f"{field.name}.list.element" if pa.types.is_list(field.type) else str(field.name)


def _is_running(name: str) -> bool:
    """Numbers that never decrease."""
    return name in (ROW, STREAM, SAMPLE_ID) or name.endswith(f"_{ROW}")


def _encoding(column: pa.Table, compression: str) -> str:
    """The encoding that writes one column smallest, PLAIN unless another saves 5%."""
    field = column.schema.field(0)
    if _is_running(field.name) and field.type == pa.int64():
        return _DELTA
    if column.nbytes > _TRIED_BYTES:
        column = column.slice(0, max(column.num_rows * _TRIED_BYTES // column.nbytes, 1))
    tried = [_PLAIN, _DICTIONARY, _SPLIT, *([_DELTA] if pa.types.is_integer(field.type) else [])]
    sizes = {encoding: _size(column, _leaf(field), encoding, compression) for encoding in tried}
    best = min(sizes, key=lambda encoding: sizes[encoding])
    return best if sizes[best] < _WORTH * sizes[_PLAIN] else _PLAIN


def _size(column: pa.Table, leaf: str, encoding: str, compression: str) -> int:
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, column.schema, **_options(column.schema, {leaf: encoding}, compression)) as writer:
        writer.write_table(column, row_group_size=max(column.num_rows, 1))
    return int(sink.tell()) if not sink.closed else int(sink.getvalue().size)
