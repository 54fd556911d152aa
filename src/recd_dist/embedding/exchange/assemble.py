"""What came back -> grouped tensors: columns put together, rows cut apart, features laid side by side per group.

::

    rank 0  [R, left half]  --.                      key item: rows of history | rows of candidate
    rank 1  [R, right half] --'-> [R, D] ------>     group user   [U, D]    <- its slice
    rank 0  [R, partial sum] -.                      group sample [B, D]    <- its slice
    rank 1  [R, partial sum] -+-> [R, D]
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recd_dist.embedding.exchange.classes import TableClass
from recd_dist.table.schema import SAMPLE, Schema
from recd_dist.tensors.grouped import Embedded, Grouped, GroupedJagged, expand_rows
from recd_dist.tensors.ikjt import IKJT


@dataclass(frozen=True)
class Block:
    """Named columns side by side.

    Attributes:
        names: keys, or features, in the order of the columns.
        dims: their widths.
        values: float [rows, sum of dims].
    """

    names: tuple[str, ...]
    dims: tuple[int, ...]
    values: Tensor

    def columns(self) -> dict[str, Tensor]:
        """[rows, dim] by name, views; a split, whose gradient is one concatenation, not a zero matrix a slice."""
        return dict(zip(self.names, self.values.split(self.dims, dim=1), strict=True))

    def divided(self, lengths: Callable[[str], Tensor]) -> "Block":
        """Sums -> means."""
        means = [v / lengths(f).clamp(min=1)[:, None] for f, v in self.columns().items()]
        return Block(self.names, self.dims, torch.cat(means, dim=1))


@dataclass(frozen=True)
class Looked:
    """What was computed for a class, or for a unit of it.

    Attributes:
        rows: the class: which features a key's rows are of.
        blocks: keys side by side; each key in one block.
        index: of a class that sends ids, for each id of the batch its row; None where ids are rows.
    """

    rows: TableClass
    blocks: tuple[Block, ...]
    index: Tensor | None = None


class Assemble(nn.Module):
    """Grouped tensors of a deduplicated batch; a module without parameters.

    Args:
        schema: features, groups and weights.
        sequence_features: features whose vectors are handed on un-pooled; others of their tables are pooled here.
        mean: divide a row's sum by its number of ids.
    """

    def __init__(self, schema: Schema, sequence_features: frozenset[str], mean: bool) -> None:
        super().__init__()
        self.sequence_features, self.mean, self.weighted = sequence_features, mean, frozenset(schema.weights)
        features = {g: [f for f in schema.sparse_of(g) if f not in sequence_features] for g in schema.groups}
        self.pooled_features = {g: tuple(fs) for g, fs in features.items() if fs}

    def forward(self, sparse: IKJT, looked: Sequence[Looked]) -> Embedded:
        """Embedded rows per group, and vectors per un-pooled feature.

        Args:
            sparse: the batch; gives lengths, weights and inverses.
            looked: of every table, once.
        """
        found, sequences = list[Block](), dict[str, GroupedJagged]()
        for each in looked:
            if each.rows.pooled:
                found += row_blocks(sparse, each)
                continue
            for name, place, vectors in self._features_of_ids(sparse, each):
                weights = sparse.weights_of(name) if name in self.weighted else None
                if name in self.sequence_features:
                    gathered = multiplied(vectors if place is None else expand_rows(vectors, place), weights)
                    inverse = sparse.inverse_of(sparse.group_of(name))
                    sequences[name] = GroupedJagged(gathered, sparse.lengths_of(name), inverse)
                else:
                    rows = pool_ids(vectors, place, sparse.lengths_of(name), weights)
                    found.append(Block((name,), (rows.shape[1],), rows))
        if self.mean:
            found = [b.divided(sparse.lengths_of) for b in found]
        groups = {g: side_by_side(fs, found, sparse.inverse_of(g)) for g, fs in self.pooled_features.items()}
        return Embedded(groups, {f: sequences[f] for f in sorted(sequences, key=sparse.keys.index)})

    @staticmethod
    def _features_of_ids(sparse: IKJT, each: Looked) -> list[tuple[str, Tensor | None, Tensor]]:
        """Of each feature the places of its ids among some vectors, or None and its own vectors in order."""
        ((block,), features) = each.blocks, each.rows.features
        sizes = [sparse.num_values(f) for f in features]
        if each.index is not None:
            return [(f, p, block.values) for f, p in zip(features, each.index.split(sizes), strict=True)]
        return [(f, None, v) for f, v in zip(features, block.values.split(sizes), strict=True)]


def pool_ids(vectors: Tensor, place: Tensor | None, lengths: Tensor, weights: Tensor | None) -> Tensor:
    """The sum of each row's vectors, [R, D]; zero for an empty row.

    Args:
        vectors: float32 [N, D].
        place: int64 [M], for each id of the rows its vector; None: they are in order, M = N.
        lengths: int32 [R], summing to M.
        weights: float32 [M] or None.
    """
    if place is None:
        place = torch.arange(len(vectors), device=vectors.device)
    if not len(place):
        # Depends on the vectors all the same: every rank takes part in the backward exchange.
        return vectors.sum(0, keepdim=True).expand(len(lengths), -1) * 0.0
    starts = torch.cumsum(lengths, 0, dtype=torch.int64) - lengths
    return F.embedding_bag(place, vectors, starts, mode="sum", per_sample_weights=weights)


def multiplied(vectors: Tensor, weights: Tensor | None) -> Tensor:
    """Each vector times its weight, [N, D]; TorchRec leaves un-pooled vectors as they are.

    Args:
        vectors: float32 [N, D].
        weights: float32 [N], or None, which changes nothing.
    """
    return vectors if weights is None else vectors * weights[:, None]


def merged(parts: Sequence[tuple[tuple[tuple[str, int, int], ...], Tensor]], by_rows: bool) -> tuple[Block, ...]:
    """Matrices of different ranks -> blocks of whole keys.

    Args:
        parts: of each matrix its columns (key, first column, columns) and its values [rows, sum of columns]; matrices
            of the same columns are of different rows of the tables, in ascending order.
        by_rows: such matrices are partial sums, which are added; False: rows that follow each other.
    """
    same: dict[tuple[tuple[str, int, int], ...], list[Tensor]] = {}
    for columns, values in parts:
        same.setdefault(columns, []).append(values)
    together = {c: _sum(vs) if by_rows else (vs[0] if len(vs) == 1 else torch.cat(vs)) for c, vs in same.items()}
    pieces: dict[str, int] = {}
    for columns in together:
        for key, _, _ in columns:
            pieces[key] = pieces.get(key, 0) + 1
    blocks, split = list[Block](), dict[str, list[tuple[int, Tensor]]]()
    for columns, values in together.items():
        dims = tuple(c for _, _, c in columns)
        if all(pieces[key] == 1 for key, _, _ in columns):
            blocks.append(Block(tuple(key for key, _, _ in columns), dims, values))
            continue
        for (key, first, _), piece in zip(columns, values.split(dims, dim=1), strict=True):
            split.setdefault(key, []).append((first, piece))
    for key, found in split.items():
        whole = torch.cat([piece for _, piece in sorted(found, key=lambda p: p[0])], dim=1)
        blocks.append(Block((key,), (whole.shape[1],), whole))
    return tuple(blocks)


def _sum(values: list[Tensor]) -> Tensor:
    """In rank order: the same sum every time."""
    total = values[0]
    for each in values[1:]:
        total = total + each
    return total


def row_blocks(sparse: IKJT, looked: Looked) -> list[Block]:
    """Blocks of keys -> blocks of features of one group, views."""
    found = []
    for block in looked.blocks:
        stacks = [looked.rows.stacks[key] for key in block.names]
        if len({tuple(sparse.group_of(f) for f in stack) for stack in stacks}) == 1:
            rows = _split_rows(block.values, [sparse.num_rows(sparse.group_of(f)) for f in stacks[0]])
            found += [Block(tuple(s[n] for s in stacks), block.dims, part) for n, part in enumerate(rows)]
            continue
        for stack, (key, column) in zip(stacks, block.columns().items(), strict=True):
            del key
            rows = _split_rows(column, [sparse.num_rows(sparse.group_of(f)) for f in stack])
            found += [Block((name,), (column.shape[1],), part) for name, part in zip(stack, rows, strict=True)]
    return found


def _split_rows(values: Tensor, heights: list[int]) -> Sequence[Tensor]:
    """Rows of each feature of a stack."""
    # A split of one piece is a view forward and a copy backward.
    return [values] if len(heights) == 1 else values.split(heights)


def side_by_side(features: Sequence[str], found: Sequence[Block], inverse: Tensor | None) -> Grouped:
    """A group's features as one matrix [U, sum of dims], in the order asked for; no copy where they lie so.

    Whole blocks are kept together where their features follow each other, so that fewer pieces are copied.
    """
    first = {b.names[0]: b for b in found}
    own = {name for b in found for name in b.names}
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
            if name not in own:
                raise ValueError(f"embeddings: no table has looked up feature '{name}'")
            columns.update(next(b for b in found if name in b.names).columns())
        pieces.append(columns[name])
        dims.append(columns[name].shape[1])
        at += 1
    values = pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=1)
    return Grouped(values, inverse, tuple(features), tuple(dims))


class AssembleExpanded(nn.Module):
    """What plain TorchRec hands over -> the same types, all of the group ``sample``.

    Args:
        schema: features and weights.
        sequence_tables: features of each un-pooled table.
        sequence_features: features handed on un-pooled; others of these tables are pooled here.
        mean: divide a row's sum by its number of ids.
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

    def forward(self, sent: Any, pooled: Sequence[Any], sequences: Any) -> Embedded:
        """Embedded rows of the group ``sample``, and vectors per un-pooled feature.

        Args:
            sent: the KeyedJaggedTensor that the modules were fed, with weights where features have some.
            pooled: a KeyedTensor [B, sum of dims] per pooled module.
            sequences: a JaggedTensor per feature, or None.
        """
        found = [Block(tuple(out.keys()), tuple(out.length_per_key()), out.values()) for out in pooled]
        vectors: dict[str, GroupedJagged] = {}
        for name in self.sequence_names if sequences is not None else ():
            weights = sent[name].weights() if name in self.weighted else None
            values = multiplied(sequences[name].values(), weights)
            vectors[name] = GroupedJagged(values, sequences[name].lengths().to(torch.int32))
            if name not in self.sequence_features:
                rows = vectors[name].pool().values
                found.append(Block((name,), (rows.shape[1],), rows))
        if self.mean:
            by_key = dict(zip(sent.keys(), sent.lengths().view(len(sent.keys()), -1), strict=True))
            found = [b.divided(by_key.__getitem__) for b in found]
        names = self.pooled_features
        groups = {SAMPLE: side_by_side(names, found, None)} if names else {}
        return Embedded(groups, {f: v for f, v in vectors.items() if f in self.sequence_features})
