"""Feature values of any samples, drawn from the traffic and from each group's version.

::

    key of a row's stream    group of a user: (seed, group, user)    with resample also the version
                             group `sample`: (seed, sample)
    position in the stream   with shift: the window that ends at the version    else: the beginning
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
    spread_multiplier,
    uniform,
    zipf_law,
)
from recd_dist.synthetic.spec import CATEGORY, ITEM, SHIFT, GroupSpec, IdFeature, SyntheticSpec
from recd_dist.synthetic.visits import Traffic
from recd_dist.table.schema import SAMPLE

_NUM_LIKED = 2
"""Number of categories that a user prefers."""

_FULL_SHARE = 0.8
"""Share of users whose history has its full length from the start; the histories of the others still grow."""

_LIKED, _FULLNESS, _LENGTH, _FEATURE, _DENSE = 11, 12, 13, 1000, 1_000_000
"""Numbers that are mixed into keys, so that each kind of draw has keys of its own."""


@dataclass(frozen=True)
class Lists:
    """Rows of ids: row i is ``values[offsets[i]:offsets[i + 1]]``.

    Attributes:
        values: int32 [offsets[n]], the ids of all rows.
        offsets: int64 [n+1], where each row begins and ends.
    """

    values: NDArray[np.int32]
    offsets: I64


@dataclass(frozen=True)
class _Rows:
    """The rows of one group for n samples.

    Attributes:
        keys: uint64 [n], key of the user and group, or of the sample.
        versions: int64 [n], how often the group has changed.
        fullness: float64 [n], length of the user's first history as a share of the full length, in (0, 1].
    """

    keys: U64
    versions: I64
    fullness: NDArray[np.float64]


class FeatureValues:
    """Draws the feature values of any samples when they are asked for.

    Args:
        spec: what to generate.
        traffic: traffic of that spec.

    Attributes:
        seed_key: uint64 scalar, key from which all other keys come.
    """

    def __init__(self, spec: SyntheticSpec, traffic: Traffic) -> None:
        self._spec = spec
        self._traffic = traffic
        self.seed_key = mix(np.array(spec.seed, np.uint64), 1)
        self._num_categories = spec.tables.get(CATEGORY, min(10, spec.tables.get(ITEM, 1)))
        self._per_category = spec.tables.get(ITEM, self._num_categories) // self._num_categories
        catalogue = [(group, feature) for group, feature in spec.features if _is_catalogue(feature)]
        self._history = next(((g, f) for g, f in catalogue if g.name != SAMPLE and f.length), None)
        self._candidate = next(((g, f) for g, f in catalogue if g.name == SAMPLE and f.length is None), None)

    def ids(self, index: I64) -> Iterator[tuple[IdFeature, Lists]]:
        """Draws the rows of every id feature for some samples.

        Args:
            index: int64 [n], numbers of the samples in the order of time.

        Returns:
            Pairs of a feature and its n rows.
        """
        liked = self._liked(index)
        for group in self._spec.groups:
            rows = self._rows(group, index)
            for number, feature in enumerate(group.ids):
                yield feature, self._draw_ids(group, feature, number, rows, liked)

    def dense(self, index: I64) -> Iterator[tuple[str, NDArray[np.float32]]]:
        """Draws the values of every dense feature for some samples.

        Args:
            index: int64 [n], numbers of the samples in the order of time.

        Returns:
            Pairs of a feature's name and float32 [n], standard normal numbers.
        """
        for group in self._spec.groups:
            rows = self._rows(group, index)
            keys = mix(rows.keys, rows.versions) if group.dense else rows.keys
            for number, name in enumerate(group.dense):
                yield name, normal(mix(keys, _DENSE + number)).astype(np.float32)

    def affinity(self, index: I64) -> NDArray[np.float64] | None:
        """The share of a user's history that lies in the candidate's category.

        Args:
            index: int64 [n], numbers of the samples in the order of time.

        Returns:
            float64 [n], for the first history of the spec; None where the spec has no history or no candidate.
        """
        if self._history is None or self._candidate is None:
            return None
        liked = self._liked(index)
        group, feature = self._candidate
        categories = self._draw_ids(group, IdFeature("", CATEGORY), 0, self._rows(group, index), liked).values
        group, feature = self._history
        rows = self._rows(group, index)
        starts, lengths = _find_positions(group, feature, rows)
        keys = self._stream_keys(group, rows)
        return np.asarray(match_share(keys, starts, lengths, liked, self._spec.focus, self._num_categories, categories))

    def _liked(self, index: I64) -> I64:
        """The categories that each sample's user prefers: int64 [n, 2]."""
        key = mix(mix(self.seed_key, _LIKED), self._traffic.user[index])
        picks = [mix(key, i) % np.uint64(self._num_categories) for i in range(_NUM_LIKED)]
        return np.stack(picks, axis=1).astype(np.int64)

    def _rows(self, group: GroupSpec, index: I64) -> _Rows:
        """The rows of a group for some samples."""
        name_key = mix(self.seed_key, int.from_bytes(group.name.encode()[:7], "little"))
        if group.name == SAMPLE:
            return _Rows(mix(name_key, index), np.zeros(len(index), np.int64), np.ones(len(index)))
        keys = mix(name_key, self._traffic.user[index])
        fullness = uniform(mix(keys, _FULLNESS))
        fullness = np.where(fullness < _FULL_SHARE, 1.0, (fullness - _FULL_SHARE) / (1 - _FULL_SHARE))
        return _Rows(keys, self._traffic.versions[group.name][index].astype(np.int64), fullness)

    def _stream_keys(self, group: GroupSpec, rows: _Rows) -> U64:
        """Key of each row's stream, uint64 [n]: the same at all versions if the row shifts, else one per version."""
        return rows.keys if group.update == SHIFT else mix(rows.keys, rows.versions)

    def _draw_ids(self, group: GroupSpec, feature: IdFeature, number: int, rows: _Rows, liked: I64) -> Lists:
        """Draws the rows of one id feature.

        Args:
            group: group of the feature.
            feature: the feature.
            number: number of the feature within the group.
            rows: rows of the group.
            liked: int64 [n, 2], categories that each row's user prefers.
        """
        spec = self._spec
        starts, lengths = _find_positions(group, feature, rows)
        offsets = np.zeros(len(lengths) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        values = np.empty(offsets[-1], np.int32)
        keys = self._stream_keys(group, rows)
        if not _is_catalogue(feature):
            size = spec.tables[feature.table]
            keys = mix(keys, _FEATURE + number)
            fill_ids(keys, starts, offsets, size, spread_multiplier(size), zipf_law(size, spec.zipf), values)
            return Lists(values, offsets)
        # A candidate follows the user's taste only half as closely as the items that the user has chosen before.
        focus = spec.focus / 2 if group.name == SAMPLE else spec.focus
        per_category = 0 if feature.table == CATEGORY else self._per_category
        spread = spread_multiplier(self._num_categories * max(per_category, 1))
        law = zipf_law(max(per_category, 1), spec.zipf)
        fill_items(keys, starts, offsets, liked, focus, self._num_categories, per_category, spread, law, values)
        return Lists(values, offsets)


def _is_catalogue(feature: IdFeature) -> bool:
    """Whether a feature shows items or their categories."""
    return feature.table in (ITEM, CATEGORY)


def _find_positions(group: GroupSpec, feature: IdFeature, rows: _Rows) -> tuple[I64, I64]:
    """Where each row begins in its stream, and how many ids it has: two int64 [n]."""
    num_rows = len(rows.keys)
    if group.update == SHIFT:
        longest = feature.length or 1
        at_first = np.ceil(rows.fullness * longest).astype(np.int64)
        lengths = np.minimum(longest, at_first + rows.versions)
        return at_first + rows.versions - lengths, lengths
    if feature.length is None:
        return np.zeros(num_rows, np.int64), np.ones(num_rows, np.int64)
    share = uniform(mix(mix(rows.keys, rows.versions), _LENGTH))
    lengths = np.ceil(feature.length * (0.5 + 0.5 * share)).astype(np.int64)
    return np.zeros(num_rows, np.int64), lengths
