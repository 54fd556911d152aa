"""Vectors of the rows of a feature, out of those of its stored ids: in lists, or summed up."""

import torch
import torch.nn.functional as F
from torch import Tensor

from recd_dist.tensors.expansion import expand_rows, expand_windows
from recd_dist.tensors.ikjt import IKJT


def gather_vectors(sparse: IKJT, feature: str, index: Tensor | None, vectors: Tensor) -> Tensor:
    """The vectors of the ids of a feature's rows, row after row.

    Args:
        sparse: the batch.
        feature: name of the feature.
        index: for each stored id of the feature the number of its vector, int64; None if they are in that order.
        vectors: the vectors, float32 [N, dim].

    Returns:
        [sum of the feature's lengths, dim].
    """
    if feature in sparse.windows:
        index = torch.arange(len(vectors), device=vectors.device) if index is None else index
        return expand_windows(vectors, index, sparse.column(feature, index))
    return vectors if index is None else expand_rows(vectors, index)


def list_index(sparse: IKJT, feature: str, index: Tensor | None) -> Tensor | None:
    """For each id of a feature's rows, row after row, the number of its vector, int64; None if they are in that order.

    Args:
        sparse: the batch.
        feature: name of the feature.
        index: the same for each stored id.
    """
    if index is None and feature in sparse.windows:
        index = torch.arange(sparse.num_values(feature), device=sparse.values.device)
    return None if index is None else sparse.as_lists(feature, index)


def list_weights(sparse: IKJT, feature: str) -> Tensor | None:
    """The weights of the ids of a feature's rows, row after row, float32; None where the batch has none.

    Args:
        sparse: the batch.
        feature: name of the feature.
    """
    weights = sparse.weights_of(feature)
    return None if weights is None else sparse.as_lists(feature, weights)


def pool_ids(vectors: Tensor, index: Tensor | None, lengths: Tensor, weights: Tensor | None) -> Tensor:
    """Sums up the vectors of each row.

    Args:
        vectors: the vectors, float32 [N, D].
        index: for each id of the rows the number of its vector, int64 [M]; None if M = N and the vectors are in order.
        lengths: number of ids of each row, int32 [R]; they sum to M.
        weights: weight of each id, float32 [M], or None.

    Returns:
        The sums, float32 [R, D]; zero for an empty row.
    """
    if index is None:
        index = torch.arange(len(vectors), device=vectors.device)
    if not len(index):
        # The result depends on the vectors even so, because every rank must take part in the backward exchange.
        return vectors.sum(0, keepdim=True).expand(len(lengths), -1) * 0.0
    starts = torch.cumsum(lengths, 0, dtype=torch.int64) - lengths
    return F.embedding_bag(index, vectors, starts, mode="sum", per_sample_weights=weights)


def multiply_vectors(vectors: Tensor, weights: Tensor | None) -> Tensor:
    """Multiplies each vector by its weight, which TorchRec does not do where vectors stay un-pooled.

    Args:
        vectors: the vectors, float32 [N, D].
        weights: weight of each vector, float32 [N]; None leaves the vectors as they are.

    Returns:
        The products, float32 [N, D].
    """
    return vectors if weights is None else vectors * weights[:, None]
