"""A small batch of random numbers, in the form in which a model gets batches, to try what a model does."""

from collections.abc import Collection

import torch
from torch import Tensor

from recd_dist.table.schema import SAMPLE, Schema
from recd_dist.tensors.grouped import Embedded, Grouped, GroupedJagged

_ROW_OF = (0, 0, 0, 1, 1, 1)
"""For each sample the row of its groups."""


def make_up_batch(schema: Schema, dim: int, histories: Collection[str]) -> tuple[Embedded, dict[str, Grouped]]:
    """Six samples of two sessions; the vectors require gradients.

    Args:
        schema: the features.
        dim: the width of the embeddings.
        histories: the list features that come as lists of vectors; a row has 2 of them, another none.

    Returns:
        For each group its pooled features, with the lists; and for each group that has them its dense features.
    """
    pooled, lists, dense = {}, {}, {}
    for group in schema.groups:
        inverse = None if group == SAMPLE else torch.tensor(_ROW_OF, dtype=torch.int32)
        num_rows = len(_ROW_OF) if inverse is None else max(_ROW_OF) + 1
        keys = tuple(name for name in schema.sparse_of(group) if name not in histories)
        if keys:
            pooled[group] = Grouped(_vectors(num_rows, len(keys) * dim), inverse, keys, (dim,) * len(keys))
        if names := schema.dense_of(group):
            dense[group] = Grouped(torch.randn(num_rows, len(names)), inverse)
        for name in (n for n in schema.sparse_of(group) if n in histories):
            lengths = 2 * (torch.arange(num_rows, dtype=torch.int32) % 2)
            lists[name] = GroupedJagged(_vectors(int(lengths.sum()), dim), lengths, inverse)
    return Embedded(pooled, lists), dense


def _vectors(rows: int, width: int) -> Tensor:
    return torch.randn(rows, width, requires_grad=True)
