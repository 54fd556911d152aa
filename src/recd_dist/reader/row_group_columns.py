"""Columns of a row group: the types that the schema says, no nulls, and windows over streams turned into lists again.

::

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


@dataclass(frozen=True)
class Place:
    """Where rows come from, for error messages: file and row group."""

    file: Location
    row_group: int

    def __str__(self) -> str:
        return f"{self.file}, row group {self.row_group}"


def no_nulls(column: pa.ChunkedArray, name: str, place: Place) -> pa.Array:
    """A column in one piece."""
    if column.null_count:
        nulls = column.is_null().to_numpy()
        raise DataError(f"{place}, row {int(nulls.argmax())}: column '{name}' is null, tables hold no nulls; {REMEDY}")
    combined = column.combine_chunks()
    if isinstance(combined, pa.ChunkedArray):  # pyarrow returns this for a column without rows
        return combined.chunk(0) if combined.num_chunks else pa.array([], column.type)
    return combined


def column(table: pa.Table, feature: Feature, place: Place) -> Column:
    """A feature's rows; the type on disk must be the one that its kind says."""
    found = table.column(feature.name)
    kind, is_list = found.type, pa.types.is_list(found.type)
    item = kind.value_type if is_list else kind
    fits = pa.types.is_floating(item) if feature.kind is Kind.dense else item in (pa.int32(), pa.int64())
    if not fits or is_list != (feature.kind is Kind.ids):
        wanted = {Kind.id: "int32 or int64", Kind.ids: "list of int32 or int64", Kind.dense: "float32"}[feature.kind]
        raise DataError(
            f"{place}: column '{feature.name}' is {kind}, a feature of kind {feature.kind} is {wanted}; {REMEDY}"
        )
    array = no_nulls(found, feature.name, place)
    if not is_list:
        return Column(array.to_numpy())
    values, offsets = _lists(array, feature.name, place)
    if feature.weights is None:
        return Column(values, offsets)
    stored = table.column(feature.weights).type
    if not pa.types.is_list(stored) or stored.value_type != pa.float32():
        raise DataError(f"{place}: column '{feature.weights}' is {stored}, weights are lists of float32; {REMEDY}")
    weights, places = _lists(no_nulls(table.column(feature.weights), feature.weights, place), feature.weights, place)
    if not np.array_equal(offsets, places):
        row = int(np.argmax(offsets != places)) - 1
        raise DataError(
            f"{place}, row {row}: '{feature.name}' and its weights '{feature.weights}' differ in length; {REMEDY}"
        )
    return Column(values, offsets, weights)


def windowed(table: pa.Table, rows: Array, feature: Feature, place: Place, streams: Column, at: Place) -> Column:
    """A feature's rows out of the streams that they are windows over: what a plain list column would be.

    Args:
        table: with the start and the length of each row.
        rows: int32 [rows], the stream of each row, among those of ``streams``.
        feature: stored as windows.
        place: of the table, for messages.
        streams: lists, one per stream.
        at: of the streams.

    Raises:
        DataError: a window that leaves its stream.
    """
    starts, lengths = (_places(table, name, place) for name in (start_of(feature.name), length_of(feature.name)))
    ends = np.asarray(streams.offsets)
    sizes = np.diff(ends)[rows]
    bad = (starts < 0) | (lengths < 0) | (starts + lengths > sizes)
    if bad.any():
        row = int(bad.argmax())
        raise DataError(
            f"{place}, row {row}: the window of '{feature.name}' is {lengths[row]} ids from {starts[row]}, its stream "
            f"in {at} holds {sizes[row]}; the files do not belong together, {REMEDY}"
        )
    return gather_slices(streams, starts + ends[:-1][rows], lengths)


def _places(table: pa.Table, name: str, place: Place) -> Array:
    """A column of starts or lengths, int64."""
    found = table.column(name)
    if found.type != pa.int32():
        raise DataError(f"{place}: column '{name}' is {found.type}, wanted int32; {REMEDY}")
    return no_nulls(found, name, place).to_numpy().astype(np.int64)


def _lists(array: pa.Array, name: str, place: Place) -> tuple[Array, Array]:
    """Values and offsets from 0."""
    offsets = array.offsets.to_numpy().astype(np.int64)
    values = array.values.slice(offsets[0], offsets[-1] - offsets[0]) if len(offsets) else array.values
    if values.null_count:
        raise DataError(f"{place}: lists of '{name}' hold {values.null_count} nulls, tables hold none; {REMEDY}")
    return values.to_numpy(), offsets - offsets[:1] if len(offsets) else np.zeros(1, np.int64)
