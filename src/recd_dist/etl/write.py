"""Parquet files of a clustered table: one directory for the samples, one per group.

Encoding matters more than layout: bit packing destroys the matches that zstd would find from row to row (2.6x against
6.6x, measured), and dictionaries lose on hashed ids. So each column's encoding is chosen by writing its first row group
in memory; running numbers take DELTA. Every column and list element is ``required``: reading is 30-65% faster.
"""

import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from recd_dist.errors import ConfigError, nearest
from recd_dist.manifest import FileEntry, Part
from recd_dist.schema import SAMPLE_ID

COMPRESSIONS = {"zstd": 3, "lz4": None}
"""Codecs and their level: levels above 3 gain 2-4%, level 19 costs 20-35 times the time."""

ROW = "row"
PART_SHIFT = 40
"""``row`` = part << 40 | index in the part: unique in the table."""

_DICTIONARY, _PLAIN, _DELTA, _SPLIT = "RLE_DICTIONARY", "PLAIN", "DELTA_BINARY_PACKED", "BYTE_STREAM_SPLIT"
_WORTH = 0.95  # another encoding than PLAIN, the fastest to read, must save 5%
_CHUNK = 1 << 20


def required(names: Iterable[str], columns: Iterable[pa.Array]) -> pa.Table:
    """A table whose columns cannot be null."""
    named = list(zip(names, columns, strict=True))
    schema = pa.schema([pa.field(name, column.type, nullable=False) for name, column in named])
    return pa.Table.from_arrays([column for _, column in named], schema=schema)


def checked_compression(name: str) -> str:
    """A codec's name.

    Raises:
        ConfigError: an unknown codec.
    """
    if name not in COMPRESSIONS:
        raise ConfigError(f"compression '{name}': no such codec{nearest(name, COMPRESSIONS)}")
    return name


class PartWriter:
    """Part n of a table: a file of samples and one of each group, whose row groups correspond.

    Args:
        table: directory of the table.
        number: of the part.
        compression: ``zstd`` or ``lz4``.

    Usage: ``write`` for each row group, then ``close``.
    """

    def __init__(self, table: Path, number: int, compression: str) -> None:
        self.table = table
        self.name = f"part-{number:05d}.parquet"
        self.compression = compression
        self._files: dict[str, _File] = {}

    def write(self, samples: pa.Table, groups: Mapping[str, pa.Table]) -> None:
        """Writes one row group of the samples and of every group."""
        for directory, rows in (("samples", samples), *groups.items()):
            if directory not in self._files:
                self._files[directory] = _File(self.table, f"{directory}/{self.name}", rows, self.compression)
            self._files[directory].write(rows)

    def close(self) -> Part:
        """Finishes the files; returns their sizes and checksums."""
        entries = {directory: file.close() for directory, file in self._files.items()}
        return Part(entries.pop("samples"), entries)


class _File:
    def __init__(self, table: Path, path: str, first: pa.Table, compression: str) -> None:
        self.path = path
        self.full = table / path
        self.full.parent.mkdir(parents=True, exist_ok=True)
        self.row_groups: list[int] = []
        options = _options(first, compression)
        self.writer = pq.ParquetWriter(str(self.full), first.schema, **options)

    def write(self, rows: pa.Table) -> None:
        self.writer.write_table(rows, row_group_size=max(rows.num_rows, 1))
        self.row_groups.append(rows.num_rows)

    def close(self) -> FileEntry:
        self.writer.close()
        num_bytes, crc32 = 0, 0
        with self.full.open("rb") as file:
            while block := file.read(_CHUNK):
                num_bytes += len(block)
                crc32 = zlib.crc32(block, crc32)
        return FileEntry(self.path, tuple(self.row_groups), num_bytes, crc32)


def _options(rows: pa.Table, compression: str) -> dict[str, Any]:
    """Options of a Parquet writer, with an encoding per column that suits these rows."""
    chosen = {_leaf(field): _encoding(rows.select([field.name]), compression) for field in rows.schema}
    return _writer_options(chosen, compression)


def _writer_options(encodings: Mapping[str, str], compression: str) -> dict[str, Any]:
    return {
        "compression": compression,
        "compression_level": COMPRESSIONS[compression],
        "use_dictionary": [leaf for leaf, encoding in encodings.items() if encoding == _DICTIONARY],
        "column_encoding": {leaf: encoding for leaf, encoding in encodings.items() if encoding != _DICTIONARY},
        "write_statistics": True,
        "store_schema": False,
    }


def _leaf(field: pa.Field) -> str:
    return f"{field.name}.list.element" if pa.types.is_list(field.type) else str(field.name)


def _encoding(column: pa.Table, compression: str) -> str:
    """The encoding that writes one column smallest, PLAIN unless another saves 5%."""
    field = column.schema.field(0)
    if field.name in (ROW, SAMPLE_ID) or field.name.endswith(f"_{ROW}"):
        return _DELTA
    sizes = {encoding: _size(column, _leaf(field), encoding, compression) for encoding in (_PLAIN, _DICTIONARY, _SPLIT)}
    best = min(sizes, key=lambda encoding: sizes[encoding])
    return best if sizes[best] < _WORTH * sizes[_PLAIN] else _PLAIN


def _size(column: pa.Table, leaf: str, encoding: str, compression: str) -> int:
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, column.schema, **_writer_options({leaf: encoding}, compression)) as writer:
        writer.write_table(column, row_group_size=max(column.num_rows, 1))
    return int(sink.tell()) if not sink.closed else int(sink.getvalue().size)
