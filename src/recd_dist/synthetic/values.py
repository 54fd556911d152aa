"""The feature values of any set of samples, from who was seen (traffic) and how often each group had changed.

::

    key of a row     user group: (seed, group, user)    resample: also the version    sample: (seed, sample)
    place in stream  shift: the window that ends at the version    else: from the beginning
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recd_dist.synthetic.draw import (
    I64,
    U64,
    fill_ids,
    fill_items,
    match_share,
    mix,
    normal,
    spread_of,
    uniform,
    zipf_law,
)
from recd_dist.synthetic.spec import CATEGORY, ITEM, SHIFT, GroupSpec, IdFeature, SyntheticSpec
from recd_dist.synthetic.visits import Traffic
from recd_dist.table.schema import SAMPLE

_NUM_LIKED = 2
"""Categories a user prefers."""

_FULL_SHARE = 0.8
"""Share of users whose history is as long as it can be from the start; the others' still grow."""

_LIKED, _FILL, _LENGTH, _FEATURE, _DENSE = 11, 12, 13, 1000, 1_000_000


@dataclass(frozen=True)
class Lists:
    """Rows of ids: row i is ``values[offsets[i]:offsets[i + 1]]``; values int32, offsets int64 [n+1]."""

    values: NDArray[np.int32]
    offsets: I64


@dataclass(frozen=True)
class _Rows:
    """One group's rows for some samples: stream keys uint64 [n], versions int64 [n], fill in (0, 1] float64 [n]."""

    keys: U64
    versions: I64
    fill: NDArray[np.float64]


class Columns:
    """Feature values on demand.

    Args:
        spec: what to generate.
        logs: the traffic of that spec.
    """

    def __init__(self, spec: SyntheticSpec, logs: Traffic) -> None:
        self._spec = spec
        self._logs = logs
        self.seed_key = mix(np.array(spec.seed, np.uint64), 1)
        self._num_categories = spec.tables.get(CATEGORY, min(10, spec.tables.get(ITEM, 1)))
        self._per_category = spec.tables.get(ITEM, self._num_categories) // self._num_categories
        self._history = next(((g, f) for g, f in spec.features if g.name != SAMPLE and _in_items(f) and f.length), None)
        self._candidate = next(
            ((g, f) for g, f in spec.features if g.name == SAMPLE and _in_items(f) and f.length is None), None
        )

    def ids(self, index: I64) -> Iterator[tuple[IdFeature, Lists]]:
        """Every id feature's rows for some samples.

        Args:
            index: int64 [n], sample numbers in time order.
        """
        liked = self._liked(index)
        for group in self._spec.groups:
            rows = self._rows(group, index)
            for number, feature in enumerate(group.ids):
                yield feature, self._fill(group, feature, number, rows, liked)

    def dense(self, index: I64) -> Iterator[tuple[str, NDArray[np.float32]]]:
        """Every dense feature of some samples, float32 [n], standard normal."""
        for group in self._spec.groups:
            rows = self._rows(group, index)
            keys = mix(rows.keys, rows.versions) if group.dense else rows.keys
            for number, name in enumerate(group.dense):
                yield name, normal(mix(keys, _DENSE + number)).astype(np.float32)

    def affinity(self, index: I64) -> NDArray[np.float64] | None:
        """Share of the first history that lies in the candidate's category, float64 [n]; None without the two."""
        if self._history is None or self._candidate is None:
            return None
        liked = self._liked(index)
        group, feature = self._candidate
        wanted = self._fill(group, IdFeature("", CATEGORY), 0, self._rows(group, index), liked).values
        group, feature = self._history
        rows = self._rows(group, index)
        starts, lengths = _place(group, feature, rows)
        keys = self._stream(group, rows)
        return np.asarray(match_share(keys, starts, lengths, liked, self._spec.focus, self._num_categories, wanted))

    def _liked(self, index: I64) -> I64:
        """Preferred categories of each sample's user, int64 [n, 2]."""
        key = mix(mix(self.seed_key, _LIKED), self._logs.user[index])
        picks = [mix(key, i) % np.uint64(self._num_categories) for i in range(_NUM_LIKED)]
        return np.stack(picks, axis=1).astype(np.int64)

    def _rows(self, group: GroupSpec, index: I64) -> _Rows:
        """The rows of a group for some samples."""
        name_key = mix(self.seed_key, int.from_bytes(group.name.encode()[:7], "little"))
        if group.name == SAMPLE:
            return _Rows(mix(name_key, index), np.zeros(len(index), np.int64), np.ones(len(index)))
        keys = mix(name_key, self._logs.user[index])
        fill = uniform(mix(keys, _FILL))
        fill = np.where(fill < _FULL_SHARE, 1.0, (fill - _FULL_SHARE) / (1 - _FULL_SHARE))
        return _Rows(keys, self._logs.versions[group.name][index].astype(np.int64), fill)

    def _stream(self, group: GroupSpec, rows: _Rows) -> U64:
        """The stream each row reads: one for ever where it shifts, a new one a version where it is drawn anew."""
        return rows.keys if group.update == SHIFT else mix(rows.keys, rows.versions)

    def _fill(self, group: GroupSpec, feature: IdFeature, number: int, rows: _Rows, liked: I64) -> Lists:
        """One feature's ids."""
        spec = self._spec
        starts, lengths = _place(group, feature, rows)
        offsets = np.zeros(len(lengths) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        values = np.empty(offsets[-1], np.int32)
        keys = self._stream(group, rows)
        if not _in_items(feature):
            size = spec.tables[feature.table]
            keys = mix(keys, _FEATURE + number)
            fill_ids(keys, starts, offsets, size, spread_of(size), zipf_law(size, spec.zipf), values)
            return Lists(values, offsets)
        # What is shown to a user follows the user's taste only half as closely as what the user took.
        focus = spec.focus / 2 if group.name == SAMPLE else spec.focus
        per_category = 0 if feature.table == CATEGORY else self._per_category
        spread = spread_of(self._num_categories * max(per_category, 1))
        law = zipf_law(max(per_category, 1), spec.zipf)
        fill_items(keys, starts, offsets, liked, focus, self._num_categories, per_category, spread, law, values)
        return Lists(values, offsets)


def _in_items(feature: IdFeature) -> bool:
    """Whether a feature shows the catalogue: items or their categories."""
    return feature.table in (ITEM, CATEGORY)


def _place(group: GroupSpec, feature: IdFeature, rows: _Rows) -> tuple[I64, I64]:
    """(starts, lengths) of each row in its stream, int64 [n]."""
    num = len(rows.keys)
    if group.update == SHIFT:
        longest = feature.length or 1
        at_first = np.ceil(rows.fill * longest).astype(np.int64)
        lengths = np.minimum(longest, at_first + rows.versions)
        return at_first + rows.versions - lengths, lengths
    if feature.length is None:
        return np.zeros(num, np.int64), np.ones(num, np.int64)
    share = uniform(mix(mix(rows.keys, rows.versions), _LENGTH))
    lengths = np.ceil(feature.length * (0.5 + 0.5 * share)).astype(np.int64)
    return np.zeros(num, np.int64), lengths
