"""Lists -> windows: finds by comparing which ids the rows of a key share with the row before.

This is for batches from elsewhere. The reader knows the windows of a clustered table, and compares no values.
"""

from collections.abc import Collection
from dataclasses import replace
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from recd_dist.table.column import Array
from recd_dist.table.loops import jit
from recd_dist.tensors.ikjt import IKJT
from recd_dist.tensors.ikjt_conversions import with_lists


def find_windows(batch: IKJT, keys: Collection[str] | None = None) -> IKJT:
    """The same batch with rows as windows, where that stores fewer ids.

    A row shares ids with the one before if it begins inside it and goes on as it does, with the same weights: a history
    that drops its oldest ids and gains newer ones; or, newest first, the other way round.

    Args:
        batch: the batch, on the host.
        keys: the keys whose rows may become windows; all of them when absent.

    Returns:
        A batch whose ``lists()`` equals that of the batch, bit for bit.
    """
    batch = with_lists(batch)
    values, weights, starts, counts, windows = list[Tensor](), list[Tensor](), list[Tensor](), list[int](), list[str]()
    for key in batch.keys:
        own, own_weights = batch.values_of(key), batch.weights_of(key)
        if keys is None or key in keys:
            best = _shortest(own, own_weights, batch.lengths_of(key))
            if len(best[0]) < len(own):
                own, own_weights, begin = best
                starts.append(begin)
                windows.append(key)
        values.append(own)
        counts.append(len(own))
        if own_weights is not None:
            weights.append(own_weights)
    if not windows:
        return batch
    return replace(
        batch,
        values=torch.cat(values),
        value_offsets=tuple(accumulate(counts, initial=0)),
        weights=torch.cat(weights) if weights else None,
        windows=tuple(windows),
        starts=torch.cat(starts),
    )


def _shortest(values: Tensor, weights: Tensor | None, lengths: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
    """Values, weights and starts of rows as windows, taken in their order or in the reverse one."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths.numpy(), out=offsets[1:])
    bits = np.empty(0, np.int32) if weights is None else weights.view(torch.int32).numpy()
    found = []
    for rows in (np.arange(len(lengths)), np.arange(len(lengths))[::-1].copy()):
        places, starts = np.empty(len(values), np.int64), np.empty(len(lengths), np.int32)
        size = _share(values.numpy(), bits, offsets, rows, places, starts)
        found.append((torch.from_numpy(places[:size]), torch.from_numpy(starts)))
    kept, begin = min(found, key=lambda pair: len(pair[0]))
    return values[kept], None if weights is None else weights[kept], begin


@jit
def _share(values: Array, bits: Array, offsets: Array, rows: Array, places: Array, starts: Array) -> int:
    """Writes which values to keep, and where each row begins among them; returns how many are kept."""
    size, begin = 0, 0  # the row before begins at ``begin`` among the values that are kept
    for row in rows:
        first, end = offsets[row], offsets[row + 1]
        while True:
            shared = min(size - begin, end - first)
            same = 0
            while same < shared:
                a, b = places[begin + same], first + same
                if values[a] != values[b] or (len(bits) > 0 and bits[a] != bits[b]):
                    break
                same += 1
            if same == shared:
                break
            begin += 1
        starts[row] = begin
        for place in range(first + shared, end):
            places[size] = place
            size += 1
    return size
