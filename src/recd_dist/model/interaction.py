"""Dot products of all pairs of vectors and the first layer over them, each product where its vectors are unique.

Vectors of deduplicated groups (history h, profile p) and of the sample (candidate c, dense z)::

    pair    h.p                     c.h c.p z.h z.p                        c.z
    where   once per shared row     a row's samples against its vectors    per sample
    cost    U                       B, as one product per slot             B

    first layer   expand(W_shared [h.p]) + W_sample [c.h c.p z.h z.p c.z]

In a batch of 16 samples per session with 24 session features and 2 sample features 276 of 325 pairs, and as many of
the layer's columns, are shared. All of it is exact: the same products and the same sums, in another order.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from recd_dist.model.layers import SplitLinear
from recd_dist.model.shared_rows import SharedRows, Slots, slot_width

MIN_SLOTTED = 4
"""Samples per shared row from which products per slot are faster than expanding the shared vectors (measured)."""


class DotInteraction(nn.Module):
    """All pairwise dot products and extra columns, through one linear layer.

    Columns of the weight: [extra if it is per sample | shared x sample pairs, sample x sample pairs | shared x shared
    pairs | extra if it is shared].

    Args:
        shared: names of the vectors that come once per shared row.
        sample: names of the vectors that come once per sample.
        dim: their width.
        extra: columns beside the products (the dense vector).
        extra_is_shared: the extra columns come once per shared row.
        size: output width.
    """

    def __init__(
        self, shared: Sequence[str], sample: Sequence[str], dim: int, extra: int, extra_is_shared: bool, size: int
    ) -> None:
        super().__init__()
        self.shared, self.sample, self.dim = tuple(shared), tuple(sample), dim
        self.extra, self.extra_is_shared = extra, extra_is_shared
        self.pairs = [
            *((s, j) for s in self.sample for j in self.shared),
            *_pairs(self.sample),
            *_pairs(self.shared),
        ]
        num_shared = len(_pairs(self.shared)) + (extra if extra_is_shared else 0)
        self.layer = SplitLinear(len(self.pairs) + extra - num_shared, num_shared, size)
        self._index: dict[tuple[tuple[str, ...], torch.device], Tensor] = {}

    def forward(self, shared: Tensor | None, sample: Tensor | None, extra: Tensor | None, rows: SharedRows) -> Tensor:
        """The layer's output, [B, size], with shared rows.

        Args:
            shared: [U, number of shared vectors, dim], in the order of ``shared``.
            sample: [B, number of sample vectors, dim], in the order of ``sample``.
            extra: [B, extra], or [U, extra] if they are shared, or None.
            rows: the shared rows.
        """
        once: list[Tensor] = [] if shared is None else [self._products(shared, self.shared, _pairs(self.shared))]
        each: list[Tensor] = []
        if sample is not None:
            if shared is not None:
                each.append(_cross(sample, shared, rows))
            each.append(self._products(sample, self.sample, _pairs(self.sample)))
        if extra is not None:
            once, each = ([*once, extra], each) if self.extra_is_shared else (once, [extra, *each])
        return self.layer(_side_by_side(each), _side_by_side(once), rows)

    def per_sample(self, vectors: Tensor | None, names: tuple[str, ...], extra: Tensor | None) -> Tensor:
        """The layer's output, [B, size], with nothing shared: a plain dot interaction.

        Args:
            vectors: [B, number of vectors, dim], or None when there are none.
            names: their names, in any order.
            extra: [B, extra] or None.
        """
        products = [] if vectors is None else [self._products(vectors, names, self.pairs)]
        columns = [] if extra is None else [extra]
        columns = [*products, *columns] if self.extra_is_shared else [*columns, *products]
        return self.layer(_side_by_side(columns), None, None)

    def _products(self, vectors: Tensor, names: tuple[str, ...], pairs: Sequence[tuple[str, str]]) -> Tensor:
        """Dot products [rows, pairs] of vectors [rows, n, dim].

        One batched product and a gather of columns: a quarter of the time of indexing with two tensors.
        """
        key = (names, vectors.device)
        if key not in self._index:
            place = {name: n for n, name in enumerate(names)}
            index = [place[a] * len(names) + place[b] for a, b in pairs]
            self._index[key] = torch.tensor(index, dtype=torch.int64, device=vectors.device)
        square = torch.bmm(vectors, vectors.mT)
        return square.view(len(vectors), len(names) ** 2).index_select(1, self._index[key])


def _pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    return [(names[i], names[j]) for i in range(len(names)) for j in range(i + 1, len(names))]


def _side_by_side(columns: Sequence[Tensor]) -> Tensor | None:
    """Columns as one matrix; None when there are none."""
    kept = [c for c in columns if c.shape[1]]
    if not kept:
        return None
    return kept[0] if len(kept) == 1 else torch.cat(kept, dim=1)


def _cross(sample: Tensor, shared: Tensor, rows: SharedRows) -> Tensor:
    """Products of each sample's vectors with its shared row's, [B, sample vectors * shared vectors].

    Where a row has many samples of few vectors, one product of [width * sample vectors, dim] by [dim, shared vectors]
    per slot, and the shared vectors are never expanded; else the smaller of the two copies is to expand them: laying
    27 vectors a sample into slots of 2 took 1.2 times as long.
    """
    size, num_sample, dim = sample.shape
    num_shared = shared.shape[1]
    if num_sample > num_shared or size < MIN_SLOTTED * rows.num_rows:
        return torch.bmm(sample, rows.expand(shared).mT).flatten(1)
    slots = Slots.of(rows.inverse, rows.num_rows, slot_width(size, rows.num_rows))
    left = slots.fill(sample.reshape(size, num_sample * dim)).view(-1, slots.width * num_sample, dim)
    products = torch.bmm(left, slots.rows(shared).mT)
    return slots.take(products.view(-1, num_sample * num_shared))
