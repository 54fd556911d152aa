"""Some neighbouring samples of a batch, with the rows that they have and no others.

::

    inverse       0 0 0 1 | 1 1 2 2       samples 4 to 8: rows 1, 2     inverse 0 0 1 1

A row whose samples lie on both sides of a border is in both parts; its gradient adds up.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recd_dist.tensors.grouped import Embedded, Grouped, GroupedJagged
from recd_dist.tensors.host_side import HostArray, host_array, host_integers
from recd_dist.tensors.jagged import value_index
from recd_dist.tensors.slots import take_distinct

_Index = tuple[Tensor, Tensor, NDArray[np.int64], HostArray]
"""The numbers of the rows that the samples have, and for each sample its row among them; then both on the host."""


def take_samples(
    embedded: Embedded, dense: Mapping[str, Grouped], start: int, end: int
) -> tuple[Embedded, dict[str, Grouped]]:
    """The samples from ``start`` to ``end`` of a batch, without that one.

    Args:
        embedded: what the tables give for the batch.
        dense: for each group its dense features.
        start: the number of the first sample.
        end: the number behind that of the last one.
    """
    known: dict[int, _Index] = {}

    def index_of(rows: Grouped | GroupedJagged) -> _Index:
        inverse = rows.inverse
        key = 0 if inverse is None else id(inverse)
        if key not in known:
            known[key] = _index(rows, start, end)
        return known[key]

    pooled = {group: _take(rows, index_of(rows)) for group, rows in embedded.pooled.items()}
    lists = {name: _take_lists(rows, index_of(rows)) for name, rows in embedded.sequences.items()}
    ids = {name: _take_lists(rows, index_of(rows)) for name, rows in embedded.ids.items()}
    return Embedded(pooled, lists, ids), {group: _take(rows, index_of(rows)) for group, rows in dense.items()}


def _index(rows: Grouped | GroupedJagged, start: int, end: int) -> _Index:
    if rows.inverse is None:
        numbers = np.arange(start, end, dtype=np.int64)
        known: HostArray = np.arange(end - start, dtype=np.int32)
    else:
        own = host_array(rows.inverse, rows.known_inverse)[start:end].astype(np.int64)
        numbers, places = np.unique(own, return_inverse=True)
        known = places.astype(np.int32)
    inverse = host_integers(known.astype(np.int64), rows.values).to(torch.int32)
    return host_integers(numbers, rows.values), inverse, numbers, known


def _take(rows: Grouped, index: _Index) -> Grouped:
    numbers, inverse, _, known = index
    values = take_distinct(rows.values, numbers)
    if rows.inverse is None:
        return replace(rows, values=values)
    return replace(rows, values=values, inverse=inverse, known_inverse=known)


def _take_lists(lists: GroupedJagged, index: _Index) -> GroupedJagged:
    numbers, inverse, host_numbers, known = index
    lengths, known_lengths, num_values = lists.lengths[numbers], None, None
    if lists.known_lengths is not None:
        known_lengths = lists.known_lengths[host_numbers]
        num_values = int(known_lengths.sum())
    places = value_index(lists.lengths, numbers, lengths, num_values)
    values = take_distinct(lists.values, places)
    taken = replace(lists, values=values, lengths=lengths, known_lengths=known_lengths)
    return taken if lists.inverse is None else replace(taken, inverse=inverse, known_inverse=known)
