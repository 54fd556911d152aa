"""Converts the stored columns of a row group to columns that fit the schema.

The columns get the types of the schema and have no nulls. Windows stay windows, over the values of all streams::

    stream    0           1                  start, length    0, 3     1, 3     0, 2
    lists     5 6 7 8     9 9                stream              0        0        1
    values    5 6 7 8 9 9                    start in values     0        1        4
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from recd_dist.errors import DataError
from recd_dist.table.addresses import address_of_arrow, addresses_of_lists
from recd_dist.table.clustered import REMEDY
from recd_dist.table.column import Array, Column, Rows, Windows
from recd_dist.table.location import Location
from recd_dist.table.manifest import length_of, start_of
from recd_dist.table.schema import Feature, Kind

_TYPES = {Kind.id: "int32 or int64", Kind.ids: "list of int32 or int64", Kind.dense: "float32"}


@dataclass(frozen=True)
class Origin:
    """Where rows come from, for error messages.

    Attributes:
        file: the Parquet file.
        row_group: number of the row group in it, counted from 0.
    """

    file: Location
    row_group: int

    def __str__(self) -> str:
        return f"{self.file}, row group {self.row_group}"


class PlainColumn(NamedTuple):
    """Rows that a batch can copy from where they were decoded: int32, float32 or lists of int32, without nulls.

    Attributes:
        values: the address of the values.
        offsets: the address of int32 offsets into them [rows + 1]; 0 for single values.
        num_rows: the number of rows.
        rows: the same rows as arrays.
        owner: what keeps the memory.
    """

    values: int
    offsets: int
    num_rows: int
    rows: Callable[[], Column]
    owner: object

    @staticmethod
    def of_arrow(array: pa.Array) -> "PlainColumn":
        """The rows of an Arrow array that ``is_plain`` allows."""
        if pa.types.is_list(array.type):
            return PlainColumn(*addresses_of_lists(array), len(array), lambda: Column(*_read_lists(array)), array)
        return PlainColumn(address_of_arrow(array), 0, len(array), lambda: Column(array.to_numpy()), array)


class DecodedColumns(Mapping[str, Rows]):
    """The rows of each feature of a row group.

    Args:
        numbers: features that stay where they were decoded, each with its number.
        places: int64 [P, 6], where their rows lie, see ``kernels``.
        num_rows: int64 [P].
        rows_of: the rows of such a feature as arrays, by its number.
        others: the rows of all other features.
        owner: what keeps the memory.
    """

    def __init__(
        self,
        numbers: Mapping[str, int],
        places: Array,
        num_rows: Array,
        rows_of: Callable[[int], Rows],
        others: Mapping[str, Rows],
        owner: object,
    ) -> None:
        self.numbers, self.places, self.num_rows, self.owner = numbers, places, num_rows, owner
        self._rows_of, self._others = rows_of, others

    @staticmethod
    def of(plain: Mapping[str, "PlainColumn"], others: Mapping[str, Rows]) -> "DecodedColumns":
        """Features that stay where they were decoded, each by itself, and the rows of all other features."""
        kept, places = list(plain.values()), np.zeros((len(plain), 6), np.int64)
        places[:, :2] = np.array([column[:2] for column in kept], np.int64).reshape(-1, 2)
        num_rows, numbers = np.array([c.num_rows for c in kept], np.int64), {name: n for n, name in enumerate(plain)}
        owners = [column.owner for column in kept]
        return DecodedColumns(numbers, places, num_rows, lambda number: kept[number].rows(), others, owners)

    def __getitem__(self, name: str) -> Rows:
        number = self.numbers.get(name)
        return self._others[name] if number is None else self._rows_of(number)

    def __iter__(self) -> Iterator[str]:
        yield from self.numbers
        yield from self._others

    def __len__(self) -> int:
        return len(self.numbers) + len(self._others)


@dataclass(frozen=True)
class DecodedRowGroup:
    """A row group in memory.

    Attributes:
        sample_ids, session_ids, request_ids: int64 [N], ids of each sample.
        labels: float32 [N, number of labels]; nan where one is missing.
        row_of_sample: for each deduplicated group the stored row of each sample, int32 [N] in [0, num_rows).
        num_rows: number of stored rows of each deduplicated group.
        columns: the rows of each feature; a feature of ``sample`` has a row for each sample.
        origins: for each group where its rows come from.
    """

    sample_ids: Array
    session_ids: Array
    request_ids: Array
    labels: Array
    row_of_sample: Mapping[str, Array]
    num_rows: Mapping[str, int]
    columns: Mapping[str, Rows]
    origins: Mapping[str, Origin]


def is_plain(feature: Feature, field: pa.Field) -> bool:
    """Whether a feature's column in a file is one of those that ``DecodedColumns`` keeps as they are."""
    kind = field.type
    if field.nullable or feature.weights is not None or feature.window:
        return False
    if feature.kind is Kind.ids:
        return pa.types.is_list(kind) and kind.value_type == pa.int32() and not kind.value_field.nullable
    return kind == (pa.float32() if feature.kind is Kind.dense else pa.int32())


def join_chunks(column: pa.ChunkedArray, name: str, origin: Origin) -> pa.Array:
    """A column as one array.

    Args:
        column: read from a table.
        name: name of the column, for messages.
        origin: where the column comes from, for messages.

    Raises:
        DataError: the column holds a null.
    """
    if column.null_count:
        nulls = column.is_null().to_numpy()
        raise DataError(f"{origin}, row {int(nulls.argmax())}: column '{name}' is null, tables hold no nulls; {REMEDY}")
    if column.num_chunks == 1:
        return column.chunk(0)
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def read_column(table: pa.Table, feature: Feature, origin: Origin) -> Column:
    """The rows of a feature.

    Args:
        table: a row group, with the column of the feature and, where they are asked for, of its weights.
        feature: stored as numbers, ids or lists; not as windows.
        origin: where the table comes from, for messages.

    Raises:
        DataError: the type on disk is not the one that the feature's kind asks for, or its weights do not fit.
    """
    chunks = table.column(feature.name)
    kind, is_list = chunks.type, pa.types.is_list(chunks.type)
    item = kind.value_type if is_list else kind
    fits = pa.types.is_floating(item) if feature.kind is Kind.dense else item in (pa.int32(), pa.int64())
    if not fits or is_list != (feature.kind is Kind.ids):
        raise DataError(
            f"{origin}: column '{feature.name}' is {kind}, a feature of kind {feature.kind} is "
            f"{_TYPES[feature.kind]}; {REMEDY}"
        )
    array = join_chunks(chunks, feature.name, origin)
    if not is_list:
        return Column(array.to_numpy())
    _check_elements(array, feature.name, origin)
    values, offsets = _read_lists(array)
    return Column(values, offsets, _read_weights(table, feature, offsets, origin) if feature.weights else None)


def _read_weights(table: pa.Table, feature: Feature, offsets: Array, origin: Origin) -> Array:
    """The weights of a feature, float32 [V], whose lists must be as long as those of the ids."""
    name = str(feature.weights)
    chunks = table.column(name)
    if not pa.types.is_list(chunks.type) or chunks.type.value_type != pa.float32():
        raise DataError(f"{origin}: column '{name}' is {chunks.type}, weights are lists of float32; {REMEDY}")
    array = join_chunks(chunks, name, origin)
    _check_elements(array, name, origin)
    weights, weight_offsets = _read_lists(array)
    if not np.array_equal(offsets, weight_offsets):
        row = int(np.argmax(offsets != weight_offsets)) - 1
        raise DataError(f"{origin}, row {row}: '{feature.name}' and its weights '{name}' differ in length; {REMEDY}")
    return weights


def read_windows(
    table: pa.Table, stream_of_row: Array, feature: Feature, origin: Origin, streams: Column, stream_origin: Origin
) -> Windows:
    """The rows of a feature that is stored as windows over streams.

    Args:
        table: a row group of the feature's group, with the start and the length of each window.
        stream_of_row: int32 [rows], for each row the place of its stream in ``streams``.
        feature: stored as windows.
        origin: where the table comes from, for messages.
        streams: one list for each stream.
        stream_origin: where the streams come from, for messages.

    Raises:
        DataError: a window leaves its stream.
    """
    starts, lengths = (_read_int32s(table, name(feature.name), origin) for name in (start_of, length_of))
    return place_windows(starts, lengths, stream_of_row, feature, origin, streams, stream_origin)


def place_windows(
    starts: Array,
    lengths: Array,
    stream_of_row: Array,
    feature: Feature,
    origin: Origin,
    streams: Column,
    stream_origin: Origin,
) -> Windows:
    """Windows over all streams of a row group, from windows over single ones.

    Args:
        starts: int32 [rows], where each window begins in its stream.
        lengths: int32 [rows].
        stream_of_row: int32 [rows], for each row the place of its stream in ``streams``.
        feature: stored as windows.
        origin: where the windows come from, for messages.
        streams: one list for each stream.
        stream_origin: where the streams come from, for messages.

    Raises:
        DataError: a window leaves its stream.
    """
    ends = np.asarray(streams.offsets)
    sizes = np.diff(ends)[stream_of_row]
    bad = (starts < 0) | (lengths < 0) | (lengths > sizes - starts)
    if bad.any():
        row = int(bad.argmax())
        raise DataError(
            f"{origin}, row {row}: the window of '{feature.name}' is {lengths[row]} ids from {starts[row]}, its stream "
            f"in {stream_origin} holds {sizes[row]}; the files do not belong together, {REMEDY}"
        )
    return Windows(streams.values, starts + ends[:-1][stream_of_row], lengths, streams.weights)


def _read_int32s(table: pa.Table, name: str, origin: Origin) -> Array:
    """A column of the starts or the lengths of windows, stored int32 [rows]."""
    chunks = table.column(name)
    if chunks.type != pa.int32():
        raise DataError(f"{origin}: column '{name}' is {chunks.type}, wanted int32; {REMEDY}")
    return join_chunks(chunks, name, origin).to_numpy()


def _check_elements(array: pa.Array, name: str, origin: Origin) -> None:
    """Refuses lists that hold nulls."""
    if array.type.value_field.nullable and (nulls := array.flatten().null_count):
        raise DataError(f"{origin}: lists of '{name}' hold {nulls} nulls, tables hold none; {REMEDY}")


def _read_lists(array: pa.Array) -> tuple[Array, Array]:
    """The values of lists, and their offsets from 0, int32 [rows + 1]."""
    offsets = array.offsets.to_numpy()
    if not len(offsets):
        return array.values.to_numpy(), np.zeros(1, np.int32)
    return array.values.slice(offsets[0], offsets[-1] - offsets[0]).to_numpy(), offsets - offsets[0]
