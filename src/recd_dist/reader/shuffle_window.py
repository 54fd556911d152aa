"""The row groups of a shuffle window: decoded, checked, transformed, and left where they are.

Nothing is copied together: a batch copies what it takes out of the row groups, by the addresses that stand here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from recd_dist.reader import kernels
from recd_dist.reader.open_files import AnyFiles
from recd_dist.reader.order import Shuffle, ShuffleWindow, order_in_time, sample_order
from recd_dist.reader.prepared_rows import RowPreparation
from recd_dist.reader.row_group_columns import DecodedColumns, DecodedRowGroup, Origin
from recd_dist.reader.stages import measure
from recd_dist.reader.table_files import TableFiles
from recd_dist.reader.time_slices import times_of
from recd_dist.table.addresses import address_of
from recd_dist.table.column import Array, Rows, Windows
from recd_dist.table.schema import SAMPLE, Feature, Schema

Place = tuple[int, int, int, int, int, int]
"""Where the rows of a feature lie in a row group: its numbers in ``places``, see ``kernels``."""


@dataclass(frozen=True)
class DecodedShuffleWindow:
    """A shuffle window in memory: its row groups as they were decoded, and where everything lies in them.

    Attributes:
        ends: int64 [runs], for each run of samples how many samples of the epoch's order it and those before it have.
        runs: int32 [3, runs], samples side by side, in the order of the epoch: their row group, the first of them in
            it, and their number.
        blocks: int64 [row groups, 4], the addresses of ids of samples, requests and sessions, int64 [N], and of labels,
            float32 [N, number of labels].
        rows: int64 [row groups, G], for each deduplicated group the address of int32 [N], each sample's stored row.
        seen: int64 [row groups, G], addresses of int32 [stored rows] of -1, which ``kernels.find_unique_rows`` uses.
        places: int64 [row groups, id features, 6], see ``kernels``: their rows, ready for the embedding tables.
        numbers: int64 [row groups, groups with dense features], the addresses of float32 [stored rows, n].
        num_labels: labels of each sample.
        id_dtype: of the values of id features, int32 or int64.
        has_weights: some id feature has weights.
        has_windows: bool [id features], whether all rows of a feature are windows.
        owners: what keeps the memory at these addresses.
    """

    ends: Array
    runs: Array
    blocks: Array
    rows: Array
    seen: Array
    places: Array
    numbers: Array
    num_labels: int
    id_dtype: np.dtype[Any]
    has_weights: bool
    has_windows: Array
    owners: object

    def runs_between(self, start: int, end: int) -> Array:
        """The samples [start, end) of the window's order, as runs int32 [3, runs]."""
        first, last = np.searchsorted(self.ends, (start, end - 1), "right")
        runs = self.runs[:, first : last + 1].copy()
        cut = start - int(self.ends[first] - self.runs[2, first])
        runs[1, 0] += cut
        runs[2, 0] -= cut
        runs[2, -1] -= int(self.ends[last]) - end
        return runs


@dataclass
class _Placed:
    """Where a row group lies in memory: its rows of the arrays of a DecodedShuffleWindow, and what keeps them."""

    blocks: list[int]
    rows: list[int]
    seen: list[int]
    places: Array
    numbers: list[int]
    owners: list[object]


class ShuffleWindowDecoder:
    """Reads the shuffle windows of a table into memory.

    Args:
        files: the table, with the features to read.
        schema: the features to make ready, in the groups of the table; some may be made from those that are read.
        preparation: makes rows ready for batches.
        shuffle: how the epoch is ordered.
    """

    def __init__(self, files: AnyFiles, schema: Schema, preparation: RowPreparation, shuffle: Shuffle) -> None:
        self._files, self._schema, self._preparation, self._shuffle = files, schema, preparation, shuffle
        limits = preparation.limits(schema)
        self._limits = np.array([limits.get(f.name, -1) for f in schema.sparse], np.int64)
        self._dense = {g: fs for g in schema.groups if (fs := [f for f in schema.of_group(g) if not f.is_sparse])}
        self._chains = {g: preparation.chains(fs) for g, fs in self._dense.items()}

    def decode(self, epoch: int, shuffle_window: ShuffleWindow) -> DecodedShuffleWindow:
        """Reads the row groups of a shuffle window and makes them ready for batches.

        Args:
            epoch: counted from 0.
            shuffle_window: what to read.

        Raises:
            DataError: damaged files; labels, dense values, ids or weights that cannot be trained on.
        """
        sessions, placed = [], []
        for row_group in shuffle_window.row_groups:
            decoded = self._files.read(row_group)
            sessions.append(decoded.session_ids)
            with measure("transform"):
                placed.append(self._place(decoded))
        order = self._order(epoch, shuffle_window, sessions)
        runs = np.empty((3, len(order)), np.int32)
        size = kernels.split_into_runs(order, np.cumsum([len(ids) for ids in sessions]), runs)
        runs = runs[:, :size].copy()
        shape, schema = len(placed), self._schema
        places = np.stack([p.places for p in placed])
        return DecodedShuffleWindow(
            ends=np.cumsum(runs[2], dtype=np.int64),
            runs=runs,
            blocks=np.array([p.blocks for p in placed], np.int64),
            rows=np.array([p.rows for p in placed], np.int64).reshape(shape, len(schema.dedup_groups)),
            seen=np.array([p.seen for p in placed], np.int64).reshape(shape, len(schema.dedup_groups)),
            places=places,
            numbers=np.array([p.numbers for p in placed], np.int64).reshape(shape, len(self._dense)),
            num_labels=len(schema.labels),
            id_dtype=self._preparation.id_dtype,
            has_weights=bool(places[:, :, kernels.WEIGHTS].any()),
            has_windows=np.all(places[:, :, kernels.STARTS], axis=0),
            owners=[p.owners for p in placed],
        )

    def _order(self, epoch: int, shuffle_window: ShuffleWindow, sessions: Sequence[Array]) -> Array:
        """The samples of a shuffle window in the order of the epoch, int64 places in its row groups side by side."""
        if shuffle_window.times is None:
            return sample_order(sessions, self._shuffle, epoch, shuffle_window.number)
        files = cast(TableFiles, self._files)  # of files that are read directly nobody makes slices
        return order_in_time([times_of(files, g) for g in shuffle_window.row_groups], shuffle_window)

    def _place(self, row_group: DecodedRowGroup) -> _Placed:
        """Transforms the columns of a row group, makes them ready for their tables and says where they lie."""
        blocks = [row_group.sample_ids, row_group.request_ids, row_group.session_ids, row_group.labels]
        groups = self._schema.dedup_groups
        rows = [np.ascontiguousarray(row_group.row_of_sample[g]) for g in groups]
        seen = [np.full(row_group.num_rows[g], -1, np.int32) for g in groups]
        blocks = [np.ascontiguousarray(block) for block in blocks]
        owners: list[object] = [blocks, rows, seen]
        places, numbers = self._place_ids(row_group, owners), self._place_numbers(row_group, owners)
        of_samples, of_rows, of_seen = ([address_of(a) for a in arrays] for arrays in (blocks, rows, seen))
        return _Placed(of_samples, of_rows, of_seen, places, numbers, owners)

    def _place_ids(self, row_group: DecodedRowGroup, owners: list[object]) -> Array:
        """Where the ids of each feature lie, int64 [F, 6]: where they were decoded, or else in new memory."""
        columns, features = row_group.columns, self._schema.sparse
        places, is_there = np.zeros((len(features), 6), np.int64), np.zeros(len(features), bool)
        if isinstance(columns, DecodedColumns) and columns.numbers:
            numbers = np.array([columns.numbers.get(f.name, -1) for f in features], np.int64)
            is_there = (numbers >= 0) & (self._limits >= 0)
            places, num_rows = columns.places[numbers], columns.num_rows[numbers]
            owners.append(columns.owner)
            wrong = kernels.find_outside(places, num_rows, np.where(is_there, self._limits, -1))
            while wrong >= 0:
                is_there[wrong] = False  # the careful way names the id, or leaves it out
                wrong = kernels.find_outside(places, num_rows, np.where(is_there, self._limits, -1))
        for number in np.flatnonzero(~is_there):
            feature = features[number]
            rows = self._preparation.ids(feature, row_group, self._origin(row_group, feature))
            owners.append(arrays := _arrays_of(rows))
            places[number] = _place_of(arrays)
        return places

    def _place_numbers(self, row_group: DecodedRowGroup, owners: list[object]) -> list[int]:
        """Where the dense features of each group lie side by side, transformed and finite, in new memory."""
        columns, addresses = row_group.columns, []
        for group, features in self._dense.items():
            num_rows = row_group.num_rows.get(group, len(row_group.sample_ids))
            block = np.empty((num_rows, len(features)), np.float32)
            chains = self._chains[group]
            places, _owners = _places_of_numbers(columns, [features[n].name for n in chains.places])
            are_finite = chains.run(places, block)
            for n, f in enumerate(features):
                if not are_finite or n not in chains.places:  # this way names the number, or sets it to zero
                    block[:, n] = self._preparation.numbers(f, row_group, self._origin(row_group, f)).values
            owners.append(block)
            addresses.append(address_of(block))
        return addresses

    @staticmethod
    def _origin(row_group: DecodedRowGroup, feature: Feature) -> Origin:
        """Where the rows of a feature come from."""
        return row_group.origins[feature.group if feature.group in row_group.origins else SAMPLE]


def _places_of_numbers(columns: Mapping[str, Rows], names: Sequence[str]) -> tuple[Array, object]:
    """The addresses of dense features, int64 [names] of float32 [rows], and what keeps them."""
    if isinstance(columns, DecodedColumns) and all(name in columns.numbers for name in names):
        return columns.places[[columns.numbers[name] for name in names], kernels.VALUES], columns.owner
    arrays = [np.ascontiguousarray(columns[name].values, np.float32) for name in names]
    return np.array([address_of(array) for array in arrays], np.int64), arrays


def _arrays_of(rows: Rows) -> list[Array | None]:
    """The arrays of rows as ``kernels`` want them, in the order of ``places``; None for those that there are not."""
    weights = None if rows.weights is None else np.ascontiguousarray(rows.weights, np.float32)
    values = np.ascontiguousarray(rows.values)
    if isinstance(rows, Windows):
        starts, lengths = (np.ascontiguousarray(a, np.int32) for a in (rows.starts, rows.lengths))
        return [values, None, starts, lengths, weights]
    offsets = None if rows.offsets is None else np.ascontiguousarray(rows.offsets, np.int32)
    return [values, offsets, None, None, weights]


def _place_of(arrays: Sequence[Array | None]) -> Place:
    """A feature's numbers in ``places``."""
    addresses = [0 if array is None else address_of(array) for array in arrays]
    return (*addresses, len(arrays[0]))  # type: ignore[return-value, arg-type]
