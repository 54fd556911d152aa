"""Makes batches of unique rows from the samples of decoded shuffle windows.

::

    samples of the batch     4 5 6 | 0 1        places in a row group, sessions whole: two runs
    their stored rows        7 7 8 | 2 2
    unique rows              7 8 | 2            in order of first appearance: two runs
    inverse                  0 0 1 | 2 2

Unique rows are found by their stored row number. Every value is copied once, from where it was decoded into the batch,
and all features of a batch in one call of a compiled loop.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from typing import Any

import numpy as np
import torch

from recd_dist.reader import kernels, window_kernels
from recd_dist.reader.shuffle_window import DecodedShuffleWindow
from recd_dist.table.addresses import address_of
from recd_dist.table.column import Array
from recd_dist.table.schema import SAMPLE, Schema
from recd_dist.tensors.batch import Batch
from recd_dist.tensors.ikjt import IKJT, GroupLayout

Piece = tuple[DecodedShuffleWindow, int, int]
"""A shuffle window and the samples [start, end) of its order."""

Empty = Callable[[Any, Any], Array]
"""Gives an array of a shape and a dtype whose content is anything, as ``np.empty`` does."""


@dataclass(frozen=True)
class _Chosen:
    """The rows that a batch takes.

    Attributes:
        runs: int32 [sources, 3, capacity], rows side by side, see ``kernels``; a source is a deduplicated group, a
            group that is read expanded, or the samples themselves.
        num_runs: int64 [sources].
        num_rows: int64 [sources].
    """

    runs: Array
    num_runs: Array
    num_rows: Array

    def runs_of(self, source: int) -> Array:
        """The runs of a source, int32 [3, runs]."""
        return self.runs[source, :, : self.num_runs[source]]


@dataclass(frozen=True)
class _Taken:
    """Dense features that a batch takes of a group of the table.

    Attributes:
        source: the rows to take, see ``_Chosen``.
        block: the number of the group among those with dense features.
        stride: how many the group has.
        columns: int64 [n], those to take.
    """

    source: int
    block: int
    stride: int
    columns: Array


class Batching:
    """Makes batches of a schema's features.

    Args:
        schema: features in the order of keys and dense columns.
        stored: the same features in the groups of the table, where ``schema`` has moved some of them to ``sample``.
        windows: features whose rows stay windows where they are stored as such; those of all others become lists.
        expand: deduplicate nothing and put every feature into the group ``sample``, as ``.expand()`` of the batch
            would.
    """

    def __init__(
        self, schema: Schema, stored: Schema | None = None, expand: bool = False, windows: Collection[str] = ()
    ) -> None:
        stored = stored or schema
        self._groups = () if expand else schema.dedup_groups
        stored_groups = stored.dedup_groups
        self._group_numbers = np.array([stored_groups.index(g) for g in self._groups], np.int64)
        moved = [stored[f.name].group for f in schema.features if expand or f.group == SAMPLE]
        self._expanded = [g for g in dict.fromkeys(moved) if g != SAMPLE]
        self._expanded_numbers = [stored_groups.index(g) for g in self._expanded]
        self._sources = [*self._groups, *(f"{g} of each sample" for g in self._expanded), SAMPLE]

        def source_of(name: str) -> int:
            home = stored[name].group
            if home == SAMPLE or (not expand and schema[name].group != SAMPLE):
                return self._sources.index(home)
            return self._sources.index(f"{home} of each sample")

        keys = {g: schema.sparse_of(g) for g in schema.groups}
        self._layouts = list(keys.items())
        if expand:
            self._layouts = [(SAMPLE, tuple(key for names in keys.values() for key in names))]
        columns = {f.name: n for n, f in enumerate(stored.sparse)}
        self._windows = () if expand else tuple(windows)
        ordered = [key for _, names in self._layouts for key in names]
        self._columns = np.array([columns[key] for key in ordered], np.int64)
        self._keys = ordered
        self._homes = np.array([source_of(key) for key in ordered], np.int64)
        dense = {g: schema.dense_of(g) for g in schema.groups if schema.dense_of(g)}
        if expand and dense:
            dense = {SAMPLE: tuple(name for names in dense.values() for name in names)}
        blocks = [g for g in stored.groups if stored.dense_of(g)]

        def take(names: Sequence[str]) -> _Taken:
            group = stored[names[0]].group
            there = stored.dense_of(group)
            columns = np.array([there.index(name) for name in names], np.int64)
            return _Taken(source_of(names[0]), blocks.index(group), len(there), columns)

        self._dense = {
            g: [take(list(run)) for _, run in groupby(names, lambda name: stored[name].group)]
            for g, names in dense.items()
        }

    def batch(self, pieces: Sequence[Piece], empty: Empty = np.empty) -> Batch:
        """Makes a batch of samples of some shuffle windows.

        Args:
            pieces: shuffle windows with the samples to take, in the order of the batch; at least one sample.
            empty: gives the memory of each tensor of the batch.
        """
        samples, size = self._join_runs(pieces), sum(end - start for _, start, end in pieces)
        windows = [decoded for decoded, _, _ in pieces]
        inverse = empty((len(self._groups), size), np.int32)
        chosen = self._choose(windows, samples, inverse)
        keys = [empty(size, np.int64) for _ in range(3)]
        labels = empty((size, windows[0].num_labels), np.float32)
        kernels.gather_blocks(
            _join([w.blocks for w in windows]),
            np.array([8, 8, 8, 4 * labels.shape[1]]),
            samples,
            np.array([*(address_of(key) for key in keys), address_of(labels)]),
        )
        sample_ids, request_ids, session_ids = map(torch.from_numpy, keys)
        return Batch(
            sparse=self._build_ikjt(windows, chosen, inverse, size, empty),
            dense=self._gather_dense(windows, chosen, empty),
            labels=torch.from_numpy(labels),
            sample_ids=sample_ids,
            request_ids=request_ids,
            session_ids=session_ids,
        )

    @staticmethod
    def _join_runs(pieces: Sequence[Piece]) -> Array:
        """The samples of all pieces as runs, int32 [3, runs]; row groups are counted through all pieces."""
        parts, first = [], 0
        for decoded, start, end in pieces:
            runs = decoded.runs_between(start, end)
            runs[0] += first
            parts.append(runs)
            first += len(decoded.blocks)
        return parts[0] if len(parts) == 1 else np.concatenate(parts, 1)

    def _choose(self, windows: Sequence[DecodedShuffleWindow], samples: Array, inverse: Array) -> _Chosen:
        """Finds the rows of every source, and fills the inverse."""
        size, num_groups, last = int(samples[2].sum()), len(self._groups), len(self._sources) - 1
        runs = np.empty((len(self._sources), 3, size), np.int32)
        num_runs, num_rows = np.empty(last + 1, np.int64), np.full(last + 1, size)
        rows, seen = _join([w.rows for w in windows]), _join([w.seen for w in windows])
        rows_of_groups, seen_of_groups = (array.take(self._group_numbers, 1) for array in (rows, seen))
        kernels.find_unique_rows(samples, rows_of_groups, seen_of_groups, inverse, runs, num_runs, num_rows)
        for n, number in enumerate(self._expanded_numbers):
            num_runs[num_groups + n] = kernels.list_rows(samples, rows[:, number].copy(), runs[num_groups + n])
        runs[last, :, : samples.shape[1]], num_runs[last] = samples, samples.shape[1]
        return _Chosen(runs, num_runs, num_rows)

    def _gather_dense(
        self, windows: Sequence[DecodedShuffleWindow], chosen: _Chosen, empty: Empty
    ) -> dict[str, torch.Tensor]:
        """The dense features of each group side by side, float32 [rows, n]."""
        numbers = _join([w.numbers for w in windows])
        result = {}
        for group, members in self._dense.items():
            width = sum(len(taken.columns) for taken in members)
            out, place = empty((chosen.num_rows[members[0].source], width), np.float32), 0
            for taken in members:
                blocks, runs = numbers[:, taken.block].copy(), chosen.runs_of(taken.source)
                kernels.gather_numbers(blocks, taken.stride, taken.columns, runs, out, place)
                place += len(taken.columns)
            result[group] = torch.from_numpy(out)
        return result

    def _build_ikjt(
        self, windows: Sequence[DecodedShuffleWindow], chosen: _Chosen, inverse: Array, size: int, empty: Empty
    ) -> IKJT:
        """Gathers the id features of the chosen rows into flat storage."""
        places = _join([w.places for w in windows]).take(self._columns, 1)
        rows = (self._homes, chosen.runs, chosen.num_runs)
        lengths = empty(int(chosen.num_rows[self._homes].sum()), np.int32)
        counts = np.empty(len(self._homes), np.int64)
        kernels.gather_lengths(places, *rows, address_of(lengths), counts)
        is_shared = self._are_shared(windows)
        shared = np.flatnonzero(is_shared)
        starts = empty(int(chosen.num_rows[self._homes[shared]].sum()), np.int32)
        segments = np.empty((4, len(starts)), np.int64)
        if len(shared):
            num_segments = window_kernels.share_windows(places, shared, rows, starts, segments, counts)
            segments = segments[:, :num_segments]
        offsets = np.concatenate([[0], np.cumsum(counts)])

        def gather(column: int, out: Array) -> Array:
            to = (out.itemsize, address_of(out), offsets)
            kernels.gather_values(places, column, is_shared, *rows, *to)
            if len(shared):
                window_kernels.gather_segments(places, column, segments, *to)
            return out

        values = gather(kernels.VALUES, empty(int(offsets[-1]), windows[0].id_dtype))
        weights = None
        if any(w.has_weights for w in windows):
            weights = empty(int(offsets[-1]), np.float32)
            weights.fill(1.0)
            gather(kernels.WEIGHTS, weights)
        group_sizes = dict(zip(self._sources, chosen.num_rows.tolist(), strict=True))
        return IKJT(
            groups=tuple(GroupLayout(g, names, group_sizes[g]) for g, names in self._layouts),
            batch_size=size,
            values=torch.from_numpy(values),
            lengths=torch.from_numpy(lengths),
            inverse=torch.from_numpy(inverse.reshape(-1)),
            value_offsets=tuple(accumulate(counts.tolist(), initial=0)),
            weights=None if weights is None else torch.from_numpy(weights),
            windows=tuple(self._keys[f] for f in shared),
            starts=torch.from_numpy(starts) if len(shared) else None,
        )

    def _are_shared(self, windows: Sequence[DecodedShuffleWindow]) -> Array:
        """The features whose rows stay windows in this batch, bool [F]."""
        wanted = np.array([key in self._windows for key in self._keys], bool)
        return wanted & np.all([w.has_windows[self._columns] for w in windows], axis=0)


def _join(arrays: Sequence[Array]) -> Array:
    """What several shuffle windows have for each row group, for the row groups of all of them."""
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
