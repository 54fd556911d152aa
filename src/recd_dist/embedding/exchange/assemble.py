"""Makes grouped tensors of the vectors and partial sums that came back.

::

    rank 0  [R, left half]  --.                      key item: rows of history | rows of candidate
    rank 1  [R, right half] --'-> [R, D] ------>     group user   [U, D]    <- its slice
    rank 0  [R, partial sum] -.                      group sample [B, D]    <- its slice
    rank 1  [R, partial sum] -+-> [R, D]
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from recd_dist.embedding.exchange.classes import TableClass
from recd_dist.embedding.exchange.return_index import Bundle
from recd_dist.embedding.exchange.row_vectors import (
    gather_vectors,
    list_index,
    list_weights,
    multiply_vectors,
    pool_ids,
)
from recd_dist.table.schema import SAMPLE, Schema
from recd_dist.tensors.grouped import Embedded, Grouped, GroupedJagged
from recd_dist.tensors.ikjt import IKJT


@dataclass(frozen=True)
class Block:
    """Columns of several keys, or of several features, side by side.

    Attributes:
        names: names of the keys or features, in the order of the columns.
        dims: for each name the number of its columns.
        values: the vectors, float32 [rows, sum of dims].
    """

    names: tuple[str, ...]
    dims: tuple[int, ...]
    values: Tensor

    def columns(self) -> dict[str, Tensor]:
        """Columns of each name, [rows, dim], as views.

        One split cuts them, and its gradient is one concatenation; the gradient of each slice would be a whole matrix.
        """
        return dict(zip(self.names, self.values.split(self.dims, dim=1), strict=True))

    def divide(self, lengths: Callable[[str], Tensor]) -> "Block":
        """Divides sums by the lengths of their lists, which makes them means.

        Args:
            lengths: for a name the number of ids of each row, int32 [rows].
        """
        means = [v / lengths(f).clamp(min=1)[:, None] for f, v in self.columns().items()]
        return Block(self.names, self.dims, torch.cat(means, dim=1))


@dataclass(frozen=True)
class LookupResult:
    """What was computed for a class, or for one unit of it.

    Attributes:
        table_class: the class; it says which features the rows of a key belong to.
        blocks: the vectors of all keys; each key is in one block.
        index: for each id that the batch stores its row in the block, int64; None if the rows are in their order.
    """

    table_class: TableClass
    blocks: tuple[Block, ...]
    index: Tensor | None = None


class Assemble(nn.Module):
    """Makes grouped tensors of a deduplicated batch; a module without parameters.

    Args:
        schema: features, groups and weights.
        sequence_features: features whose vectors stay un-pooled; other features of their tables are pooled here.
        mean: True to divide the sum of a row by its number of ids.
    """

    def __init__(self, schema: Schema, sequence_features: frozenset[str], mean: bool) -> None:
        super().__init__()
        self.sequence_features, self.mean, self.weighted = sequence_features, mean, frozenset(schema.weights)
        features = {g: [f for f in schema.sparse_of(g) if f not in sequence_features] for g in schema.groups}
        self.pooled_features = {g: tuple(fs) for g, fs in features.items() if fs}

    def forward(self, sparse: IKJT, results: Sequence[LookupResult]) -> Embedded:
        """The embedded rows of each group, and the vectors of each un-pooled feature.

        Args:
            sparse: the batch, with lengths, weights and inverses.
            results: what was computed; every table is in one of them.
        """
        blocks, sequences = list[Block](), dict[str, GroupedJagged]()
        for result in results:
            if result.table_class.pooled:
                blocks += row_blocks(sparse, result)
                continue
            for name, index, vectors in self._features_of_ids(sparse, result):
                weights = list_weights(sparse, name) if name in self.weighted else None
                if name in self.sequence_features:
                    sequences[name] = list_of(
                        sparse, name, multiply_vectors(gather_vectors(sparse, name, index, vectors), weights)
                    )
                else:
                    rows = pool_ids(vectors, list_index(sparse, name, index), sparse.lengths_of(name), weights)
                    blocks.append(Block((name,), (rows.shape[1],), rows))
        if self.mean:
            blocks = [b.divide(sparse.lengths_of) for b in blocks]
        groups = {g: join_features(fs, blocks, sparse, g) for g, fs in self.pooled_features.items()}
        return Embedded(groups, {f: sequences[f] for f in sorted(sequences, key=sparse.keys.index)})

    @staticmethod
    def _features_of_ids(sparse: IKJT, result: LookupResult) -> list[tuple[str, Tensor | None, Tensor]]:
        """For each feature the index of its stored ids and the vectors it points to; without index its own vectors."""
        ((block,), features) = result.blocks, result.table_class.features
        sizes = [sparse.num_values(f) for f in features]
        if result.index is not None:
            return [(f, i, block.values) for f, i in zip(features, result.index.split(sizes), strict=True)]
        return [(f, None, v) for f, v in zip(features, block.values.split(sizes), strict=True)]


def merge_matrices(parts: Sequence[tuple[Bundle, Tensor]], by_rows: bool) -> tuple[Block, ...]:
    """Merges the matrices of different ranks to blocks of whole keys.

    Args:
        parts: the bundles of a unit, each with its matrices one below the other, float32 [rows of all, columns]. The
            matrices of a bundle belong to different rows of the tables, in ascending order.
        by_rows: True if such matrices are partial sums, which are added up; False if their rows follow each other.
    """
    together = [(b.columns, _add_up(v, b.num_matrices) if by_rows else v) for b, v in parts]
    pieces = Counter(key for columns, _ in together for key, _, _ in columns)
    blocks, split = list[Block](), dict[str, list[tuple[int, Tensor]]]()
    for columns, values in together:
        dims = tuple(c for _, _, c in columns)
        if all(pieces[key] == 1 for key, _, _ in columns):
            blocks.append(Block(tuple(key for key, _, _ in columns), dims, values))
            continue
        for (key, first, _), piece in zip(columns, values.split(dims, dim=1), strict=True):
            split.setdefault(key, []).append((first, piece))
    for key, shards in split.items():
        whole = torch.cat([piece for _, piece in sorted(shards, key=lambda p: p[0])], dim=1)
        blocks.append(Block((key,), (whole.shape[1],), whole))
    return tuple(blocks)


def _add_up(values: Tensor, num_matrices: int) -> Tensor:
    """Adds up matrices that stand one below the other."""
    if num_matrices == 1:
        return values
    return values.view(num_matrices, len(values) // num_matrices, values.shape[1]).sum(0)


def row_blocks(sparse: IKJT, result: LookupResult) -> list[Block]:
    """Cuts blocks of keys into blocks of features, as views; the features of a block have the same group.

    Args:
        sparse: the batch.
        result: what was computed for a pooled class.
    """
    blocks = []
    for block in result.blocks:
        stacks = [result.table_class.stacks[key] for key in block.names]
        if len({tuple(sparse.group_of(f) for f in stack) for stack in stacks}) == 1:
            rows = _split_rows(block.values, [sparse.num_rows(sparse.group_of(f)) for f in stacks[0]])
            blocks += [Block(tuple(s[n] for s in stacks), block.dims, part) for n, part in enumerate(rows)]
            continue
        for stack, (key, column) in zip(stacks, block.columns().items(), strict=True):
            del key
            rows = _split_rows(column, [sparse.num_rows(sparse.group_of(f)) for f in stack])
            blocks += [Block((name,), (column.shape[1],), part) for name, part in zip(stack, rows, strict=True)]
    return blocks


def _split_rows(values: Tensor, heights: list[int]) -> Sequence[Tensor]:
    """The rows of each feature of a stack."""
    # A split into one piece would be a view forward, but a copy backward.
    return [values] if len(heights) == 1 else values.split(heights)


def list_of(sparse: IKJT, feature: str, vectors: Tensor) -> GroupedJagged:
    """The vectors of an un-pooled feature with the lists that they belong to.

    Args:
        sparse: the batch.
        feature: name of the feature.
        vectors: the vectors of its ids, float32 [N, dim].
    """
    group = sparse.group_of(feature)
    known = sparse.known_lengths_of(feature), sparse.known_inverse_of(group)
    return GroupedJagged(vectors, sparse.lengths_of(feature), sparse.inverse_of(group), *known)


def ids_of(sparse: IKJT, feature: str) -> GroupedJagged:
    """The ids of a feature that is not looked up, with the lists that they belong to.

    Args:
        sparse: the batch.
        feature: name of the feature.
    """
    return list_of(sparse, feature, sparse.as_lists(feature, sparse.values_of(feature)))


def join_features(features: Sequence[str], blocks: Sequence[Block], sparse: IKJT, group: str) -> Grouped:
    """Joins the features of a group to one matrix; nothing is copied if they are one block already.

    A block whose features follow each other in the result is copied as a whole, so that there are fewer pieces.

    Args:
        features: names of the features, in the order of the result.
        blocks: the blocks of all features.
        sparse: the batch, which has the group's inverse.
        group: name of the group.

    Returns:
        The group's tensor, [U, sum of dims].
    """
    first = {b.names[0]: b for b in blocks}
    known = {name for b in blocks for name in b.names}
    columns: dict[str, Tensor] = {}
    pieces, dims, at = list[Tensor](), list[int](), 0
    while at < len(features):
        name = features[at]
        block = first.get(name)
        if block is not None and tuple(features[at : at + len(block.names)]) == block.names:
            pieces.append(block.values)
            dims += block.dims
            at += len(block.names)
            continue
        if name not in columns:
            if name not in known:
                raise ValueError(f"embeddings: no table has looked up feature '{name}'")
            columns.update(next(b for b in blocks if name in b.names).columns())
        pieces.append(columns[name])
        dims.append(columns[name].shape[1])
        at += 1
    values = pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=1)
    names = tuple(features), tuple(dims)
    if group == SAMPLE:
        return Grouped(values, None, *names)
    return Grouped(values, sparse.inverse_of(group), *names, sparse.known_inverse_of(group))


class AssembleExpanded(nn.Module):
    """Makes grouped tensors of what plain TorchRec returns, all in the group ``sample``; no parameters.

    Args:
        schema: features and weights.
        sequence_tables: the un-pooled tables and their features.
        sequence_features: features whose vectors stay un-pooled; other features of these tables are pooled here.
        mean: True to divide the sum of a row by its number of ids.
    """

    def __init__(
        self,
        schema: Schema,
        sequence_tables: Mapping[str, tuple[str, ...]],
        sequence_features: frozenset[str],
        mean: bool,
    ) -> None:
        super().__init__()
        self.sequence_names = tuple(f for fs in sequence_tables.values() for f in fs)
        self.sequence_features, self.mean, self.weighted = sequence_features, mean, frozenset(schema.weights)
        self.pooled_features = tuple(f.name for f in schema.sparse if f.name not in sequence_features)

    def forward(self, sparse: IKJT, sent: Any, pooled: Sequence[Any], sequences: Any) -> Embedded:
        """The embedded rows of the group ``sample``, and the vectors of each un-pooled feature.

        Args:
            sparse: the batch, deduplicated or expanded.
            sent: the KeyedJaggedTensor that the modules took, with weights if features have some.
            pooled: for each module of pooled tables a KeyedTensor [B, sum of dims].
            sequences: for each feature of un-pooled tables a JaggedTensor; None if there are no such tables.
        """
        blocks = [Block(tuple(out.keys()), tuple(out.length_per_key()), out.values()) for out in pooled]
        vectors: dict[str, GroupedJagged] = {}
        for name in self.sequence_names if sequences is not None else ():
            weights = sent[name].weights() if name in self.weighted else None
            values = multiply_vectors(sequences[name].values(), weights)
            known = sparse.known_lengths_of(name) if sparse.group_of(name) == SAMPLE else None
            vectors[name] = GroupedJagged(values, sequences[name].lengths().to(torch.int32), known_lengths=known)
            if name not in self.sequence_features:
                rows = vectors[name].pool().values
                blocks.append(Block((name,), (rows.shape[1],), rows))
        if self.mean:
            by_key = dict(zip(sent.keys(), sent.lengths().view(len(sent.keys()), -1), strict=True))
            blocks = [b.divide(by_key.__getitem__) for b in blocks]
        names = self.pooled_features
        groups = {SAMPLE: join_features(names, blocks, sparse, SAMPLE)} if names else {}
        return Embedded(groups, {f: v for f, v in vectors.items() if f in self.sequence_features})
