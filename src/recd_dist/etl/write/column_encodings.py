"""How each column is written: an encoding, and a level of zstd or lz4, that suit its values.

Encoding matters more than layout: bit packing destroys the matches that zstd would find from row to row (2.6x against
6.6x, measured), and dictionaries lose on hashed ids. Higher levels find 3-9% on some columns (histories of categories,
dense numbers) and lose on others (few distinct ids). So each column is tried: some rows are written in memory, in row
groups as large as the table's, in every encoding that fits, then the best two at other levels. From level 3 on lz4
looks for longer matches (its HC mode): 20% smaller on these tables, read as fast. Running numbers take DELTA.

A choice is ``ENCODING`` or ``ENCODING:LEVEL``, such as ``BYTE_STREAM_SPLIT:12``.
"""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from recd_dist.errors import ConfigError, nearest
from recd_dist.table.manifest import ROW, STREAM
from recd_dist.table.schema import KEYS, SAMPLE_ID

COMPRESSIONS = {"zstd": 3, "lz4": 3}
"""Codecs and their level; level 19 of zstd costs 20-35 times the time of 3, level 12 of lz4 40 times."""


_DICTIONARY, _PLAIN, _DELTA, _SPLIT = "RLE_DICTIONARY", "PLAIN", "DELTA_BINARY_PACKED", "BYTE_STREAM_SPLIT"
_WORTH = {_DICTIONARY: 0.95, _DELTA: 0.95, _SPLIT: 0.98}  # what must be saved on PLAIN, the fastest to read
_LEVELS = {"zstd": (1, 3, 6, 12), "lz4": (1, 3, 6, 9)}
_WORTH_LEVEL = 0.99  # what a higher level must save on the lower ones: it takes longer to write
_TRIED_ROWS, _TRIED_BYTES = 8192, 1 << 21
_PAGE_BYTES = 16 << 20  # a row group holds one page a column: zstd finds what repeats across it
_MAX_LEVEL = {"zstd": 22, "lz4": 12}


def checked_compression(name: str) -> str:
    """A codec's name: ``zstd`` or ``lz4``, or one level of it, ``zstd:6`` (1 to 22), ``lz4:9`` (1 to 12).

    Raises:
        ConfigError: an unknown codec or level.
    """
    _codec(name)
    return name


def _codec(name: str) -> tuple[str, int]:
    codec, has_level, level = name.partition(":")
    if codec not in COMPRESSIONS:
        raise ConfigError(f"compression '{name}': no such codec{nearest(codec, COMPRESSIONS)}")
    if not has_level:
        return codec, COMPRESSIONS[codec]
    if not level.isdecimal() or not 1 <= int(level) <= _MAX_LEVEL[codec]:
        raise ConfigError(f"compression '{name}': a level is a number from 1 to {_MAX_LEVEL[codec]}, such as {codec}:6")
    return codec, int(level)


def encodings(rows: pa.Table, row_group_rows: int, compression: str, levels: bool = True) -> dict[str, str]:
    """What suits each column.

    Args:
        rows: some of a file's rows.
        row_group_rows: rows of its row groups, about.
        compression: ``zstd`` and ``lz4`` leave the level of each column open, ``zstd:LEVEL`` and ``lz4:LEVEL`` do not.
        levels: try levels too, which takes three times as long.

    Returns:
        A choice per leaf.
    """
    tried = rows.slice(0, _TRIED_ROWS)
    columns = {f: _Tried(tried.select([f.name]), row_group_rows, compression) for f in rows.schema}
    return {leaf(f): column.best(levels and compression in COMPRESSIONS) for f, column in columns.items()}


class _Tried:
    """One column, written in memory in several ways."""

    def __init__(self, column: pa.Table, row_group_rows: int, compression: str) -> None:
        if column.nbytes > _TRIED_BYTES:
            column = column.slice(0, max(column.num_rows * _TRIED_BYTES // column.nbytes, 1))
        self.column = column
        self.field = column.schema.field(0)
        self.row_group_rows = max(row_group_rows, 1)
        self.compression = compression

    def best(self, levels: bool) -> str:
        """PLAIN unless another encoding is worth it; with levels the lowest that is not worth leaving."""
        if _is_running(self.field.name) and self.field.type == pa.int64():
            return _DELTA
        fits = [_PLAIN, _DICTIONARY, _SPLIT, *([_DELTA] if pa.types.is_integer(self.field.type) else [])]
        sizes = {encoding: self._size(encoding) for encoding in fits}
        chosen = self._worth(sizes)
        if not levels:
            return chosen
        best: dict[str, int] = {}
        for encoding in sorted(sizes, key=lambda e: sizes[e])[:2]:
            levels_of = _LEVELS[self.compression]
            at = {level: self._size(f"{encoding}:{level}") for level in levels_of}
            level = min(levels_of)
            for higher in levels_of:
                level = higher if at[higher] < _WORTH_LEVEL * at[level] else level
            best[f"{encoding}:{level}"] = at[level]
        plain = next((choice for choice in best if choice.startswith(_PLAIN)), None)
        winner = min(best, key=lambda choice: best[choice])
        worth = _WORTH.get(winner.partition(":")[0], 1.0)
        return plain if plain and best[winner] >= worth * best[plain] else winner

    def _worth(self, sizes: Mapping[str, int]) -> str:
        best = min(sizes, key=lambda encoding: sizes[encoding])
        return best if sizes[best] < _WORTH.get(best, 1.0) * sizes[_PLAIN] else _PLAIN

    def _size(self, choice: str) -> int:
        sink = pa.BufferOutputStream()
        options = writer_options(self.column.schema, {leaf(self.field): choice}, self.compression)
        with pq.ParquetWriter(sink, self.column.schema, **options) as writer:
            writer.write_table(self.column, row_group_size=self.row_group_rows)
        return int(sink.getvalue().size)


def writer_options(schema: pa.Schema, choices: Mapping[str, str], compression: str) -> dict[str, Any]:
    """Options of a Parquet writer.

    Only numbers by which rows are found have statistics: on ids and lists they would select nothing.
    """
    codec, level = _codec(compression)
    encoding = {name: choice.partition(":")[0] for name, choice in choices.items()}
    levels = {name: int(at) for name, choice in choices.items() if (at := choice.partition(":")[2])}
    return {
        "compression": codec,
        "compression_level": {name: levels.get(name, level) for name in choices},
        "use_dictionary": [name for name, one in encoding.items() if one == _DICTIONARY],
        "column_encoding": {name: one for name, one in encoding.items() if one != _DICTIONARY},
        "write_statistics": [name for name in schema.names if name in KEYS or _is_running(name)],
        "store_schema": False,
        "data_page_size": _PAGE_BYTES,
    }


def leaf(field: pa.Field) -> str:
    """A column's name in Parquet."""
    return f"{field.name}.list.element" if pa.types.is_list(field.type) else str(field.name)


def _is_running(name: str) -> bool:
    """Numbers that never decrease."""
    return name in (ROW, STREAM, SAMPLE_ID) or name.endswith(f"_{ROW}")
