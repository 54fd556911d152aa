"""Vocabulary files: the values of an id column in order, so that each gets a small id.

::

    vocabulary   red, green, blue        values   green, pink, red, red
    ids            1      2     3        ids          2     0    1    1      0 is for what the vocabulary lacks

A file is Parquet or CSV (a column of it, the first where none is named), or text with a value a line. A table holds
texts as ids (the last 8 bytes of their MD5, docs/data.md), so the texts of a vocabulary are turned into the same ids.
"""

from dataclasses import dataclass
from functools import lru_cache
from hashlib import md5, sha256
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from recd_dist.errors import ConfigError, nearest
from recd_dist.table.column import Array

UNKNOWN = 0
"""The id of a value that a vocabulary does not have."""

_MOST_SPREAD = 8  # numbers for each key up to which all of them stand in a table
_TABLES = {".parquet": "Parquet", ".pq": "Parquet", ".csv": "CSV", ".tsv": "CSV"}


@dataclass(frozen=True)
class Vocabulary:
    """The values of a vocabulary.

    Attributes:
        keys: int64 [N], the ids that the table has for its values, rising.
        ids: int64 [N], the new id of each, in [1, N].
        table: int64, where the keys lie close together: the new id of each number from the first key to the last, 0
            for those that are no key, and 0 at the end.
    """

    keys: npt.NDArray[np.int64]
    ids: npt.NDArray[np.int64]
    table: npt.NDArray[np.int64] | None = None

    @staticmethod
    def of(keys: npt.NDArray[np.int64], ids: npt.NDArray[np.int64]) -> "Vocabulary":
        """A vocabulary; keys that lie close together are looked up in one step, others by halving.

        Args:
            keys: int64 [N], rising.
            ids: int64 [N], the new id of each.
        """
        span = int(keys[-1]) - int(keys[0]) + 1 if len(keys) else 0
        if not span or span > _MOST_SPREAD * len(keys):
            return Vocabulary(keys, ids)
        table = np.zeros(span + 1, np.int64)
        table[keys - keys[0]] = ids
        return Vocabulary(keys, ids, table)

    def places(self, values: Array) -> npt.NDArray[np.int64]:
        """The new ids of some values.

        Args:
            values: int32 or int64 [V], as the table has them.

        Returns:
            int64 [V], in [0, N]; 0 for a value that is not in the vocabulary.
        """
        if not len(self.keys):
            return np.zeros(len(values), np.int64)
        if self.table is not None:
            is_inside = (values >= self.keys[0]) & (values <= self.keys[-1])
            return self.table[np.where(is_inside, values - self.keys[0], len(self.table) - 1)]
        places = np.searchsorted(self.keys, values)
        places[places == len(self.keys)] = 0
        return np.where(self.keys[places] == values, self.ids[places], UNKNOWN)


def text_id(text: str) -> int:
    """The id that a table holds for a text, in [0, 2^63)."""
    return int.from_bytes(md5(text.encode(), usedforsecurity=False).digest()[8:], "little") & (2**63 - 1)


def describe(file: str, column: str | None, text: bool | None, known: str | None = None) -> dict[str, Any]:
    """Looks at a vocabulary file before it is used.

    Args:
        file: its path.
        column: the column that holds the values; None for the first, and for text.
        text: whether the feature held texts when the table was made; None: as the file has it, where lines of digits
            alone are numbers.
        known: the SHA-256 that it had when the model was trained; None while it is not known.

    Returns:
        The arguments of the transform: with ``text`` decided, ``sha256`` and ``size``, the number of values.

    Raises:
        ConfigError: the file cannot be read, has changed, or has a value twice.
    """
    path = Path(file).expanduser()
    try:
        found = sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise ConfigError(f"vocabulary {file}: cannot be read ({error.strerror}); correct the path") from error
    if known not in (None, found):
        raise ConfigError(
            f"vocabulary {file}: it is not the file that the run was trained with (SHA-256 {found[:12]}, was "
            f"{str(known)[:12]}), so that ids would mean other values; put that file back, or train another run"
        )
    values = _read_values(path, column)
    is_text = not pa.types.is_integer(values.type) if text is None else text
    size = len(_parse(values, is_text, path).keys)
    return {"file": file, "column_name": column, "text": is_text, "sha256": found, "size": size}


@lru_cache(64)
def load(file: str, column: str | None, text: bool, sha256: str) -> Vocabulary:
    """Reads a vocabulary, once for each process; the arguments are those that ``describe`` returned."""
    del sha256  # of another content it is another vocabulary
    path = Path(file).expanduser()
    return _parse(_read_values(path, column), text, path)


def _read_values(path: Path, column: str | None) -> pa.Array:
    """The values as the file has them: integers or texts."""
    kind = _TABLES.get(path.suffix.lower())
    try:
        if kind is None:
            lines = path.read_text(encoding="utf-8").splitlines()
            values = pa.array(lines, pa.string())
        else:
            table = pq.read_table(path) if kind == "Parquet" else _read_csv(path)
            if column is not None and column not in table.column_names:
                raise ConfigError(f"vocabulary {path}: no column '{column}'{nearest(column, table.column_names)}")
            values = table.column(column or 0).combine_chunks()
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
        first = str(error).splitlines()[0]
        raise ConfigError(f"vocabulary {path}: not readable as {kind or 'text'} in UTF-8 ({first})") from error
    if isinstance(values, pa.ChunkedArray):
        values = values.chunk(0) if values.num_chunks else pa.array([], values.type)
    return _as_numbers(values) if kind is None else values


def _read_csv(path: Path) -> pa.Table:
    from pyarrow import csv

    return csv.read_csv(path, parse_options=csv.ParseOptions(delimiter="\t" if path.suffix == ".tsv" else ","))


def _as_numbers(values: pa.Array) -> pa.Array:
    """Lines of a text as integers, where all of them are."""
    try:
        return values.cast(pa.int64())
    except pa.ArrowInvalid:
        return values


def _parse(values: pa.Array, text: bool, path: Path) -> Vocabulary:
    """The vocabulary of some values, in their order."""
    if values.null_count:
        raise ConfigError(f"vocabulary {path}: value {values.is_null().index(True).as_py() + 1} is missing; remove it")
    if text:
        keys = np.array([text_id(str(value)) for value in values.to_pylist()], np.int64)
    elif pa.types.is_integer(values.type):
        keys = values.to_numpy(zero_copy_only=False).astype(np.int64)  # uint64 keeps its bits, as in a table
    else:
        raise ConfigError(
            f"vocabulary {path}: its values are {values.type}, an id that was no text is an integer; name another "
            "column, or write text: true where the raw column held texts"
        )
    order = np.argsort(keys, kind="stable")
    again = np.flatnonzero(np.diff(keys[order]) == 0)
    if len(again):
        first, second = sorted(order[again[0] : again[0] + 2])
        raise ConfigError(
            f"vocabulary {path}: '{values[first]}' stands there twice, as value {first + 1} and {second + 1}; name "
            "each value once"
        )
    return Vocabulary.of(keys[order], order + 1)
