"""The two sides of a comparison, each read as a stream of hashed samples.

::

    source   samples query -> batches -> hashes            groups with their own query: one hash a row, found by key and
                                                           counted by the samples that refer to it, never expanded
    table    flat view of one part after another -> batches -> hashes

A part refers only to itself, so that a join part by part takes the memory of one part.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recd_dist.etl.checksum.row_hashes import Hashes, column_checksum, label_hashes
from recd_dist.etl.checksum.sample_sums import Sums, buckets_of, feature_hashes, group_hashes, key_hashes, sample_hashes
from recd_dist.etl.deal.lookup import Lookup
from recd_dist.etl.raw import duckdb_sql as engine
from recd_dist.etl.source.inspection import SESSION, TEST, Inspection, link_column
from recd_dist.table.flat import flat_view
from recd_dist.table.location import Location
from recd_dist.table.manifest import Manifest
from recd_dist.table.schema import Feature, Kind, Schema

_BATCH_ROWS = 8192
_MAX_KEPT = 100_000

ALL = ""
"""The name of all splits together, where the source does not tell them apart."""

Done = Callable[[int], None]
"""Called with the number of samples that have been read since the last call."""


@dataclass(frozen=True)
class Comparison:
    """What is compared.

    Attributes:
        schema: schema of the table.
        keys: key columns of the table that are columns of the source too, and their names in its normalised query.
        own: per group with its own query its features.
    """

    schema: Schema
    keys: Mapping[str, str]
    own: Mapping[str, tuple[Feature, ...]]

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of all columns that are compared."""
        return (*self.keys, *self.schema.labels, *(f.name for f in self.schema.features))

    @cached_property
    def sample_features(self) -> tuple[Feature, ...]:
        """The labels and features that come from the samples query."""
        labels = (Feature(name, Kind.dense) for name in self.schema.labels)
        return (*labels, *(f for f in self.schema.features if f.group not in self.own))

    def hash_samples(self, columns: pa.Table | pa.RecordBatch) -> dict[str, Hashes]:
        """The hash of each value of the columns that come from the samples query, uint64 [N] by column."""
        features = (f for f in self.sample_features if f.name not in self.schema.labels)
        labels = {name: label_hashes(columns.column(name)) for name in self.schema.labels}
        return labels | {f.name: feature_hashes(columns, f) for f in features}

    def buckets(self, hashes: Mapping[str, Hashes], rows: Hashes) -> npt.NDArray[np.int64]:
        """The bucket of each sample: by the first key that is compared, so that the samples of a session share it.

        Args:
            hashes: per column uint64 [N].
            rows: uint64 [N], the hash of each whole sample.

        Returns:
            int64 [N].
        """
        return buckets_of(hashes[next(iter(self.keys))] if self.keys else rows)


@dataclass(frozen=True)
class HashedBatch:
    """Some samples of one side.

    Attributes:
        split: int64 [N], the number of each sample's split; 0 where splits are not told apart.
        hashes: per column uint64 [N]; on the source's side without the columns of groups with their own query.
        rows: uint64 [N], the hash of each whole sample.
        columns: the samples themselves.
        links: per group with its own query int64 [N], the row that each sample refers to (on the source's side only).
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
        inspection: the inspected source.
        comparison: what is compared.
        lookups: per group with its own query its rows.
        splits: names of the splits, or :data:`ALL` alone.
        test_sessions: int64 in ascending order, the sessions of the second split, where no column says them.
    """

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        inspection: Inspection,
        comparison: Comparison,
        lookups: Mapping[str, Lookup],
        splits: tuple[str, ...],
        test_sessions: npt.NDArray[np.int64] | None,
    ) -> None:
        self.connection, self.inspection, self.comparison, self.lookups = connection, inspection, comparison, lookups
        self.splits, self.test_sessions = splits, test_sessions
        self._group_rows = {group: self._hash_rows(group) for group in lookups}

    def sum_samples(self, done: Done) -> dict[str, Sums]:
        """Sums the hashes of every sample, by split."""
        sums = {split: Sums() for split in self.splits}
        num_links = {g: np.zeros((len(self.splits), len(h)), np.int64) for g, h in self._group_rows.items()}
        for batch in self.read_batches(done):
            for number, split in enumerate(self.splits):
                mine = batch.split == number
                hashes = {name: column[mine] for name, column in batch.hashes.items()}
                sums[split].add(hashes, batch.rows[mine], self.comparison.buckets(hashes, batch.rows[mine]))
                for group, rows in batch.links.items():
                    np.add.at(num_links[group][number], rows[mine], 1)
        for group, counts in num_links.items():
            self._add_group(group, counts, sums)
        return sums

    def read_batches(self, done: Done) -> Iterator[HashedBatch]:
        """Runs the samples query again."""
        for columns in _read_query(self.connection, self.inspection.samples, "samples query"):
            hashes = {key: key_hashes(columns.column(name)) for key, name in self.comparison.keys.items()}
            hashes |= self.comparison.hash_samples(columns)
            links = {g: lookup.find(columns.column(link_column(g))) for g, lookup in self.lookups.items()}
            rows = sample_hashes(hashes, {group: self._group_rows[group][numbers] for group, numbers in links.items()})
            yield HashedBatch(self._split_numbers(columns), hashes, rows, columns, links)
            done(columns.num_rows)

    def take(self, batch: HashedBatch, chosen: npt.NDArray[np.bool_]) -> pa.Table:
        """Some samples of a batch, with every column that is compared.

        Args:
            batch: samples [N].
            chosen: bool [N], whether to take each sample.
        """
        samples = pa.Table.from_batches([batch.columns]).filter(pa.array(chosen))
        columns = {key: samples[name] for key, name in self.comparison.keys.items()}
        columns |= {name: samples[name] for f in self.comparison.sample_features for name in _column_names(f)}
        for group, features in self.comparison.own.items():
            rows = self.lookups[group].take(batch.links[group][chosen])
            columns |= {name: rows[name] for f in features for name in _column_names(f)}
        return pa.table(columns)

    def _split_numbers(self, columns: pa.RecordBatch) -> npt.NDArray[np.int64]:
        if len(self.splits) == 1:
            return np.zeros(columns.num_rows, np.int64)
        if self.test_sessions is not None:
            return np.isin(columns.column(SESSION).to_numpy(zero_copy_only=False), self.test_sessions).astype(np.int64)
        return columns.column(TEST).to_numpy(zero_copy_only=False).astype(np.int64)

    def _hash_rows(self, group: str) -> Hashes:
        """Hashes each row of a group with its own query; the last hash, found at -1, is that of a missing row."""
        features = self.comparison.own[group]
        pieces = []
        for batch in (*self.lookups[group].batches(), self._missing_row(group)):
            hashes = {f.name: feature_hashes(batch, f) for f in features}
            pieces.append(group_hashes(hashes, hashes))
        return np.concatenate(pieces)

    def _missing_row(self, group: str) -> pa.Table:
        return self.lookups[group].take(np.full(1, -1))

    def _add_group(self, group: str, counts: npt.NDArray[np.int64], sums: Mapping[str, Sums]) -> None:
        """Adds the features of a group with its own query: each row as often as samples refer to it.

        Args:
            group: name of the group.
            counts: int64 [splits, rows + 1], the samples of each split that refer to each row, a missing one last.
            sums: per split its sums, which are changed.
        """
        start = 0
        for batch in (*self.lookups[group].batches(), self._missing_row(group)):
            for feature in self.comparison.own[group]:
                hashes = feature_hashes(batch, feature)
                for split, repeats in zip(self.splits, counts[:, start : start + batch.num_rows], strict=True):
                    sums[split].add_sum(feature.name, column_checksum(hashes, repeats))
            start += batch.num_rows


class TableSide:
    """The table's samples, as its flat view gives them.

    Args:
        connection: an open DuckDB.
        tables: per split the directory of its table and its manifest.
        comparison: what is compared.
        splits: names of the splits, or :data:`ALL` alone.
    """

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        tables: Mapping[str, tuple[Location, Manifest]],
        comparison: Comparison,
        splits: tuple[str, ...],
    ) -> None:
        self.connection, self.tables, self.comparison, self.splits = connection, tables, comparison, splits

    def sum_samples(self, done: Done) -> dict[str, Sums]:
        """Sums the hashes of every sample, by split."""
        sums = {split: Sums() for split in self.splits}
        for batch in self.read_batches(done):
            split = self.splits[int(batch.split[0])]
            sums[split].add(batch.hashes, batch.rows, self.comparison.buckets(batch.hashes, batch.rows))
        return sums

    def read_batches(self, done: Done) -> Iterator[HashedBatch]:
        """Reads the flat view, part by part; the samples of a batch are of one split."""
        for number, (table, manifest) in enumerate(self.tables.values()):
            split = min(number, len(self.splits) - 1)
            for part in manifest.parts:
                view, where = flat_view(table, parts=[part]), str(table / part.samples.path)
                for columns in _read_query(self.connection, view, where):
                    yield self._hash_batch(columns, split)
                    done(columns.num_rows)

    def take(self, batch: HashedBatch, chosen: npt.NDArray[np.bool_]) -> pa.Table:
        """Some samples of a batch, with every column that is compared.

        Args:
            batch: samples [N].
            chosen: bool [N], whether to take each sample.
        """
        samples = pa.Table.from_batches([batch.columns]).filter(pa.array(chosen))
        weights = [f.weights for f in self.comparison.schema.features if f.weights is not None]
        return samples.select([*self.comparison.columns, *weights])

    def _hash_batch(self, columns: pa.RecordBatch, split: int) -> HashedBatch:
        hashes = {key: key_hashes(columns.column(key)) for key in self.comparison.keys}
        hashes |= self.comparison.hash_samples(columns)
        groups: dict[str, Hashes] = {}
        in_groups: dict[str, Hashes] = {}
        for group, features in self.comparison.own.items():
            mine = {f.name: feature_hashes(columns, f) for f in features}
            groups[group] = group_hashes(mine, mine)
            in_groups |= mine
        rows = sample_hashes(hashes, groups)
        return HashedBatch(np.full(columns.num_rows, split), hashes | in_groups, rows, columns)


def read_bucket(side: SourceSide | TableSide, bucket: int, done: Done) -> tuple[pa.Table, Hashes] | None:
    """Reads a side's samples of one bucket.

    Args:
        side: source or table.
        bucket: number of the bucket.
        done: called with the number of samples of each batch that has been read.

    Returns:
        The samples [n], with every column that is compared, and the hash of each, uint64 [n]; None where there are too
        many samples, or none.
    """
    tables, hashes, num_kept = [], [], 0
    for batch in side.read_batches(done):
        chosen = side.comparison.buckets(batch.hashes, batch.rows) == bucket
        if chosen.any():
            tables.append(side.take(batch, chosen))
            hashes.append(batch.rows[chosen])
            num_kept += len(hashes[-1])
        if num_kept > _MAX_KEPT:
            return None
    return (pa.concat_tables(tables), np.concatenate(hashes)) if tables else None


def _column_names(feature: Feature) -> tuple[str, ...]:
    """Names of a feature's columns: its own, and that of its weights if it has some."""
    return (feature.name,) if feature.weights is None else (feature.name, feature.weights)


def _read_query(connection: duckdb.DuckDBPyConnection, query: str, where: str) -> Iterator[pa.RecordBatch]:
    """The result of a query in batches; ``where`` names the query in error messages."""
    with engine.report_query_errors(where):
        yield from (b for b in connection.sql(query).to_arrow_reader(_BATCH_ROWS) if b.num_rows)
