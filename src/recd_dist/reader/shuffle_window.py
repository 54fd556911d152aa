"""The row groups of a shuffle window: decoded, checked, transformed, side by side.

Transforms, hashing and range checks see every stored row once in a shuffle window, so that their cost is that of unique
rows, and an error can name file, row group and row.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from recd_dist.errors import ConfigError, DataError, nearest
from recd_dist.reader import kernels
from recd_dist.reader.order import Shuffle, ShuffleWindow, sample_order
from recd_dist.reader.row_group_columns import Origin
from recd_dist.reader.table_files import DecodedRowGroup, TableFiles
from recd_dist.reader.transform import Transforms
from recd_dist.screen.command_line import command_line, override
from recd_dist.table.column import Array, Column, join_columns
from recd_dist.table.schema import SAMPLE, Feature, Table


@dataclass(frozen=True)
class DecodedShuffleWindow:
    """A shuffle window in memory.

    Attributes:
        order: int64 [N], for each sample in the order of the epoch its place in the arrays below.
        sample_ids, request_ids, session_ids: int64 [N], ids of each sample.
        labels: float32 [N, number of labels].
        row_of_sample: for each deduplicated group the stored row of each sample, int32 [N].
        seen: for each deduplicated group int32 [stored rows] of -1, which ``kernels.find_unique_rows`` writes on.
        ids: the rows of each id feature, ready for its embedding table.
        dense: for each group with dense features float32 [stored rows, number of its dense features].
    """

    order: Array
    sample_ids: Array
    request_ids: Array
    session_ids: Array
    labels: Array
    row_of_sample: Mapping[str, Array]
    seen: Mapping[str, Array]
    ids: Mapping[str, Column]
    dense: Mapping[str, Array]


class ShuffleWindowDecoder:
    """Reads the shuffle windows of a table into memory.

    Args:
        files: the table, with the features to read.
        tables: the embedding tables that the features look up, by name.
        transforms: fitted.
        shuffle: how the epoch is ordered.
        on_bad_id: ``error``, or ``drop`` an id outside its table (from its list; a single one becomes an empty list).
        on_nan: ``error``, or ``zero`` for dense values and weights that are not finite.

    Attributes:
        counts: for each feature the ids dropped and the dense values and weights set to zero, so far.

    Raises:
        ConfigError: a feature without its table, transforms not fitted, an unknown policy.
    """

    def __init__(
        self,
        files: TableFiles,
        tables: Mapping[str, Table],
        transforms: Transforms,
        shuffle: Shuffle,
        on_bad_id: str = "error",
        on_nan: str = "error",
    ) -> None:
        for name, value, known in (("on_bad_id", on_bad_id, ("error", "drop")), ("on_nan", on_nan, ("error", "zero"))):
            if value not in known:
                raise ConfigError(f"reader.{name}={value}: unknown{nearest(value, known)}")
        for feature in files.schema.sparse:
            if feature.table not in tables:
                raise ConfigError(
                    f"feature '{feature.name}': no table '{feature.table}'{nearest(str(feature.table), tables)}"
                )
        if not transforms.is_fitted:
            raise ConfigError("transforms: `standardize` has no mean and std; fit them on the training table first")
        read = [tables[t] for t in files.schema.tables]
        is_wide = any(table.mapped is not None or table.num_embeddings >= 2**31 for table in read)
        self._id_dtype = np.dtype(np.int64 if is_wide else np.int32)
        self.counts: Counter[str] = Counter()
        self._files, self._tables, self._transforms, self._shuffle = files, tables, transforms, shuffle
        self._on_bad_id, self._on_nan = on_bad_id, on_nan

    def decode(self, epoch: int, shuffle_window: ShuffleWindow) -> DecodedShuffleWindow:
        """Reads the row groups of a shuffle window and makes them ready for batches.

        Args:
            epoch: counted from 0.
            shuffle_window: what to read.

        Raises:
            DataError: damaged files; labels, dense values, ids or weights that cannot be trained on.
        """
        row_groups = [self._prepare(self._files.read(g)) for g in shuffle_window.row_groups]
        schema = self._files.schema
        sizes = {g: np.array([r.num_rows[g] for r in row_groups]) for g in schema.dedup_groups}
        starts = {g: (np.cumsum(n) - n).astype(np.int32) for g, n in sizes.items()}
        return DecodedShuffleWindow(
            order=sample_order([r.session_ids for r in row_groups], self._shuffle, epoch, shuffle_window.number),
            sample_ids=np.concatenate([r.sample_ids for r in row_groups]),
            request_ids=np.concatenate([r.request_ids for r in row_groups]),
            session_ids=np.concatenate([r.session_ids for r in row_groups]),
            labels=np.concatenate([r.labels for r in row_groups]),
            row_of_sample={
                g: np.concatenate([r.row_of_sample[g] + starts[g][i] for i, r in enumerate(row_groups)]) for g in sizes
            },
            seen={g: np.full(n.sum(), -1, np.int32) for g, n in sizes.items()},
            ids={f.name: join_columns([r.columns[f.name] for r in row_groups]) for f in schema.sparse},
            dense={
                g: np.concatenate([np.stack([r.columns[n].values for n in schema.dense_of(g)], 1) for r in row_groups])
                for g in schema.groups
                if schema.dense_of(g)
            },
        )

    def _prepare(self, row_group: DecodedRowGroup) -> DecodedRowGroup:
        """Transforms the columns of a row group and makes them ready for their tables."""
        columns = {}
        for f in self._files.schema.features:
            origin = row_group.origins[f.group if f.group in row_group.origins else SAMPLE]
            prepare = self._prepare_ids if f.is_sparse else self._prepare_numbers
            columns[f.name] = prepare(f, row_group.columns[f.name], origin)
        return replace(row_group, columns=columns)

    def _prepare_numbers(self, feature: Feature, column: Column, origin: Origin) -> Column:
        """Transforms dense values, which must be finite before and after."""
        for when in ("", " after its transforms"):
            bad = ~np.isfinite(column.values)
            if bad.any():
                row = int(bad.argmax())
                if self._on_nan == "error":
                    raise DataError(
                        f"{origin}, row {row}: dense feature '{feature.name}' is {column.values[row]}{when}; mend it "
                        "in the SQL, or set reader.on_nan=zero"
                    )
                self.counts[f"{feature.name}: not finite"] += int(bad.sum())
                column = Column(np.where(bad, np.float32(0), column.values))
            if not when:
                column = self._transforms.apply(feature.name, column)
        return Column(column.values.astype(np.float32, copy=False))

    def _prepare_ids(self, feature: Feature, column: Column, origin: Origin) -> Column:
        """Transforms ids into [0, num_embeddings) of their table, unless it is mapped; weights must be finite."""
        column = self._transforms.apply(feature.name, column)
        if column.weights is not None:
            column = self._check_weights(feature, column, column.weights, origin)
        table = self._tables[str(feature.table)]
        values = column.values
        if table.hashed:
            values = values.astype(np.int64)
            kernels.hash_ids(values, table.num_embeddings, values)
        elif table.mapped is None and len(values) and (values.min() < 0 or values.max() >= table.num_embeddings):
            column = self._drop_bad_ids(feature, column, table, origin)
            values = column.values
        return Column(values.astype(self._id_dtype, copy=False), column.offsets, column.weights)

    def _check_weights(self, feature: Feature, column: Column, weights: Array, origin: Origin) -> Column:
        """Sets weights that are not finite to zero, or refuses the first of them."""
        bad = ~np.isfinite(weights)
        if not bad.any():
            return column
        if self._on_nan == "error":
            first = int(bad.argmax())
            raise DataError(
                f"{origin}, row {column.row_of(first)}: a weight of feature '{feature.name}' in column "
                f"'{feature.weights}' is {weights[first]}; mend it in the SQL, or set reader.on_nan=zero"
            )
        self.counts[f"{feature.name}: weight not finite"] += int(bad.sum())
        return replace(column, weights=np.where(bad, np.float32(0), weights))

    def _drop_bad_ids(self, feature: Feature, column: Column, table: Table, origin: Origin) -> Column:
        """Drops ids (with their weights) that their table has no row for, or refuses the first of them."""
        bad = (column.values < 0) | (column.values >= table.num_embeddings)
        if self._on_bad_id == "error":
            first = int(bad.argmax())
            value = int(column.values[first])
            where = ("data", "tables", table.name)
            rows = command_line(override((*where, "num_embeddings"), value + 1))
            grow = f"{rows} or more or " if value >= 0 else ""
            raise DataError(
                f"{origin}, row {column.row_of(first)}: feature '{feature.name}' holds id {value}, table "
                f"'{table.name}' has rows 0..{table.num_embeddings - 1}; train with {grow}"
                f"{command_line(override((*where, 'hashed'), True))}, or leave it out by reader.on_bad_id=drop"
            )
        self.counts[f"{feature.name}: id outside table '{table.name}'"] += int(bad.sum())
        offsets = np.arange(len(bad) + 1) if column.offsets is None else column.offsets
        weights = None if column.weights is None else column.weights[~bad]
        return Column(column.values[~bad], np.concatenate([[0], np.cumsum(~bad)])[offsets], weights)


class ShuffleWindowCache:
    """The shuffle window in use and the next one, which a thread decodes meanwhile (decoding releases the GIL).

    Args:
        decode: reads a shuffle window of an epoch.
        size: shuffle windows that are kept.
    """

    def __init__(self, decode: Callable[[int, ShuffleWindow], DecodedShuffleWindow], size: int = 2) -> None:
        self._decode, self._size = decode, size
        self._shuffle_windows: OrderedDict[tuple[int, int], Future[DecodedShuffleWindow]] = OrderedDict()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="recd-decode")

    def fetch(
        self, epoch: int, shuffle_window: ShuffleWindow, following: ShuffleWindow | None = None
    ) -> DecodedShuffleWindow:
        """Waits for a decoded shuffle window, which is in memory already where it was the following one before.

        Args:
            epoch: the epoch of the shuffle window, counted from 0.
            shuffle_window: what to decode.
            following: what will be asked for next; its decoding begins.
        """
        decoded = self._future(epoch, shuffle_window)
        if following is not None:
            self._future(epoch, following)
        return decoded.result()

    def _future(self, epoch: int, shuffle_window: ShuffleWindow) -> "Future[DecodedShuffleWindow]":
        key = (epoch, shuffle_window.number)
        if key not in self._shuffle_windows:
            self._shuffle_windows[key] = self._thread.submit(self._decode, epoch, shuffle_window)
        self._shuffle_windows.move_to_end(key)
        while len(self._shuffle_windows) > self._size:
            self._shuffle_windows.popitem(last=False)[1].cancel()
        return self._shuffle_windows[key]

    def close(self) -> None:
        """Ends the thread; shuffle windows that wait are not decoded."""
        self._thread.shutdown(wait=True, cancel_futures=True)
