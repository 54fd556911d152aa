"""Converts the stored columns of a row group to columns that fit the schema.

The columns get the types of the schema and have no nulls; windows become lists again::

    stream    0           1                  start, length    0, 3     1, 3     0, 2
    lists     5 6 7 8     9 9                stream              0        0        1
                                             rows           [5 6 7]  [6 7 8]   [9 9]
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from recd_dist.errors import DataError
from recd_dist.table.clustered import REMEDY
from recd_dist.table.column import Array, Column, gather_slices
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
    combined = column.combine_chunks()
    if isinstance(combined, pa.ChunkedArray):  # pyarrow returns this for a column without rows
        return combined.chunk(0) if combined.num_chunks else pa.array([], column.type)
    return combined


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
    values, offsets = _read_lists(array, feature.name, origin)
    return Column(values, offsets, _read_weights(table, feature, offsets, origin) if feature.weights else None)


def _read_weights(table: pa.Table, feature: Feature, offsets: Array, origin: Origin) -> Array:
    """The weights of a feature, float32 [V], whose lists must be as long as those of the ids."""
    name = str(feature.weights)
    chunks = table.column(name)
    if not pa.types.is_list(chunks.type) or chunks.type.value_type != pa.float32():
        raise DataError(f"{origin}: column '{name}' is {chunks.type}, weights are lists of float32; {REMEDY}")
    weights, weight_offsets = _read_lists(join_chunks(chunks, name, origin), name, origin)
    if not np.array_equal(offsets, weight_offsets):
        row = int(np.argmax(offsets != weight_offsets)) - 1
        raise DataError(f"{origin}, row {row}: '{feature.name}' and its weights '{name}' differ in length; {REMEDY}")
    return weights


def expand_windows(
    table: pa.Table, stream_of_row: Array, feature: Feature, origin: Origin, streams: Column, stream_origin: Origin
) -> Column:
    """The rows of a feature, cut out of the streams that its windows lie in: what a plain list column would be.

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
    ends = np.asarray(streams.offsets)
    sizes = np.diff(ends)[stream_of_row]
    bad = (starts < 0) | (lengths < 0) | (starts + lengths > sizes)
    if bad.any():
        row = int(bad.argmax())
        raise DataError(
            f"{origin}, row {row}: the window of '{feature.name}' is {lengths[row]} ids from {starts[row]}, its stream "
            f"in {stream_origin} holds {sizes[row]}; the files do not belong together, {REMEDY}"
        )
    return gather_slices(streams, starts + ends[:-1][stream_of_row], lengths)


def _read_int32s(table: pa.Table, name: str, origin: Origin) -> Array:
    """A column of the starts or the lengths of windows, stored as int32, as int64 [rows]."""
    chunks = table.column(name)
    if chunks.type != pa.int32():
        raise DataError(f"{origin}: column '{name}' is {chunks.type}, wanted int32; {REMEDY}")
    return join_chunks(chunks, name, origin).to_numpy().astype(np.int64)


def _read_lists(array: pa.Array, name: str, origin: Origin) -> tuple[Array, Array]:
    """The values of lists, and their offsets from 0, int64 [rows + 1]."""
    offsets = array.offsets.to_numpy().astype(np.int64)
    values = array.values.slice(offsets[0], offsets[-1] - offsets[0]) if len(offsets) else array.values
    if values.null_count:
        raise DataError(f"{origin}: lists of '{name}' hold {values.null_count} nulls, tables hold none; {REMEDY}")
    return values.to_numpy(), offsets - offsets[:1] if len(offsets) else np.zeros(1, np.int64)
