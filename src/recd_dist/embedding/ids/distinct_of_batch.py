"""The distinct ids that a batch looks up in one table, and how often: the same with deduplication on and off."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from recd_dist.embedding.ids.id_loops import add_distinct
from recd_dist.embedding.ids.kept_ids import empty_index
from recd_dist.table.column import Array
from recd_dist.tensors.ikjt import IKJT


class Distinct(NamedTuple):
    """The distinct ids of some features.

    Attributes:
        ids: int64 [n], in order of first appearance.
        counts: int64 [n], lookups of each, over the samples: an id in a row that 16 samples share was looked up 16
            times.
        places: int64 [V], for each id that is stored of the features, one after the other, its place in ``ids``.
    """

    ids: Array
    counts: Array
    places: Array


def find_distinct(sparse: IKJT, keys: Sequence[str]) -> Distinct:
    """Finds the distinct ids of some features of a batch on the host."""
    total = sum(sparse.num_values(key) for key in keys)
    index, ids, counts, places = empty_index(total), *(np.empty(total, np.int64) for _ in range(3))
    size = start = 0
    for key in keys:
        end = start + sparse.num_values(key)
        values, lengths = sparse.values_of(key).long().numpy(), sparse.lengths_of(key).numpy()
        samples = _samples_of_rows(sparse, sparse.group_of(key))
        if (starts := sparse.starts_of(key)) is not None:  # each stored id is a row, with the samples of all its rows
            samples = _samples_of_ids(starts.numpy(), lengths, samples, len(values))
            lengths = np.ones(len(values), np.int32)
        size = add_distinct(values, lengths, samples, index, ids, counts, size, places[start:end])
        start = end
    return Distinct(ids[:size], counts[:size], places)


def _samples_of_ids(starts: Array, lengths: Array, samples: Array, size: int) -> Array:
    """How many samples have each stored id of a key in one of their windows, int64 [size], once for each window."""
    changes = [np.bincount(place, samples, size + 1).astype(np.int64) for place in (starts, starts + lengths)]
    counts: Array = np.cumsum(changes[0] - changes[1])[:size]
    return counts


def _samples_of_rows(sparse: IKJT, group: str) -> Array:
    """How many samples have each row of a group, int64 [U]."""
    inverse, num_rows = sparse.inverse_of(group), sparse.num_rows(group)
    if inverse is None:
        return np.ones(num_rows, np.int64)
    return torch.bincount(inverse, minlength=num_rows).numpy()
