"""Samples of decoded windows become a Batch: unique rows found by their stored row number, lists gathered once.

::

    samples of the batch     4 5 6 | 0 1        places in the window, sessions whole
    their stored rows        7 7 8 | 2 2
    unique rows              7 8 2              in order of first appearance
    inverse                  0 0 1 | 2 2
"""

from collections.abc import Sequence
from itertools import accumulate, groupby

import numpy as np
import torch

from recd_dist.reader import kernels
from recd_dist.reader.shuffle_window import Decoded
from recd_dist.table.column import Array
from recd_dist.table.schema import SAMPLE, Schema
from recd_dist.tensors.batch import Batch
from recd_dist.tensors.ikjt import IKJT, GroupLayout

Piece = tuple[Decoded, Array]
"""A window and int64 [n], the places of a batch's samples in it."""


def to_batch(pieces: Sequence[Piece], schema: Schema, expand: bool = False, stored: Schema | None = None) -> Batch:
    """The samples of some windows as one batch.

    Args:
        pieces: windows with the samples to take, in the order of the batch; at least one sample.
        schema: features in the order of keys and dense columns.
        expand: nothing deduplicated, every feature in the group ``sample``; the same as ``.expand()`` of the batch.
        stored: the same features in the groups of the table, where ``schema`` has moved some of them to ``sample``.
    """
    stored = stored or schema
    size = sum(len(picked) for _, picked in pieces)
    inverse = np.empty((0 if expand else len(schema.dedup_groups), size), np.int32)
    unique = {g: _unique_rows(pieces, g, inverse[n]) for n, g in enumerate(schema.dedup_groups if not expand else ())}
    copies = {g: [w.rows[g][picked] for w, picked in pieces] for g in stored.dedup_groups}
    copies[SAMPLE] = [picked for _, picked in pieces]
    rows = {f.name: unique.get(f.group, copies[stored[f.name].group]) for f in schema.features}
    dense = {g: _dense(pieces, stored, schema.dense_of(g), rows) for g in schema.groups if schema.dense_of(g)}
    if expand and dense:
        dense = {SAMPLE: np.concatenate(list(dense.values()), 1)}
    keys = {g: schema.sparse_of(g) for g in schema.groups}
    layouts = tuple(
        GroupLayout(g, names, sum(map(len, unique[g])) if g in unique else size) for g, names in keys.items()
    )
    if expand:
        layouts = (GroupLayout(SAMPLE, tuple(key for names in keys.values() for key in names), size),)
    return Batch(
        sparse=_ikjt(pieces, layouts, rows, inverse, size),
        dense={g: torch.from_numpy(x) for g, x in dense.items()},
        labels=torch.from_numpy(np.concatenate([w.labels[picked] for w, picked in pieces])),
        sample_ids=torch.from_numpy(np.concatenate([w.sample_ids[picked] for w, picked in pieces])),
        request_ids=torch.from_numpy(np.concatenate([w.request_ids[picked] for w, picked in pieces])),
    )


def _dense(pieces: Sequence[Piece], stored: Schema, names: Sequence[str], rows: dict[str, list[Array]]) -> Array:
    """Some dense features side by side, float32 [rows, n]: neighbours that are stored together are taken together."""
    parts = []
    for group, run in groupby(names, lambda name: stored[name].group):
        members = list(run)
        columns = stored.dense_of(group)
        chosen: list[int] | slice = [columns.index(name) for name in members]
        if chosen == list(range(len(columns))):
            chosen = slice(None)  # a gather of whole rows
        taken = [w.dense[group][r] for (w, _), r in zip(pieces, rows[members[0]], strict=True)]
        parts.append(np.concatenate(taken)[:, chosen])
    return parts[0] if len(parts) == 1 else np.concatenate(parts, 1)


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
    pieces: Sequence[Piece], layouts: tuple[GroupLayout, ...], rows: dict[str, list[Array]], inverse: Array, size: int
) -> IKJT:
    """The id features of some rows, in flat storage."""
    keys = [(key, layout.num_rows) for layout in layouts for key in layout.keys]
    lengths = np.empty(sum(num_rows for _, num_rows in keys), np.int32)
    counts, start = [], 0
    for key, num_rows in keys:
        counts.append(_fill_lengths(pieces, key, rows[key], lengths[start : start + num_rows]))
        start += num_rows
    offsets = tuple(accumulate(counts, initial=0))
    dtype = pieces[0][0].ids[keys[0][0]].values.dtype if keys else np.dtype(np.int32)
    values = np.empty(offsets[-1], dtype)
    for number, (key, _) in enumerate(keys):
        _fill_values(pieces, key, rows[key], values[offsets[number] : offsets[number + 1]])
    weights = _weights(pieces, [key for key, _ in keys], rows, offsets)
    return IKJT(
        groups=layouts,
        batch_size=size,
        values=torch.from_numpy(values),
        lengths=torch.from_numpy(lengths),
        inverse=torch.from_numpy(inverse.reshape(-1)),
        value_offsets=offsets,
        weights=None if weights is None else torch.from_numpy(weights),
    )


def _weights(
    pieces: Sequence[Piece], keys: Sequence[str], rows: dict[str, list[Array]], offsets: Sequence[int]
) -> Array | None:
    """A weight for each id: 1 for keys that have none; None where no key has any.

    Args:
        pieces: windows with their samples.
        keys: in the order of the values.
        rows: of each key, per piece.
        offsets: where each key's values begin, and their number at the end.
    """
    columns = pieces[0][0].ids
    if all(columns[key].weights is None for key in keys):
        return None
    weights = np.ones(offsets[-1], np.float32)
    for number, key in enumerate(keys):
        start = offsets[number]
        for (window, _), chosen in zip(pieces, rows[key], strict=True):
            column = window.ids[key]
            if column.weights is not None and column.offsets is not None:
                start += kernels.gather_lists(column.weights, column.offsets, chosen, weights[start:])
    return weights


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
