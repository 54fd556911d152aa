"""Which features belong together: sets of features are merged while that saves.

::

    flags of a   1 0 0 1 0 0      rows of a            2
    flags of b   1 0 0 1 0 0      rows of b            2       a + b together: 2 rows, one inverse less
    flags of c   1 1 0 0 0 1      rows of c            3       a + c together: 4 rows of both: more than apart

To merge features with similar flags would not do. Features that change at different times share few rows: merging
static features cut their factor from 4-14 to 2.06, measured. The rows of a set are the OR of its features' flags.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from recd_dist.etl.write.group_cost import (
    GROUP_BYTES,
    ROW_BYTES,
    SAMPLE_BYTES,
    cost_in_sample,
    group_cost,
    row_overhead,
)
from recd_dist.etl.write.group_names import name_groups
from recd_dist.etl.write.repeating_features import RepeatingFeature
from recd_dist.table.flat_columns import Flags
from recd_dist.table.schema import SAMPLE

MIN_FACTOR = 1.25
"""Samples per row that a group must have; features that repeat less often stay in ``sample``."""

_SEEN, _INSIDE = 0.4, 0.95  # shares of the other's changes, and of its own

Bits = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class ProposedGroup:
    """A group of features.

    Attributes:
        name: the name of the group, which no other group of the proposal has.
        members: the features of the group over the sampled sessions.
        flags: bool [N], whether a stored row begins with a sample: the OR of its features' flags.
    """

    name: str
    members: tuple[RepeatingFeature, ...]
    flags: Flags

    @property
    def features(self) -> tuple[str, ...]:
        """Names of its features."""
        return tuple(member.name for member in self.members)

    @property
    def num_rows(self) -> int:
        """Number of rows that are stored."""
        return int(self.flags.sum())

    @property
    def factor(self) -> float:
        """Samples per stored row."""
        return len(self.flags) / max(self.num_rows, 1)


def propose_groups(
    features: Sequence[RepeatingFeature], new_session: Flags, configured: Mapping[str, Sequence[str]] | None = None
) -> tuple[ProposedGroup, ...]:
    """Proposes the groups that cost least, found greedily.

    Args:
        features: every feature.
        new_session: bool [N], whether a sample is the first of its session.
        configured: the config's groups, name -> features. A group with mostly the same features takes that name.

    Returns:
        Groups in the order of their first feature; a feature in none of them stays in ``sample``.
    """
    has_pairs = not new_session.all()  # else nothing but constants could repeat
    able = [f for f in features if f.origin or (has_pairs and _is_worth_a_group(f))]
    sets = _join_contained([_FeatureSet.of(same) for same in _group_by_flags(able)], new_session)
    sets = _join_small(_merge_greedily(sets, _FeatureSet.gain))
    sets = [s for s in sets if s.features[0].origin is not None or _saves_enough(s)]
    position = {feature.name: i for i, feature in enumerate(features)}
    sets.sort(key=lambda s: min(position[f.name] for f in s.features))
    members = [tuple(sorted(s.features, key=lambda f: position[f.name])) for s in sets]
    names = name_groups(members, configured or {}, set(position))
    return tuple(ProposedGroup(name, m, s.flags) for name, m, s in zip(names, members, sets, strict=True))


def _is_worth_a_group(feature: RepeatingFeature) -> bool:
    """Whether a feature repeats within sessions, or is a history that shifts: windows store only what is new."""
    return (repeats_enough(feature) and feature.is_of_session) or feature.has_windows()


def repeats_enough(feature: RepeatingFeature) -> bool:
    """Whether a feature in a group of its own has ``MIN_FACTOR`` samples per row."""
    return len(feature.flags) >= MIN_FACTOR * feature.num_rows


def group_as_configured(
    features: Sequence[RepeatingFeature], configured: Mapping[str, Sequence[str]]
) -> tuple[ProposedGroup, ...]:
    """Puts features into the groups of a config.

    Args:
        features: every feature.
        configured: the config's groups, name -> features.
    """
    by_name = {feature.name: feature for feature in features}
    groups = []
    for name, names in configured.items():
        members = tuple(by_name[n] for n in names if n in by_name)
        if members and name != SAMPLE:
            groups.append(ProposedGroup(name, members, np.logical_or.reduce([m.flags for m in members])))
    return tuple(groups)


@dataclass(frozen=True)
class _FeatureSet:
    """Features that form one group so far; flags are also packed, so that an OR is a few thousand words."""

    features: tuple[RepeatingFeature, ...]
    flags: Flags
    bits: Bits
    cost: float

    @staticmethod
    def of(features: tuple[RepeatingFeature, ...]) -> "_FeatureSet":
        flags = np.logical_or.reduce([feature.flags for feature in features])
        packed = np.packbits(flags)
        bits = np.pad(packed, (0, -len(packed) % 8)).view(np.uint64)
        return _FeatureSet(features, flags, bits, group_cost(features, flags))

    def join(self, other: "_FeatureSet") -> "_FeatureSet":
        """The set of the features of both."""
        return _FeatureSet.of((*self.features, *other.features))

    def has_origin_of(self, other: "_FeatureSet") -> bool:
        """Whether both come from the samples, or from the same group with its own query."""
        return self.features[0].origin == other.features[0].origin

    def gain(self, other: "_FeatureSet") -> float:
        """Bytes that are saved if both become one group; minus infinity where they cannot, or clearly lose."""
        if not self.has_origin_of(other):
            return -np.inf
        num_rows = int(np.bitwise_count(self.bits | other.bits).sum())
        features = (*self.features, *other.features)
        if num_rows * (ROW_BYTES + row_overhead(features)) + SAMPLE_BYTES * len(self.flags) > self.cost + other.cost:
            return -np.inf  # costs more even without a single value
        return self.cost + other.cost - group_cost(features, self.flags | other.flags)


def _group_by_flags(features: Iterable[RepeatingFeature]) -> Iterable[tuple[RepeatingFeature, ...]]:
    """Features of one origin whose rows begin with the same samples."""
    by_flags: dict[Any, list[RepeatingFeature]] = {}
    for feature in features:
        by_flags.setdefault((feature.origin, np.packbits(feature.flags).tobytes()), []).append(feature)
    return map(tuple, by_flags.values())


def _join_contained(sets: list[_FeatureSet], new_session: Flags) -> list[_FeatureSet]:
    """Joins a set that changes only where another set does, and at least 40% as often, to that set.

    A feature of few values may change without showing it: one of 2 values keeps its value in half of the changes.
    """
    inside = ~new_session
    joined: list[tuple[_FeatureSet, Flags]] = []
    for small in sorted(sets, key=lambda s: -int((s.flags & inside).sum())):
        changes = small.flags & inside
        num_changes = int(changes.sum())
        for i, (large, among) in enumerate(joined):
            if not small.has_origin_of(large) or not num_changes or num_changes < _SEEN * among.sum():
                continue
            if (changes & among).sum() >= _INSIDE * num_changes:
                joined[i] = (large.join(small), among | changes)
                break
        else:
            joined.append((small, changes))
    return [features for features, _ in joined]


def _join_small(sets: list[_FeatureSet]) -> list[_FeatureSet]:
    """Joins sets that save too little to stand alone to the set where that costs least."""

    def gain(a: _FeatureSet, b: _FeatureSet) -> float:
        if not a.has_origin_of(b) or (_saves_enough(a) and _saves_enough(b)):
            return -np.inf
        return _least_cost(a) + _least_cost(b) - _least_cost(a.join(b))

    return _merge_greedily(sets, gain)


def _merge_greedily(sets: list[_FeatureSet], gain: Callable[[_FeatureSet, _FeatureSet], float]) -> list[_FeatureSet]:
    """Merges the two sets that gain most, until no two sets gain."""
    living = dict(enumerate(sets))
    gains = {(i, j): gain(living[i], living[j]) for i, j in combinations(living, 2)}
    while gains:
        i, j = max(gains, key=lambda pair: gains[pair])
        if gains[i, j] <= 0:
            break
        new = max(living) + 1
        joined = living.pop(i).join(living.pop(j))
        gains = {pair: value for pair, value in gains.items() if not {i, j} & set(pair)}
        gains |= {(k, new): gain(other, joined) for k, other in living.items()}
        living[new] = joined
    return list(living.values())


def _least_cost(features: _FeatureSet) -> float:
    """Bytes that a set costs where it costs least: as a group, or in ``sample``."""
    as_group = features.cost + GROUP_BYTES * len(features.flags)
    is_linked = features.features[0].origin is not None
    return as_group if is_linked else min(as_group, cost_in_sample(features.features))


def _saves_enough(features: _FeatureSet) -> bool:
    """Whether a set repeats often enough, or shifts, and saves enough bytes to be a group."""
    num_samples = len(features.flags)
    saved = cost_in_sample(features.features) - features.cost
    repeats = num_samples >= MIN_FACTOR * int(features.flags.sum())
    has_windows = any(feature.has_windows(features.flags) for feature in features.features)
    return (repeats or has_windows) and saved >= GROUP_BYTES * num_samples
