"""Samples of decoded windows become a Batch: unique rows found by their stored row number, lists gathered once.

::

    samples of the batch     4 5 6 | 0 1        places in the window, sessions whole
    their stored rows        7 7 8 | 2 2
    unique rows              7 8 2              in order of first appearance
    inverse                  0 0 1 | 2 2
"""

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import torch

from recd_dist.batch import Batch
from recd_dist.ikjt import IKJT, GroupLayout
from recd_dist.reader import kernels
from recd_dist.reader.files import Array
from recd_dist.reader.window import Decoded
from recd_dist.schema import SAMPLE, Schema

Piece = tuple[Decoded, Array]
"""A window and int64 [n], the places of a batch's samples in it."""


def to_batch(pieces: Sequence[Piece], schema: Schema, expand: bool = False) -> Batch:
    """The samples of some windows as one batch.

    Args:
        pieces: windows with the samples to take, in the order of the batch; at least one sample.
        schema: features in the order of keys and dense columns.
        expand: nothing deduplicated, every feature in the group ``sample``; the same as ``.expanded()`` of the batch.
    """
    size = sum(len(picked) for _, picked in pieces)
    inverse = np.empty((0 if expand else len(schema.dedup_groups), size), np.int32)
    rows = {}
    for number, group in enumerate(schema.dedup_groups):
        rows[group] = _sample_rows(pieces, group) if expand else _unique_rows(pieces, group, inverse[number])
    rows[SAMPLE] = [picked for _, picked in pieces]
    dense = {
        g: np.concatenate([w.dense[g][r] for (w, _), r in zip(pieces, rows[g], strict=True)])
        for g in schema.groups
        if schema.dense_of(g)
    }
    if expand and dense:
        dense = {SAMPLE: np.concatenate(list(dense.values()), 1)}
    return Batch(
        sparse=_ikjt(pieces, schema, rows, inverse, size, expand),
        dense={g: torch.from_numpy(x) for g, x in dense.items()},
        labels=torch.from_numpy(np.concatenate([w.labels[picked] for w, picked in pieces])),
        sample_ids=torch.from_numpy(np.concatenate([w.sample_ids[picked] for w, picked in pieces])),
        request_ids=torch.from_numpy(np.concatenate([w.request_ids[picked] for w, picked in pieces])),
    )


def _sample_rows(pieces: Sequence[Piece], group: str) -> list[Array]:
    """Per piece the stored row of every sample."""
    return [w.rows[group][picked] for w, picked in pieces]


def _unique_rows(pieces: Sequence[Piece], group: str, inverse: Array) -> list[Array]:
    """Per piece its distinct stored rows; fills the batch's inverse. Windows share no rows."""
    chosen, start, shift = [], 0, 0
    for window, picked in pieces:
        first = np.empty(min(len(picked), len(window.seen[group])), np.int32)
        end = start + len(picked)
        size = kernels.unique_rows(window.rows[group], picked, window.seen[group], shift, first, inverse[start:end])
        chosen.append(first[:size])
        start, shift = end, shift + size
    return chosen


def _ikjt(
    pieces: Sequence[Piece], schema: Schema, rows: dict[str, list[Array]], inverse: Array, size: int, expand: bool
) -> IKJT:
    """The id features of some rows, in flat storage."""
    num_rows = {g: sum(map(len, r)) for g, r in rows.items()}
    keys = [(key, g) for g in schema.groups for key in schema.sparse_of(g)]
    lengths = np.empty(sum(num_rows[g] for _, g in keys), np.int32)
    counts, start = [], 0
    for key, g in keys:
        counts.append(_fill_lengths(pieces, key, rows[g], lengths[start : start + num_rows[g]]))
        start += num_rows[g]
    offsets = tuple(accumulate(counts, initial=0))
    dtype = pieces[0][0].ids[keys[0][0]].values.dtype if keys else np.dtype(np.int32)
    values = np.empty(offsets[-1], dtype)
    for number, (key, g) in enumerate(keys):
        _fill_values(pieces, key, rows[g], values[offsets[number] : offsets[number + 1]])
    layouts: tuple[GroupLayout, ...]
    if expand:
        layouts = (GroupLayout(SAMPLE, tuple(key for key, _ in keys), size),)
    else:
        layouts = tuple(GroupLayout(g, schema.sparse_of(g), num_rows[g]) for g in schema.groups)
    return IKJT(
        groups=layouts,
        batch_size=size,
        values=torch.from_numpy(values),
        lengths=torch.from_numpy(lengths),
        inverse=torch.from_numpy(inverse.reshape(-1)),
        value_offsets=offsets,
    )


def _fill_lengths(pieces: Sequence[Piece], key: str, rows: Sequence[Array], lengths: Array) -> int:
    """Writes the lengths of a key's rows and returns their sum."""
    total, start = 0, 0
    for (window, _), chosen in zip(pieces, rows, strict=True):
        column, out = window.ids[key], lengths[start : start + len(chosen)]
        if column.offsets is None:
            out.fill(1)
            total += len(chosen)
        else:
            total += kernels.gather_lengths(column.offsets, chosen, out)
        start += len(chosen)
    return total


def _fill_values(pieces: Sequence[Piece], key: str, rows: Sequence[Array], values: Array) -> None:
    """Writes the ids of a key's rows."""
    start = 0
    for (window, _), chosen in zip(pieces, rows, strict=True):
        column = window.ids[key]
        if column.offsets is None:
            end = start + len(chosen)
            kernels.gather_scalars(column.values, chosen, values[start:end])
            start = end
        else:
            start += kernels.gather_lists(column.values, column.offsets, chosen, values[start:])
