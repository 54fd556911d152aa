"""Parquet files of a part: one of the samples, one per group, one per group's streams, whose row groups correspond.

Every column and list element is ``required``: reading is 30-65% faster.
"""

import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from recd_dist.etl.encode import ROW, checked_compression, encodings, writer_options
from recd_dist.manifest import FileEntry, Part, stream_directory

__all__ = ["PART_SHIFT", "ROW", "PartWriter", "checked_compression", "required"]

PART_SHIFT = 40
"""``row`` = part << 40 | index in the part: unique in the table; ``stream`` likewise."""

_SUFFIX = stream_directory("")
_CHUNK = 1 << 20


def required(names: Iterable[str], columns: Iterable[pa.Array]) -> pa.Table:
    """A table whose columns cannot be null."""
    named = list(zip(names, columns, strict=True))
    schema = pa.schema([pa.field(name, column.type, nullable=False) for name, column in named])
    return pa.Table.from_arrays([column for _, column in named], schema=schema)


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
        sizes = np.diff(bounds).tolist()
        chosen = self._encodings.get(directory) or encodings(rows, max(sizes), self.compression, levels=False)
        with pq.ParquetWriter(
            str(full), rows.schema, **writer_options(rows.schema, chosen, self.compression)
        ) as writer:
            for start, size in zip(bounds.tolist(), sizes, strict=False):
                writer.write_table(rows.slice(start, size), row_group_size=max(size, 1))
                done(size)
        self._entries[directory] = _entry(full, path, sizes)

    def close(self) -> Part:
        """The part: its files, their sizes and checksums."""
        streams = {d.removesuffix(_SUFFIX): e for d, e in self._entries.items() if d.endswith(_SUFFIX)}
        groups = {d: e for d, e in self._entries.items() if not d.endswith(_SUFFIX)}
        return Part(groups.pop("samples"), groups, streams, number=self.number)


def _entry(full: Path, path: str, row_groups: list[int]) -> FileEntry:
    num_bytes, crc32 = 0, 0
    with full.open("rb") as file:
        while block := file.read(_CHUNK):
            num_bytes += len(block)
            crc32 = zlib.crc32(block, crc32)
    return FileEntry(path, tuple(row_groups), num_bytes, crc32)
