"""Dot products of all pairs of vectors, and the first layer over these products.

Each product is computed where its two vectors are unique together. With vectors of the session (history h, profile p),
and of the sample (candidate c, dense features z)::

    pair    h.p                     c.h c.p z.h z.p                        c.z
    where   once per session        a session's samples against it         per sample
    cost    U                       B, as one product per slot             B

    first layer   expand(W_session [h.p]) + W_sample [c.h c.p z.h z.p c.z]

With 24 features of the session and 2 of the sample, 276 of 325 pairs are shared, and as many of the layer's columns.
All of it is exact: the products and the sums are the same, in another order. Any number of levels may lie between
session and sample; where nothing is shared there is one, and this is a plain dot interaction.
"""

from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recd_dist.model.model_inputs import Vectors
from recd_dist.tensors.host_side import constant
from recd_dist.tensors.levels import Level, join_levels
from recd_dist.tensors.shared import Columns, Rows, Shared, level_of, rows_at
from recd_dist.tensors.slots import Slots

MIN_SLOTTED = 4
"""With this many rows per shared row, products per slot are faster than expanding the shared vectors (measured)."""

_Stack = tuple[tuple[str, ...], Level | None, Tensor]
"""The names of vectors, their level, and the vectors [rows, number of names, dim]."""


class DotInteraction(nn.Module):
    """All pairwise dot products and extra columns, through one linear layer.

    The columns of the weight: [extra columns if they are per sample | shared x sample pairs, sample x sample pairs |
    shared x shared pairs | extra columns if they are shared]. The order is fixed, whatever the levels of a batch are.

    Args:
        shared: the names of the vectors that deduplicated groups have.
        sample: the names of the vectors that samples have.
        dim: the width of the vectors.
        extra: the number of columns beside the products (the dense features' vector).
        extra_is_shared: whether the extra columns are of deduplicated groups alone.
        size: the output width.
        bias: whether the layer has a bias.
    """

    def __init__(
        self,
        shared: Sequence[str],
        sample: Sequence[str],
        dim: int,
        extra: int,
        extra_is_shared: bool,
        size: int,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.shared, self.sample, self.dim, self.extra = tuple(shared), tuple(sample), dim, extra
        pairs = [*((s, j) for s in self.sample for j in self.shared), *_pairs(self.sample), *_pairs(self.shared)]
        first_pair = 0 if extra_is_shared else extra
        self.first_extra = len(pairs) if extra_is_shared else 0
        self.column = {frozenset(pair): first_pair + n for n, pair in enumerate(pairs)}
        self.layer = nn.Linear(len(pairs) + extra, size, bias)
        self._index: dict[tuple[tuple[str, ...], torch.device], tuple[Tensor, list[int]]] = {}

    def forward(self, vectors: Sequence[Vectors], extra: Rows | None) -> Rows:
        """The layer's output, [B, size].

        Args:
            vectors: all vectors, in any order.
            extra: the extra columns, [B, extra]; None for none.

        Raises:
            ValueError: the names are not those of the module.
        """
        stacks = self._stack_by_level(vectors)
        blocks: dict[Level | None, list[tuple[list[int], Tensor]]] = {}
        if extra is not None:
            columns = list(range(self.first_extra, self.first_extra + self.extra))
            blocks[level_of(extra)] = [(columns, rows_at(level_of(extra), extra))]
        for number, (names, level, own) in enumerate(stacks):
            for coarse in stacks[:number]:
                across = [self.column[frozenset((a, b))] for a in names for b in coarse[0]]
                joined = join_levels([coarse[1], level])
                blocks.setdefault(joined, []).append((across, _multiply_across((names, level, own), coarse, joined)))
            if len(names) > 1:
                products, inner = self._multiply_pairs(own, names)
                blocks.setdefault(level, []).append((inner, products))
        return self._run_layer(blocks)

    def _stack_by_level(self, vectors: Sequence[Vectors]) -> list[_Stack]:
        """The vectors of each level, the coarsest level first."""
        names = [name for v in vectors for name in v.names]
        if sorted(names) != sorted((*self.shared, *self.sample)):
            raise ValueError(f"model: vectors {tuple(names)} are given, wanted {(*self.shared, *self.sample)}")
        if not vectors:
            return []
        columns, stacks = Columns([v.values for v in vectors]), []
        for level, numbers in columns.by_level():
            rows = torch.cat([rows_at(level, columns.parts[n]) for n in numbers], 1).unflatten(1, (-1, self.dim))
            stacks.append((tuple(name for n in numbers for name in vectors[n].names), level, rows))
        return stacks

    def _multiply_pairs(self, vectors: Tensor, names: tuple[str, ...]) -> tuple[Tensor, list[int]]:
        """The dot products [rows, pairs] of vectors [rows, n, dim], and their columns of the weight, ascending.

        One batched product and a gather of columns take a quarter of the time that indexing with two tensors takes.
        """
        key = (names, vectors.device)
        if key not in self._index:
            found = sorted((self.column[frozenset((names[i], names[j]))], i * len(names) + j) for i, j in _upper(names))
            index = torch.tensor([place for _, place in found], dtype=torch.int64, device=vectors.device)
            self._index[key] = index, [column for column, _ in found]
        index, columns = self._index[key]
        square = torch.bmm(vectors, vectors.mT)
        return square.view(len(vectors), len(names) ** 2).index_select(1, index), columns

    def _run_layer(self, blocks: dict[Level | None, list[tuple[list[int], Tensor]]]) -> Rows:
        """Multiplies each level's columns where they are unique, and adds up from the coarsest level to the finest."""
        total: Rows | None = None
        for level, parts in sorted(blocks.items(), key=lambda item: len(item[1][0][1])):
            columns = [c for numbers, _ in parts for c in numbers]
            rows = parts[0][1] if len(parts) == 1 else torch.cat([p for _, p in parts], 1)
            weight = _take_columns(self.layer.weight, columns)
            product = Shared.of(F.linear(rows, weight, self.layer.bias if total is None else None), level)
            total = product if total is None else torch.add(total, product)  # type: ignore[arg-type]
        if total is None:
            raise ValueError("interaction: there is nothing to multiply")
        return total


def _pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    return [(names[i], names[j]) for i, j in _upper(tuple(names))]


@lru_cache(maxsize=64)
def _upper(names: tuple[str, ...]) -> list[tuple[int, int]]:
    return [(i, j) for i in range(len(names)) for j in range(i + 1, len(names))]


def _take_columns(weight: Tensor, columns: list[int]) -> Tensor:
    """Columns of a weight [out, in], in some order; a view where they stand side by side."""
    first = columns[0]
    if columns == list(range(first, first + len(columns))):
        return weight.narrow(1, first, len(columns))
    return weight.index_select(1, constant(tuple(columns), weight.device))


def _multiply_across(fine: _Stack, coarse: _Stack, joined: Level | None) -> Tensor:
    """The products of each row's vectors with those of a coarser level, [rows, fine vectors * coarse vectors].

    Where a coarse row has many fine ones with few vectors each, there is one product per slot, [width * fine vectors,
    dim] by [dim, coarse vectors], and the coarse vectors are not expanded. Elsewhere it is cheaper to expand them than
    to lay the fine rows into slots: with 27 vectors a sample and slots of 2, the slots took 1.2 times as long.
    """
    rows, shared = Shared.of(fine[2], fine[1]), Shared.of(coarse[2], coarse[1])
    own = rows_at(joined, rows)
    size, num_fine, dim = own.shape
    num_coarse = coarse[2].shape[1]
    level = coarse[1]
    index = level.index_in(joined) if level is not None and level is not joined else None
    if index is None or num_fine > num_coarse or size < MIN_SLOTTED * index.num_rows:
        return torch.bmm(own, rows_at(joined, shared).mT).flatten(1)
    slots = Slots.of_index(index)
    left = slots.fill(own.reshape(size, num_fine * dim)).view(-1, slots.width * num_fine, dim)
    products = torch.bmm(left, slots.gather_rows(coarse[2]).mT)
    return slots.take(products.view(-1, num_fine * num_coarse))
