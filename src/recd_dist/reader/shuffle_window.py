"""The row groups of a window, decoded, checked, transformed and laid side by side.

Transforms, hashing and range checks see every stored row once a window, so their cost is that of unique rows, and an
error can name file, row group and row.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from recd_dist.errors import ConfigError, DataError, nearest
from recd_dist.reader import kernels
from recd_dist.reader.order import Shuffle, Window, sample_order
from recd_dist.reader.row_group_columns import Place
from recd_dist.reader.table_files import Rows, TableFiles
from recd_dist.reader.transform import Transforms
from recd_dist.table.column import Array, Column, join_columns
from recd_dist.table.schema import SAMPLE, Feature, Table


@dataclass(frozen=True)
class Decoded:
    """A window in memory.

    Attributes:
        start: the stream number of its first sample.
        order: int64 [N], for each sample in stream order its place in the arrays below.
        sample_ids, request_ids: int64 [N].
        labels: float32 [N, number of labels].
        rows: per deduplicated group the stored row of each sample, int32 [N].
        seen: per deduplicated group int32 [stored rows] of -1: scratch of ``kernels.unique_rows``.
        ids: per id feature its rows, ready for its embedding table.
        dense: per group with dense features float32 [stored rows, n].
    """

    start: int
    order: Array
    sample_ids: Array
    request_ids: Array
    labels: Array
    rows: Mapping[str, Array]
    seen: Mapping[str, Array]
    ids: Mapping[str, Column]
    dense: Mapping[str, Array]


class WindowDecoder:
    """Turns windows of a table into memory.

    Args:
        files: the table, with the features to read.
        tables: the embedding tables that they look up.
        transforms: fitted.
        shuffle: order of the epoch.
        on_bad_id: ``error``, or ``drop`` an id outside its table (from its list; a single one becomes an empty list).
        on_nan: ``error``, or ``zero`` for dense values and weights that are not finite.

    Attributes:
        counts: ids dropped, dense values and weights zeroed, per feature, in windows decoded so far.
        dtype: of the ids, int32 unless a table has more rows than that can number.

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
        largest = max((tables[t].num_embeddings for t in files.schema.tables), default=0)
        self.dtype = np.dtype(np.int32 if largest < 2**31 else np.int64)
        self.counts: Counter[str] = Counter()
        self._files, self._tables, self._transforms, self._shuffle = files, tables, transforms, shuffle
        self._on_bad_id, self._on_nan = on_bad_id, on_nan

    def decode(self, epoch: int, window: Window) -> Decoded:
        """A window's rows.

        Raises:
            DataError: damaged files; labels, dense values, ids or weights that cannot be trained on.
        """
        parts = [self._prepared(self._files.read(g)) for g in window.row_groups]
        sizes = {g: np.array([p.num_rows[g] for p in parts]) for g in self._files.schema.dedup_groups}
        starts = {g: np.cumsum(n) - n for g, n in sizes.items()}
        schema = self._files.schema
        return Decoded(
            start=window.start,
            order=sample_order([p.session_ids for p in parts], self._shuffle, epoch, window.number),
            sample_ids=np.concatenate([p.sample_ids for p in parts]),
            request_ids=np.concatenate([p.request_ids for p in parts]),
            labels=np.concatenate([p.labels for p in parts]),
            rows={g: np.concatenate([p.rows[g] + np.int32(starts[g][i]) for i, p in enumerate(parts)]) for g in sizes},
            seen={g: np.full(n.sum(), -1, np.int32) for g, n in sizes.items()},
            ids={f.name: join_columns([p.columns[f.name] for p in parts]) for f in schema.sparse},
            dense={
                g: np.concatenate([np.stack([p.columns[n].values for n in schema.dense_of(g)], 1) for p in parts])
                for g in schema.groups
                if schema.dense_of(g)
            },
        )

    def _prepared(self, rows: Rows) -> Rows:
        """A row group whose columns are transformed and ready for their tables."""
        columns = {}
        for f in self._files.schema.features:
            place = rows.places[f.group if f.group in rows.places else SAMPLE]
            prepare = self._ids if f.is_sparse else self._numbers
            columns[f.name] = prepare(f, rows.columns[f.name], place)
        return replace(rows, columns=columns)

    def _numbers(self, feature: Feature, column: Column, place: Place) -> Column:
        """Dense values, finite before and after their transforms."""
        for when in ("", " after its transforms"):
            bad = ~np.isfinite(column.values)
            if bad.any():
                row = int(bad.argmax())
                if self._on_nan == "error":
                    raise DataError(
                        f"{place}, row {row}: dense feature '{feature.name}' is {column.values[row]}{when}; mend it in "
                        "the SQL, or set reader.on_nan=zero"
                    )
                self.counts[f"{feature.name}: not finite"] += int(bad.sum())
                column = Column(np.where(bad, np.float32(0), column.values))
            if not when:
                column = self._transforms.apply(feature.name, column)
        return Column(column.values.astype(np.float32, copy=False))

    def _ids(self, feature: Feature, column: Column, place: Place) -> Column:
        """Ids in [0, num_embeddings) of their table; weights that are finite, below 0 too."""
        column = self._transforms.apply(feature.name, column)
        if column.weights is not None:
            column = self._weighted(feature, column, column.weights, place)
        table = self._tables[str(feature.table)]
        values = column.values
        if table.hashed:
            values = values.astype(np.int64)
            kernels.hash_ids(values, table.num_embeddings, values)
        elif len(values) and (values.min() < 0 or values.max() >= table.num_embeddings):
            column = self._without_bad(feature, column, table, place)
            values = column.values
        return Column(values.astype(self.dtype, copy=False), column.offsets, column.weights)

    def _weighted(self, feature: Feature, column: Column, weights: Array, place: Place) -> Column:
        """The column with weights that are finite, or the error that names the first that is not."""
        bad = ~np.isfinite(weights)
        if not bad.any():
            return column
        if self._on_nan == "error":
            first = int(bad.argmax())
            raise DataError(
                f"{place}, row {column.row_of(first)}: a weight of feature '{feature.name}' in column "
                f"'{feature.weights}' is {weights[first]}; mend it in the SQL, or set reader.on_nan=zero"
            )
        self.counts[f"{feature.name}: weight not finite"] += int(bad.sum())
        return replace(column, weights=np.where(bad, np.float32(0), weights))

    def _without_bad(self, feature: Feature, column: Column, table: Table, place: Place) -> Column:
        """The column less the ids (with their weights) that its table has no row for, or an error about the first."""
        bad = (column.values < 0) | (column.values >= table.num_embeddings)
        if self._on_bad_id == "error":
            first = int(bad.argmax())
            value = int(column.values[first])
            grow = f"set data.tables.{table.name}.num_embeddings={value + 1} or more, " if value >= 0 else ""
            raise DataError(
                f"{place}, row {column.row_of(first)}: feature '{feature.name}' holds id {value}, table '{table.name}' "
                f"has rows 0..{table.num_embeddings - 1}; {grow}data.tables.{table.name}.hashed=true, or "
                "reader.on_bad_id=drop"
            )
        self.counts[f"{feature.name}: id outside table '{table.name}'"] += int(bad.sum())
        offsets = np.arange(len(bad) + 1) if column.offsets is None else column.offsets
        weights = None if column.weights is None else column.weights[~bad]
        return Column(column.values[~bad], np.concatenate([[0], np.cumsum(~bad)])[offsets], weights)


class WindowCache:
    """The window in use and the next one, which a thread decodes meanwhile (decoding releases the GIL).

    Args:
        decode: what makes a window.
        size: windows kept.
    """

    def __init__(self, decode: Callable[[int, Window], Decoded], size: int = 2) -> None:
        self._decode, self._size = decode, size
        self._windows: OrderedDict[tuple[int, int], Future[Decoded]] = OrderedDict()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="recd-decode")

    def window(self, epoch: int, window: Window, following: Window | None = None) -> Decoded:
        """A decoded window, from memory where it is there.

        Args:
            epoch: of the window.
            window: what to decode.
            following: what will be asked for next; its decoding begins.
        """
        decoded = self._future(epoch, window)
        if following is not None:
            self._future(epoch, following)
        return decoded.result()

    def _future(self, epoch: int, window: Window) -> "Future[Decoded]":
        key = (epoch, window.number)
        if key not in self._windows:
            self._windows[key] = self._thread.submit(self._decode, epoch, window)
        self._windows.move_to_end(key)
        while len(self._windows) > self._size:
            self._windows.popitem(last=False)[1].cancel()
        return self._windows[key]

    def close(self) -> None:
        """Ends the thread; windows that wait are not decoded."""
        self._thread.shutdown(wait=True, cancel_futures=True)
