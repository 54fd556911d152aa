"""Makes batches of unique rows from the samples of decoded shuffle windows.

::

    samples of the batch     4 5 6 | 0 1        places in the shuffle window, sessions whole
    their stored rows        7 7 8 | 2 2
    unique rows              7 8 2              in order of first appearance
    inverse                  0 0 1 | 2 2

Unique rows are found by their stored row number, and their lists are gathered once.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate, groupby

import numpy as np
import torch

from recd_dist.reader import kernels
from recd_dist.reader.shuffle_window import DecodedShuffleWindow
from recd_dist.table.column import Array
from recd_dist.table.schema import SAMPLE, Schema
from recd_dist.tensors.batch import Batch
from recd_dist.tensors.ikjt import IKJT, GroupLayout

Piece = tuple[DecodedShuffleWindow, Array]
"""A shuffle window and int64 [n], the places of a batch's samples in it."""

Rows = Mapping[str, Sequence[Array]]
"""For each feature, and each piece, the rows of the feature to take, int32 or int64 [rows]."""


def to_batch(pieces: Sequence[Piece], schema: Schema, expand: bool = False, stored: Schema | None = None) -> Batch:
    """Makes a batch of samples of some shuffle windows.

    Args:
        pieces: shuffle windows with the samples to take, in the order of the batch; at least one sample.
        schema: features in the order of keys and dense columns.
        expand: deduplicate nothing and put every feature into the group ``sample``, as ``.expand()`` of the batch
            would.
        stored: the same features in the groups of the table, where ``schema`` has moved some of them to ``sample``.
    """
    stored = stored or schema
    size = sum(len(picked) for _, picked in pieces)
    groups = () if expand else schema.dedup_groups
    inverse = np.empty((len(groups), size), np.int32)
    unique = {g: _find_unique_rows(pieces, g, inverse[n]) for n, g in enumerate(groups)}
    copies = {g: [decoded.row_of_sample[g][picked] for decoded, picked in pieces] for g in stored.dedup_groups}
    copies[SAMPLE] = [picked for _, picked in pieces]
    rows = {f.name: unique.get(f.group, copies[stored[f.name].group]) for f in schema.features}
    dense = {g: _gather_dense(pieces, stored, schema.dense_of(g), rows) for g in schema.groups if schema.dense_of(g)}
    if expand and dense:
        dense = {SAMPLE: np.concatenate(list(dense.values()), 1)}
    keys = {g: schema.sparse_of(g) for g in schema.groups}
    layouts = tuple(
        GroupLayout(g, names, sum(map(len, unique[g])) if g in unique else size) for g, names in keys.items()
    )
    if expand:
        layouts = (GroupLayout(SAMPLE, tuple(key for names in keys.values() for key in names), size),)
    return Batch(
        sparse=_build_ikjt(pieces, layouts, rows, inverse, size),
        dense={g: torch.from_numpy(x) for g, x in dense.items()},
        labels=torch.from_numpy(np.concatenate([decoded.labels[picked] for decoded, picked in pieces])),
        sample_ids=torch.from_numpy(np.concatenate([decoded.sample_ids[picked] for decoded, picked in pieces])),
        request_ids=torch.from_numpy(np.concatenate([decoded.request_ids[picked] for decoded, picked in pieces])),
        session_ids=torch.from_numpy(np.concatenate([decoded.session_ids[picked] for decoded, picked in pieces])),
    )


def _gather_dense(pieces: Sequence[Piece], stored: Schema, names: Sequence[str], rows: Rows) -> Array:
    """Some dense features side by side, float32 [rows, n]: neighbours that are stored together are taken together."""
    blocks = []
    for group, run in groupby(names, lambda name: stored[name].group):
        members = list(run)
        columns = stored.dense_of(group)
        chosen: list[int] | slice = [columns.index(name) for name in members]
        if chosen == list(range(len(columns))):
            chosen = slice(None)  # a gather of whole rows
        taken = [decoded.dense[group][r] for (decoded, _), r in zip(pieces, rows[members[0]], strict=True)]
        blocks.append(np.concatenate(taken)[:, chosen])
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks, 1)


def _find_unique_rows(pieces: Sequence[Piece], group: str, inverse: Array) -> list[Array]:
    """Finds the distinct stored rows of each piece and fills the batch's inverse. Shuffle windows share no rows."""
    rows, start, shift = [], 0, 0
    for decoded, picked in pieces:
        seen = decoded.seen[group]
        unique = np.empty(min(len(picked), len(seen)), np.int32)
        end = start + len(picked)
        row_of_sample = decoded.row_of_sample[group]
        size = kernels.find_unique_rows(row_of_sample, picked, seen, shift, unique, inverse[start:end])
        rows.append(unique[:size])
        start, shift = end, shift + size
    return rows


def _build_ikjt(
    pieces: Sequence[Piece], layouts: tuple[GroupLayout, ...], rows: Rows, inverse: Array, size: int
) -> IKJT:
    """Gathers the id features of some rows into flat storage."""
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
    weights = _gather_weights(pieces, [key for key, _ in keys], rows, offsets)
    return IKJT(
        groups=layouts,
        batch_size=size,
        values=torch.from_numpy(values),
        lengths=torch.from_numpy(lengths),
        inverse=torch.from_numpy(inverse.reshape(-1)),
        value_offsets=offsets,
        weights=None if weights is None else torch.from_numpy(weights),
    )


def _gather_weights(pieces: Sequence[Piece], keys: Sequence[str], rows: Rows, offsets: Sequence[int]) -> Array | None:
    """A weight for each id, float32 [V]: 1 for keys that have none; None where no key has any.

    Args:
        pieces: shuffle windows with their samples.
        keys: the keys, in the order of the values.
        rows: the rows of each key, for each piece.
        offsets: where the values of each key begin, and their number at the end.
    """
    columns = pieces[0][0].ids
    if all(columns[key].weights is None for key in keys):
        return None
    weights = np.ones(offsets[-1], np.float32)
    for number, key in enumerate(keys):
        start = offsets[number]
        for (decoded, _), chosen in zip(pieces, rows[key], strict=True):
            column = decoded.ids[key]
            if column.weights is not None and column.offsets is not None:
                start += kernels.gather_lists(column.weights, column.offsets, chosen, weights[start:])
    return weights


def _fill_lengths(pieces: Sequence[Piece], key: str, rows: Sequence[Array], lengths: Array) -> int:
    """Writes the lengths of a key's rows and returns their sum."""
    total, start = 0, 0
    for (decoded, _), chosen in zip(pieces, rows, strict=True):
        column, out = decoded.ids[key], lengths[start : start + len(chosen)]
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
    for (decoded, _), chosen in zip(pieces, rows, strict=True):
        column = decoded.ids[key]
        if column.offsets is None:
            end = start + len(chosen)
            kernels.gather_scalars(column.values, chosen, values[start:end])
            start = end
        else:
            start += kernels.gather_lists(column.values, column.offsets, chosen, values[start:])
