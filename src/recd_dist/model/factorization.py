"""Factorization machine: the products of all pairs of vectors, added up, without computing a pair."""

from collections.abc import Sequence
from functools import reduce

import torch

from recd_dist.model.model_inputs import Vectors
from recd_dist.tensors.shared import Rows


def add_pair_products(vectors: Sequence[Vectors], dim: int) -> Rows:
    """The element-wise products of all pairs of vectors, added up: [B, dim].

    The sum over all pairs is half of (the square of the sum minus the sum of the squares). Both sums are computed once
    per unique row inside a group, so that a sample pays for two vectors of each group, however many features it has.

    Args:
        vectors: at least one matrix of vectors side by side.
        dim: the width of a vector.
    """
    parts = [part.values.unflatten(1, (len(part.names), dim)) for part in vectors]
    total = reduce(torch.add, [part.sum(1) for part in parts])
    squares = reduce(torch.add, [part.square().sum(1) for part in parts])
    pairs: Rows = (total.square() - squares) * 0.5
    return pairs
