"""The two sides of a comparison as one stream each: the source's query again, and the table joined back.

::

    source   samples query -> batches -> hashes            groups with their own query: a hash a row, found by key,
                                                           counted by the samples that link to it: never expanded
    table    flat view of one part after another -> batches -> hashes

A part refers only to itself, so that joining part by part takes the memory of one.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recd_dist.errors import DataError
from recd_dist.etl.checksum.row_hashes import Hashes, column_checksum
from recd_dist.etl.checksum.sample_sums import Sums, buckets_of, feature_hashes, group_hashes, key_hashes, sample_hashes
from recd_dist.etl.deal.lookup import Lookup
from recd_dist.etl.source import duckdb_sql as engine
from recd_dist.etl.source.inspection import SESSION, TEST, Inspection, link_column
from recd_dist.table.flat import flat_view
from recd_dist.table.location import Location
from recd_dist.table.manifest import Manifest
from recd_dist.table.schema import Feature, Kind, Schema

_BATCH_ROWS = 8192
_MAX_KEPT = 100_000

ALL = ""
"""The name of all splits together, where they cannot be told apart in the source."""

Done = Callable[[int], None]


@dataclass(frozen=True)
class Layout:
    """What is compared.

    Attributes:
        schema: of the table.
        keys: key columns that are columns of the source too, and their names in its normalised query.
        own: groups with their own query and their features.
    """

    schema: Schema
    keys: Mapping[str, str]
    own: Mapping[str, tuple[Feature, ...]]

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of all columns that are compared."""
        return (*self.keys, *self.schema.labels, *(f.name for f in self.schema.features))

    @cached_property
    def plain(self) -> tuple[Feature, ...]:
        """Features of the samples query, labels among them."""
        labels = (Feature(name, Kind.dense) for name in self.schema.labels)
        return (*labels, *(f for f in self.schema.features if f.group not in self.own))

    def bucket(self, hashes: Mapping[str, Hashes], rows: Hashes) -> npt.NDArray[np.int64]:
        """The bucket of samples: by the first key that is compared, so that a session's samples share it."""
        return buckets_of(hashes[next(iter(self.keys))] if self.keys else rows)


@dataclass(frozen=True)
class Batch:
    """Samples of one side.

    Attributes:
        split: int64 [N], place of each sample's split, 0 where they are not told apart.
        hashes: uint64 [N] by column; on the source's side without those of groups with their own query.
        rows: uint64 [N] of whole samples.
        columns: the samples, for :meth:`flat`.
        links: int64 [N] per group with its own query, the rows there (source only).
    """

    split: npt.NDArray[np.int64]
    hashes: Mapping[str, Hashes]
    rows: Hashes
    columns: pa.RecordBatch
    links: Mapping[str, npt.NDArray[np.int64]] = field(default_factory=dict)


class SourceSide:
    """The source's samples.

    Args:
        connection: an open DuckDB.
        found: the source as inspected.
        layout: what is compared.
        lookups: of the groups with their own query.
        splits: names, or :data:`ALL` alone.
        test_sessions: sorted ids of the sessions of the second split, where no column tells it.
    """

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        found: Inspection,
        layout: Layout,
        lookups: Mapping[str, Lookup],
        splits: tuple[str, ...],
        test_sessions: npt.NDArray[np.int64] | None,
    ) -> None:
        self.connection, self.found, self.layout, self.lookups = connection, found, layout, lookups
        self.splits, self.test_sessions = splits, test_sessions
        self._group = {name: self._group_hashes(name) for name in lookups}

    def sums(self, done: Done) -> dict[str, Sums]:
        """Counts every sample, by split."""
        sums = {split: Sums() for split in self.splits}
        linked = {g: np.zeros((len(self.splits), len(h)), np.int64) for g, h in self._group.items()}
        for batch in self.batches(done):
            for number, split in enumerate(self.splits):
                mine = batch.split == number
                hashes = {name: column[mine] for name, column in batch.hashes.items()}
                sums[split].add(hashes, batch.rows[mine], self.layout.bucket(hashes, batch.rows[mine]))
                for group, rows in batch.links.items():
                    np.add.at(linked[group][number], rows[mine], 1)
        for group, counts in linked.items():
            self._add_linked(group, counts, sums)
        return sums

    def batches(self, done: Done) -> Iterator[Batch]:
        """The samples query again."""
        for columns in _streamed(self.connection, self.found.samples, "samples query"):
            hashes = {key: key_hashes(columns.column(name)) for key, name in self.layout.keys.items()}
            hashes |= {f.name: feature_hashes(columns, f) for f in self.layout.plain}
            links = {g: lookup.find(columns.column(link_column(g))) for g, lookup in self.lookups.items()}
            rows = sample_hashes(hashes, {g: self._group[g][places] for g, places in links.items()})
            yield Batch(self._split(columns), hashes, rows, columns, links)
            done(columns.num_rows)

    def flat(self, batch: Batch, chosen: npt.NDArray[np.bool_]) -> pa.Table:
        """Some samples with every column that is compared."""
        taken = pa.Table.from_batches([batch.columns]).filter(pa.array(chosen))
        columns = {key: taken[name] for key, name in self.layout.keys.items()}
        columns |= {name: taken[name] for f in self.layout.plain for name in _stored(f)}
        for group, features in self.layout.own.items():
            rows = self.lookups[group].take(batch.links[group][chosen])
            columns |= {name: rows[name] for f in features for name in _stored(f)}
        return pa.table(columns)

    def _split(self, columns: pa.RecordBatch) -> npt.NDArray[np.int64]:
        if len(self.splits) == 1:
            return np.zeros(columns.num_rows, np.int64)
        if self.test_sessions is not None:
            return np.isin(columns.column(SESSION).to_numpy(zero_copy_only=False), self.test_sessions).astype(np.int64)
        return columns.column(TEST).to_numpy(zero_copy_only=False).astype(np.int64)

    def _group_hashes(self, group: str) -> Hashes:
        """A hash for each row of a group with its own query; the last, at -1, of a row that is missing."""
        features = self.layout.own[group]
        pieces = []
        for batch in (*self.lookups[group].batches(), self._missing(group)):
            hashes = {f.name: feature_hashes(batch, f) for f in features}
            pieces.append(group_hashes(hashes, hashes))
        return np.concatenate(pieces)

    def _missing(self, group: str) -> pa.Table:
        return self.lookups[group].take(np.full(1, -1))

    def _add_linked(self, group: str, counts: npt.NDArray[np.int64], sums: Mapping[str, Sums]) -> None:
        """Checksums of the features of a group with its own query: each row times the samples that link to it."""
        start = 0
        for batch in (*self.lookups[group].batches(), self._missing(group)):
            for feature in self.layout.own[group]:
                hashes = feature_hashes(batch, feature)
                for split, repeats in zip(self.splits, counts[:, start : start + batch.num_rows], strict=True):
                    sums[split].add_sum(feature.name, column_checksum(hashes, repeats))
            start += batch.num_rows


class TableSide:
    """The table's samples, as its flat view gives them.

    Args:
        connection: an open DuckDB.
        tables: directory and manifest of each split.
        layout: what is compared.
        splits: names, or :data:`ALL` alone.
    """

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        tables: Mapping[str, tuple[Location, Manifest]],
        layout: Layout,
        splits: tuple[str, ...],
    ) -> None:
        self.connection, self.tables, self.layout, self.splits = connection, tables, layout, splits

    def sums(self, done: Done) -> dict[str, Sums]:
        """Counts every sample, by split."""
        sums = {split: Sums() for split in self.splits}
        for batch in self.batches(done):
            split = self.splits[int(batch.split[0])]
            sums[split].add(batch.hashes, batch.rows, self.layout.bucket(batch.hashes, batch.rows))
        return sums

    def batches(self, done: Done) -> Iterator[Batch]:
        """The flat view, part by part; a batch is of one split."""
        for number, (table, manifest) in enumerate(self.tables.values()):
            place = min(number, len(self.splits) - 1)
            for part in manifest.parts:
                for columns in _streamed(
                    self.connection, flat_view(table, parts=[part]), str(table / part.samples.path)
                ):
                    yield self._batch(columns, place)
                    done(columns.num_rows)

    def flat(self, batch: Batch, chosen: npt.NDArray[np.bool_]) -> pa.Table:
        """Some samples with every column that is compared."""
        taken = pa.Table.from_batches([batch.columns]).filter(pa.array(chosen))
        weights = [f.weights for f in self.layout.schema.features if f.weights is not None]
        return taken.select([*self.layout.columns, *weights])

    def _batch(self, columns: pa.RecordBatch, place: int) -> Batch:
        hashes = {key: key_hashes(columns.column(key)) for key in self.layout.keys}
        hashes |= {f.name: feature_hashes(columns, f) for f in self.layout.plain}
        groups = {}
        for group, features in self.layout.own.items():
            mine = {f.name: feature_hashes(columns, f) for f in features}
            groups[group] = group_hashes(mine, mine)
            hashes |= mine
        plain = {name: column for name, column in hashes.items() if not self._is_own(name)}
        return Batch(np.full(columns.num_rows, place), hashes, sample_hashes(plain, groups), columns)

    def _is_own(self, name: str) -> bool:
        return name in self.layout.schema and self.layout.schema[name].group in self.layout.own


def of_bucket(side: SourceSide | TableSide, bucket: int, done: Done) -> tuple[pa.Table, Hashes] | None:
    """A side's samples of one bucket, and the hash of each; None where they are too many or none."""
    tables, hashes, kept = [], [], 0
    for batch in side.batches(done):
        chosen = side.layout.bucket(batch.hashes, batch.rows) == bucket
        if chosen.any():
            tables.append(side.flat(batch, chosen))
            hashes.append(batch.rows[chosen])
            kept += len(hashes[-1])
        if kept > _MAX_KEPT:
            return None
    return (pa.concat_tables(tables), np.concatenate(hashes)) if tables else None


def _stored(feature: Feature) -> tuple[str, ...]:
    return (feature.name,) if feature.weights is None else (feature.name, feature.weights)


def _streamed(connection: duckdb.DuckDBPyConnection, query: str, where: str) -> Iterator[pa.RecordBatch]:
    try:
        yield from (b for b in connection.sql(query).to_arrow_reader(_BATCH_ROWS) if b.num_rows)
    except (duckdb.Error, pa.ArrowInvalid) as error:
        raise DataError(f"{where}: {engine.short_message(error)}") from error
