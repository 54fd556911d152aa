"""Dot products of all pairs of vectors, and the first layer over these products.

Each product is computed on the rows where its vectors are unique. With vectors of deduplicated groups (history h,
profile p) and of the sample (candidate c, dense features z)::

    pair    h.p                     c.h c.p z.h z.p                        c.z
    where   once per shared row     a row's samples against its vectors    per sample
    cost    U                       B, as one product per slot             B

    first layer   expand(W_shared [h.p]) + W_sample [c.h c.p z.h z.p c.z]

With 24 features of the session and 2 of the sample, 276 of 325 pairs are shared, and as many of the layer's columns.
All of it is exact: the products and the sums are the same, in another order.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from recd_dist.model.layers import SplitLinear
from recd_dist.model.shared_rows import SharedRows, Slots, slot_width

MIN_SLOTTED = 4
"""With this many samples per shared row, products per slot are faster than expanding the shared vectors (measured)."""


class DotInteraction(nn.Module):
    """All pairwise dot products and extra columns, through one linear layer.

    The columns of the weight: [extra columns if they are per sample | shared x sample pairs, sample x sample pairs |
    shared x shared pairs | extra columns if they are shared].

    Args:
        shared: the names of the vectors that come once per shared row.
        sample: the names of the vectors that come once per sample.
        dim: the width of the vectors.
        extra: the number of columns beside the products (the dense features' vector).
        extra_is_shared: whether the extra columns come once per shared row.
        size: the output width.
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
            shared: the shared vectors, [U, number of them, dim], in the order of their names; None for none.
            sample: the samples' vectors, [B, number of them, dim], in the order of their names; None for none.
            extra: the extra columns, [B, extra], or [U, extra] if they are shared; None for none.
            rows: the shared rows.
        """
        per_row: list[Tensor] = []
        per_sample: list[Tensor] = []
        if shared is not None:
            per_row.append(self._multiply_pairs(shared, self.shared, _pairs(self.shared)))
        if sample is not None:
            if shared is not None:
                per_sample.append(_multiply_across(sample, shared, rows))
            per_sample.append(self._multiply_pairs(sample, self.sample, _pairs(self.sample)))
        if extra is not None and self.extra_is_shared:
            per_row.append(extra)
        elif extra is not None:
            per_sample.insert(0, extra)
        return self.layer(_join_columns(per_sample), _join_columns(per_row), rows)

    def forward_per_sample(self, vectors: Tensor | None, names: tuple[str, ...], extra: Tensor | None) -> Tensor:
        """The layer's output, [B, size], with nothing shared: a plain dot interaction.

        Args:
            vectors: all vectors, [B, number of them, dim]; None for none.
            names: the vectors' names, in any order.
            extra: the extra columns, [B, extra]; None for none.
        """
        products = [] if vectors is None else [self._multiply_pairs(vectors, names, self.pairs)]
        columns = [] if extra is None else [extra]
        columns = [*products, *columns] if self.extra_is_shared else [*columns, *products]
        return self.layer(_join_columns(columns), None, None)

    def _multiply_pairs(self, vectors: Tensor, names: tuple[str, ...], pairs: Sequence[tuple[str, str]]) -> Tensor:
        """The dot products [rows, pairs] of vectors [rows, n, dim].

        One batched product and a gather of columns take a quarter of the time that indexing with two tensors takes.
        """
        key = (names, vectors.device)
        if key not in self._index:
            number = {name: n for n, name in enumerate(names)}
            index = [number[a] * len(names) + number[b] for a, b in pairs]
            self._index[key] = torch.tensor(index, dtype=torch.int64, device=vectors.device)
        square = torch.bmm(vectors, vectors.mT)
        return square.view(len(vectors), len(names) ** 2).index_select(1, self._index[key])


def _pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    return [(names[i], names[j]) for i in range(len(names)) for j in range(i + 1, len(names))]


def _join_columns(columns: Sequence[Tensor]) -> Tensor | None:
    """Lays matrices side by side as one matrix; None when there are no columns."""
    filled = [c for c in columns if c.shape[1]]
    if not filled:
        return None
    return filled[0] if len(filled) == 1 else torch.cat(filled, dim=1)


def _multiply_across(sample: Tensor, shared: Tensor, rows: SharedRows) -> Tensor:
    """The products of each sample's vectors with those of its shared row, [B, sample vectors * shared vectors].

    Where a row has many samples with few vectors each, there is one product per slot, [width * sample vectors, dim] by
    [dim, shared vectors], and the shared vectors are not expanded. Elsewhere it is cheaper to expand them than to lay
    the samples into slots: with 27 vectors a sample and slots of 2, the slots took 1.2 times as long.
    """
    size, num_sample, dim = sample.shape
    num_shared = shared.shape[1]
    if num_sample > num_shared or size < MIN_SLOTTED * rows.num_rows:
        return torch.bmm(sample, rows.expand(shared).mT).flatten(1)
    slots = Slots.of(rows.inverse, rows.num_rows, slot_width(size, rows.num_rows), rows.known_inverse)
    left = slots.fill(sample.reshape(size, num_sample * dim)).view(-1, slots.width * num_sample, dim)
    products = torch.bmm(left, slots.gather_rows(shared).mT)
    return slots.take(products.view(-1, num_sample * num_shared))
