"""Looks up a batch in the tables of an export: what ``Embeddings`` gives in training, without torchrec."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recd_dist.embedding.ids.id_loops import find_rows, index_rows
from recd_dist.embedding.ids.zones import UNKNOWN
from recd_dist.exported.description import Description
from recd_dist.exported.row_stack import RowStack
from recd_dist.table.column import Array
from recd_dist.table.schema import SAMPLE
from recd_dist.tensors.batch import Batch
from recd_dist.tensors.grouped import Embedded, Grouped, GroupedJagged
from recd_dist.tensors.ikjt import IKJT


class MappedRows:
    """Which row each id of a mapped table has; ids that have none share the unknown row.

    Args:
        row_ids: int64 [rows], the id of each row.
        row_seen: int64 [rows], when it was last seen; below 0 for a row without an id.
    """

    def __init__(self, row_ids: Array, row_seen: Array) -> None:
        self._ids = row_ids
        used = np.flatnonzero(row_seen >= 0)
        self._index = np.full(1 << max(4, (2 * len(used)).bit_length()), -1, np.int32)
        index_rows(row_ids, used, self._index)

    def find(self, ids: Array) -> Array:
        """The rows of ids, int64 [N]."""
        rows = np.empty(len(ids), np.int64)
        find_rows(self._ids, self._index, ids.astype(np.int64, copy=False), rows)
        return np.where(rows < 0, UNKNOWN, rows)


@dataclass(frozen=True, eq=False)
class _Keys:
    """Some keys of a batch, with their rows one after the other.

    Attributes:
        index: int64 [N], rows in the stack.
        lengths: int32 [sum of rows], lengths of their lists.
        weights: float32 [N], or None.
    """

    index: Tensor
    lengths: Tensor
    weights: Tensor | None


class Lookups:
    """The tables of an export, looked up by batches.

    Args:
        description: the export.
        stack: the rows of all tables.
        mapped: the ids of mapped tables, by name.
    """

    def __init__(self, description: Description, stack: RowStack, mapped: Mapping[str, MappedRows]) -> None:
        self._stack, self._mapped, schema = stack, dict(mapped), description.schema
        self._sequences, self._ids = description.sequences, description.ids
        self._mean = description.model.get("pooling", "mean") == "mean"
        self.pooled = pooled_features(description)
        self._tables = {f.name: str(f.table) for f in schema.sparse}
        self._weighted = frozenset(schema.weights)
        self.unknown = dict.fromkeys(self._mapped, 0)

    def look_up(self, batch: Batch) -> Embedded:
        """The vectors of a batch, deduplicated or expanded: pooled ones side by side, lists as they are.

        Args:
            batch: the batch; if it is expanded, all of its features are in ``sample``.
        """
        sparse = batch.sparse
        groups = {g.name: [k for names in self.pooled.values() for k in names if k in g.keys] for g in sparse.groups}
        names = [key for keys in groups.values() for key in keys]
        pooled = dict[str, Grouped]()
        if names:
            keys = self._keys(sparse, names)
            sums = self._stack.pool(keys.index, keys.lengths, keys.weights)
            if self._mean:
                sums = sums / keys.lengths.clamp(min=1)[:, None]
            for group, own in groups.items():
                if own:
                    first, sums = sums[: len(own) * sparse.num_rows(group)], sums[len(own) * sparse.num_rows(group) :]
                    pooled[group] = self._side_by_side(sparse, group, own, first)
        sequences = {name: self._list_of(sparse, name) for name in sorted(self._sequences, key=sparse.keys.index)}
        ids = {name: _with_inverse(sparse, name, sparse.values_of(name)) for name in self._ids}
        return Embedded(pooled, sequences, ids)

    def _keys(self, sparse: IKJT, names: Sequence[str]) -> _Keys:
        """The rows in the stack of some keys, in the order of the batch."""
        parts = [self._rows_of(name, sparse.values_of(name).numpy()) for name in names]
        lengths = torch.cat([sparse.lengths_of(name) for name in names])
        weights = None
        if any(name in self._weighted for name in names):
            weights = torch.cat([_weights_of(sparse, name) for name in names])
        return _Keys(torch.from_numpy(np.concatenate(parts)), lengths, weights)

    def _rows_of(self, name: str, ids: Array) -> Array:
        """The rows in the stack of a feature's ids, int64 [N]."""
        table = self._tables[name]
        if (mapped := self._mapped.get(table)) is not None:
            ids = mapped.find(ids)
            self.unknown[table] += int((ids == UNKNOWN).sum())
        return np.add(ids, self._stack.first_row[table], dtype=np.int64)

    def _side_by_side(self, sparse: IKJT, group: str, keys: Sequence[str], rows: Tensor) -> Grouped:
        """The vectors of a group [n * U, D] as columns, [U, n * D]."""
        num_rows, dim = sparse.num_rows(group), self._stack.dim
        values = rows.view(len(keys), num_rows, dim).transpose(0, 1).reshape(num_rows, len(keys) * dim)
        names = tuple(keys), (dim,) * len(keys)
        if group == SAMPLE:
            return Grouped(values, None, *names)
        return Grouped(values, sparse.inverse_of(group), *names, sparse.known_inverse_of(group))

    def _list_of(self, sparse: IKJT, name: str) -> GroupedJagged:
        """The vectors of an un-pooled feature, multiplied by their weights."""
        vectors = self._stack.take(torch.from_numpy(self._rows_of(name, sparse.values_of(name).numpy())))
        if name in self._weighted:
            vectors = vectors * _weights_of(sparse, name)[:, None]
        return _with_inverse(sparse, name, vectors)


def pooled_features(description: Description) -> dict[str, tuple[str, ...]]:
    """For each group the features whose vectors are pooled, in the order of the schema."""
    schema, left_out = description.schema, {*description.sequences, *description.unused}
    return {g: tuple(k for k in schema.sparse_of(g) if k not in left_out) for g in schema.groups}


def _weights_of(sparse: IKJT, name: str) -> Tensor:
    weights = sparse.weights_of(name)
    return torch.ones(sparse.num_values(name)) if weights is None else weights


def _with_inverse(sparse: IKJT, name: str, values: Tensor) -> GroupedJagged:
    group = sparse.group_of(name)
    known = sparse.known_lengths_of(name), sparse.known_inverse_of(group)
    return GroupedJagged(values, sparse.lengths_of(name), sparse.inverse_of(group), *known)
