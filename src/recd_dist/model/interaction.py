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
from dataclasses import replace
from itertools import accumulate, combinations, pairwise, product
from typing import NamedTuple

import torch
from torch import Tensor, nn

from recd_dist.model.model_inputs import Vectors
from recd_dist.tensors.column_products import add_product
from recd_dist.tensors.host_side import constant
from recd_dist.tensors.levels import Level, RowIndex, join_levels
from recd_dist.tensors.pair_products import PairPlaces, multiply_pairs
from recd_dist.tensors.shared import Columns, Rows, level_of, rows_at, stand_beside
from recd_dist.tensors.slots import Slots
from recd_dist.tensors.tracing import expected_size

MIN_SLOTTED = 4
"""With this many rows per shared row, products per slot are faster than expanding the shared vectors (measured)."""

CALL_COST = 250_000
"""What a tier costs for each row, in multiplications of a large product: small products take a call of some us a row.

By this number rm2 and rm3 have one tier, which was faster on CPU than two, and the cases of benchmarks/compute.py two.
"""

_Tier = tuple[Level | None, list[int]]
"""A level, and the numbers of vectors that are multiplied at it: with each other and with those of tiers before."""


class _Block(NamedTuple):
    """Some columns of the layer's input: their numbers, and their rows [rows, columns] at a level."""

    columns: list[int]
    rows: Tensor
    level: Level | None


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
        pairs = [*product(self.sample, self.shared), *combinations(self.sample, 2), *combinations(self.shared, 2)]
        first_pair = 0 if extra_is_shared else extra
        self.first_extra = len(pairs) if extra_is_shared else 0
        self.column = {frozenset(pair): first_pair + n for n, pair in enumerate(pairs)}
        self.layer = nn.Linear(len(pairs) + extra, size, bias)
        self._chosen: dict[tuple[tuple[str, ...], int, torch.device], tuple[list[int], PairPlaces]] = {}

    def forward(self, vectors: Sequence[Vectors], extra: Rows | None) -> Rows:
        """The layer's output, [B, size].

        Args:
            vectors: all vectors, in any order.
            extra: the extra columns, [B, extra]; None for none.

        Raises:
            ValueError: the names are not those of the module.
        """
        names = [name for v in vectors for name in v.names]
        if sorted(names) != sorted((*self.shared, *self.sample)):
            raise ValueError(f"model: vectors {tuple(names)} are given, wanted {(*self.shared, *self.sample)}")
        blocks, first = list[_Block](), self.first_extra
        if extra is not None:
            level = level_of(extra)
            blocks.append(_Block(list(range(first, first + self.extra)), rows_at(level, extra), level))
        before: _Tier = (None, [])
        flat = [replace(v, values=v.values.join()) if isinstance(v.values, Columns) else v for v in vectors]
        for level, own in self._tiers([v.values for v in flat]):
            blocks += self._multiply_tier([flat[n] for n in own], level, [flat[n] for n in before[1]], before[0])
            before = level, [*own, *before[1]]
        return self._run_layer(blocks)

    def _multiply_tier(
        self, own: Sequence[Vectors], level: Level | None, before: Sequence[Vectors], above: Level | None
    ) -> list[_Block]:
        """The products of a tier's vectors with each other and with those of the tiers before it.

        Args:
            own: the tier's vectors.
            level: the tier's level.
            before: the vectors of the tiers before it.
            above: the level of the tier before it.
        """
        names, others = ([name for v in part for name in v.names] for part in (own, before))
        num_rows = own[0].values.shape[0] if level is None else level.num_rows
        index = index_for_slots(above, level, len(names), len(others), num_rows) if before else None
        if index is None:
            return self._multiply(self._stack([*own, *before], level), [*names, *others], len(names), level)
        stack = self._stack(own, level)
        across = _Block(
            [self.column[frozenset((a, b))] for a in names for b in others],
            multiply_in_slots(stack, self._stack(before, above), index),
            level,
        )
        return [across, *self._multiply(stack, names, len(names), level)]

    def _stack(self, vectors: Sequence[Vectors], level: Level | None) -> Tensor:
        """Vectors side by side at a level, [rows, number of vectors, dim]."""
        return stand_beside([v.values for v in vectors], level).unflatten(1, (-1, self.dim))

    def _tiers(self, parts: Sequence[Rows]) -> list[_Tier]:
        """Puts vectors together that are multiplied together, the coarsest tier first.

        A tier's level is the join of its own with those before it. A tier of its own computes its pairs on fewer rows,
        but costs one more call for each of them; of all ways to cut the levels the cheapest is taken.
        """
        if not parts:
            return []
        columns = Columns(parts)
        levels, joined = columns.by_level(), list[Level | None]()
        for level, _ in levels:
            joined.append(join_levels([joined[-1], level]) if joined else level)
        sizes = [sum(columns.parts[n].shape[1] for n in numbers) // self.dim for _, numbers in levels]
        first = [0, *accumulate(sizes)]
        best: list[tuple[float, list[int]]] = [(0.0, [0])]
        for end in range(1, len(levels) + 1):
            rows = expected_size(columns.shape[0] if (level := joined[end - 1]) is None else level.num_rows)
            pairs = [(first[end] - f) * (first[end] + f - 1) // 2 for f in first[:end]]
            costs = [
                (best[start][0] + rows * (CALL_COST + pairs[start] * (self.dim + self.layer.out_features)), start)
                for start in range(end)
            ]
            cost, start = min(costs)
            best.append((cost, [*best[start][1], end]))
        cuts = best[-1][1]
        return [
            (joined[end - 1], [n for _, numbers in levels[start:end] for n in numbers]) for start, end in pairwise(cuts)
        ]

    def _multiply(self, vectors: Tensor, names: list[str], num_own: int, level: Level | None) -> list[_Block]:
        """The products of the first of some vectors with all of them; nothing where there is no pair."""
        key = (tuple(names), num_own, vectors.device)
        if key not in self._chosen:
            pairs = dict[int, tuple[int, int]]()  # by column of the weight
            for i, a in enumerate(names[:num_own]):
                pairs |= {self.column[frozenset((a, b))]: (i, j) for j, b in enumerate(names) if j > i}
            columns = sorted(pairs)
            places = PairPlaces.of([pairs[c] for c in columns], num_own, len(names), vectors.device)
            self._chosen[key] = columns, places
        columns, places = self._chosen[key]
        return [_Block(columns, multiply_pairs(vectors, places), level)] if columns else []

    def _run_layer(self, blocks: Sequence[_Block]) -> Rows:
        """Multiplies each level's columns where they are unique, and adds up from the coarsest level to the finest."""
        of_level: dict[Level | None, list[_Block]] = {}
        for block in sorted(blocks, key=lambda block: (expected_size(block.rows.shape[0]), block.columns[0])):
            of_level.setdefault(block.level, []).append(block)
        weights = _split_columns(
            self.layer.weight, [[c for b in group for c in b.columns] for group in of_level.values()]
        )
        total: Rows | None = None
        for (level, group), weight in zip(of_level.items(), weights, strict=True):
            rows = group[0].rows if len(group) == 1 else torch.cat([block.rows for block in group], 1)
            total = add_product(total, rows, weight, self.layer.bias, level)
        if total is None:
            raise ValueError("interaction: there is nothing to multiply")
        return total


def _split_columns(weight: Tensor, wanted: Sequence[list[int]]) -> list[Tensor]:
    """For each list of columns those of a weight [out, in]; views where they stand side by side.

    Together the lists name each column once. One split has one gradient, where views would have one each of the whole
    weight, to be added up.
    """
    order = sorted(range(len(wanted)), key=lambda n: wanted[n][0])
    if all(wanted[n] == list(range(wanted[n][0], wanted[n][0] + len(wanted[n]))) for n in order):
        pieces = dict(zip(order, torch.split_with_sizes(weight, [len(wanted[n]) for n in order], 1), strict=True))
        return [pieces[n] for n in range(len(wanted))]
    return [weight.index_select(1, constant(tuple(columns), weight.device)) for columns in wanted]


def index_for_slots(
    coarse: Level | None, fine: Level | None, num_fine: int, num_coarse: int, num_rows: int
) -> RowIndex | None:
    """The rows of a coarse level for those of a fine one, where products are best made in slots; None elsewhere.

    Where a coarse row has many fine ones with few vectors each, there is one product per slot, and the coarse vectors
    are not expanded. Elsewhere it is cheaper to expand them than to lay the fine rows into slots: with 27 vectors a
    sample and slots of 2, the slots took 1.2 times as long.
    """
    if coarse is None or num_fine > num_coarse:
        return None
    if expected_size(num_rows) < MIN_SLOTTED * expected_size(coarse.num_rows):
        return None
    return coarse.index_in(fine)


def multiply_in_slots(own: Tensor, before: Tensor, index: RowIndex) -> Tensor:
    """The products of each row's vectors with those of the coarse row in which it lies, [rows, n * m].

    Per slot there is one product, [width * n, dim] by [dim, m].

    Args:
        own: [rows, n, dim].
        before: [rows of the coarse level, m, dim].
        index: for each row the coarse one.
    """
    size, num_own, dim = own.shape
    slots = Slots.of_index(index)
    left = slots.fill(own.reshape(size, num_own * dim)).unflatten(2, (num_own, dim)).flatten(1, 2)
    products = torch.bmm(left, slots.gather_rows(before).mT)
    return slots.take(products.unflatten(1, (slots.width, num_own)).flatten(2))
