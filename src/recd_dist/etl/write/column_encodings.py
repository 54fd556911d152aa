"""The encoding, and the level of zstd or lz4, that suit the values of each column.

Encodings matter more than the layout. Bit packing destroys the matches that zstd would find from row to row (a factor
of 2.6 instead of 6.6, measured), and dictionaries lose on hashed ids. Higher levels gain 3-9% on some columns (those
of categories or dense numbers) and lose on others (few distinct ids). So each column is tried: some of its rows are
written in memory, in row groups as large as the table's, in every encoding that fits, and then in the best two at other
levels. From level 3 on lz4 looks for longer matches (its HC mode): files are 20% smaller on these tables and are read
as fast. Running numbers always take DELTA_BINARY_PACKED.

A choice is written ``ENCODING`` or ``ENCODING:LEVEL``, such as ``BYTE_STREAM_SPLIT:12``.
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from recd_dist.errors import ConfigError, nearest
from recd_dist.etl.source.source_options import NEWEST
from recd_dist.ranks.health.machine_share import usable_cores
from recd_dist.table.manifest import ROW, STREAM
from recd_dist.table.schema import KEYS, SAMPLE_ID

# Level 19 of zstd takes 20-35 times the time of level 3, level 12 of lz4 takes 40 times.
_USUAL_LEVEL = {"zstd": 3, "lz4": 3}
_DICTIONARY, _PLAIN, _DELTA, _SPLIT = "RLE_DICTIONARY", "PLAIN", "DELTA_BINARY_PACKED", "BYTE_STREAM_SPLIT"
# Spark reads BYTE_STREAM_SPLIT from 4.3 on; without it (readable_by=any) rm1's table is 6.4% larger (docs/table.md).
_WORTH = {_DICTIONARY: 0.95, _DELTA: 0.95, _SPLIT: 0.98}  # the most bytes, as a share of PLAIN's, which reads fastest
_LEVELS = {"zstd": (1, 3, 6, 12), "lz4": (1, 3, 6, 9)}
_WORTH_LEVEL = 0.99  # the most bytes of a higher level, as a share of the lower one's, which writes faster
_TRIED_ROWS, _TRIED_BYTES = 8192, 1 << 21
_TRIAL_THREADS = min(4, usable_cores())
_PAGE_BYTES = 16 << 20  # so a row group holds one page a column, and zstd finds what repeats anywhere in it
_MAX_LEVEL = {"zstd": 22, "lz4": 12}


def check_compression(name: str) -> None:
    """Refuses a compression that is unknown.

    Args:
        name: ``zstd`` or ``lz4``, or one level of these: ``zstd:6`` (1 to 22), ``lz4:9`` (1 to 12).

    Raises:
        ConfigError: the codec or the level is unknown.
    """
    _parse_compression(name)


def _parse_compression(name: str) -> tuple[str, int]:
    """The codec and the level that the name of a compression stands for."""
    codec, has_level, level = name.partition(":")
    if codec not in _USUAL_LEVEL:
        raise ConfigError(f"compression '{name}': no such codec{nearest(codec, _USUAL_LEVEL)}")
    if not has_level:
        return codec, _USUAL_LEVEL[codec]
    if not level.isdecimal() or not 1 <= int(level) <= _MAX_LEVEL[codec]:
        raise ConfigError(f"compression '{name}': a level is a number from 1 to {_MAX_LEVEL[codec]}, such as {codec}:6")
    return codec, int(level)


def choose_encodings(
    rows: pa.Table, row_group_rows: int, compression: str, readable_by: str = NEWEST, levels: bool = True
) -> dict[str, str]:
    """Chooses an encoding, and perhaps a level, for each column.

    Args:
        rows: some rows of a file.
        row_group_rows: number of rows that the file's row groups have, about.
        compression: ``zstd`` and ``lz4`` leave the level of each column open, ``zstd:LEVEL`` and ``lz4:LEVEL`` do not.
        readable_by: the engines that can read the file: ``newest``, or ``any`` for older ones too.
        levels: try levels too, which takes three times as long.

    Returns:
        Per leaf its choice.
    """
    tried = rows.slice(0, _TRIED_ROWS)

    def choose(field: pa.Field) -> str:
        trial = _Trial(tried.select([field.name]), row_group_rows, compression, readable_by)
        return trial.choose(levels and compression in _USUAL_LEVEL)

    with ThreadPoolExecutor(_TRIAL_THREADS) as pool:  # pyarrow lets other threads run while it writes
        return dict(zip(map(leaf, rows.schema), pool.map(choose, rows.schema), strict=True))


class _Trial:
    """Writes some rows of one column in memory in several ways.

    Args:
        column: a table of this column alone.
        row_group_rows: number of rows of a row group.
        compression: a codec, or one level of it.
        readable_by: the engines that can read the file.
    """

    def __init__(self, column: pa.Table, row_group_rows: int, compression: str, readable_by: str) -> None:
        if column.nbytes > _TRIED_BYTES:
            column = column.slice(0, max(column.num_rows * _TRIED_BYTES // column.nbytes, 1))
        self.column = column
        self.field = column.schema.field(0)
        self.row_group_rows = max(row_group_rows, 1)
        self.compression = compression
        self.fits = [_PLAIN, _DICTIONARY]
        if readable_by == NEWEST:
            self.fits.append(_SPLIT)
        if pa.types.is_integer(self.field.type):
            self.fits.append(_DELTA)

    def choose(self, levels: bool) -> str:
        """Chooses PLAIN unless another encoding saves enough, and (with levels) the lowest level that saves enough."""
        if _is_running(self.field.name) and self.field.type == pa.int64():
            return _DELTA
        sizes = {encoding: self._size(encoding) for encoding in self.fits}
        return self._choose_level(sizes) if levels else self._choose_encoding(sizes)

    def _choose_encoding(self, sizes: Mapping[str, int]) -> str:
        best = min(sizes, key=lambda encoding: sizes[encoding])
        return best if sizes[best] < _WORTH.get(best, 1.0) * sizes[_PLAIN] else _PLAIN

    def _choose_level(self, sizes: Mapping[str, int]) -> str:
        """Tries the levels of the two encodings that are smallest at the usual level."""
        best: dict[str, int] = {}
        for encoding in sorted(sizes, key=lambda e: sizes[e])[:2]:
            levels = _LEVELS[self.compression]
            size_at = {level: self._size(f"{encoding}:{level}") for level in levels}
            level = min(levels)
            for higher in levels:
                level = higher if size_at[higher] < _WORTH_LEVEL * size_at[level] else level
            best[f"{encoding}:{level}"] = size_at[level]
        plain = next((choice for choice in best if choice.startswith(_PLAIN)), None)
        winner = min(best, key=lambda choice: best[choice])
        worth = _WORTH.get(winner.partition(":")[0], 1.0)
        return plain if plain and best[winner] >= worth * best[plain] else winner

    def _size(self, choice: str) -> int:
        """Bytes of the column as a file, written with this choice."""
        sink = pa.BufferOutputStream()
        options = writer_options(self.column.schema, {leaf(self.field): choice}, self.compression)
        with pq.ParquetWriter(sink, self.column.schema, **options) as writer:
            writer.write_table(self.column, row_group_size=self.row_group_rows)
        return int(sink.getvalue().size)


def writer_options(schema: pa.Schema, choices: Mapping[str, str], compression: str) -> dict[str, Any]:
    """The options of a Parquet writer.

    Only numbers by which rows are looked up have statistics: on ids and lists no query could skip rows by them.

    Args:
        schema: columns of the file.
        choices: the choice for each leaf, as ``choose_encodings`` returns it.
        compression: the codec, and the level of the columns whose choice names none.
    """
    codec, level = _parse_compression(compression)
    encoding = {name: choice.partition(":")[0] for name, choice in choices.items()}
    levels = {name: int(text) for name, choice in choices.items() if (text := choice.partition(":")[2])}
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
    """The name of a column's values in Parquet."""
    return f"{field.name}.list.element" if pa.types.is_list(field.type) else str(field.name)


def _is_running(name: str) -> bool:
    """Whether a column holds running numbers, which never decrease."""
    return name in (ROW, STREAM, SAMPLE_ID) or name.endswith(f"_{ROW}")
