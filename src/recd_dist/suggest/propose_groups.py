"""Which features belong together: a cost for every set of them, merged greedily while that saves.

::

    flags of a   1 0 0 1 0 0      rows of a            2
    flags of b   1 0 0 1 0 0      rows of b            2       a + b together: 2 rows, one inverse less
    flags of c   1 1 0 0 0 1      rows of c            3       a + c together: 4 rows of both: dearer than apart

    cost = samples x (row number, inverse) + rows x (row number, lengths, values, look-ups, pooled vectors)

Similar flags alone would not do: features that change at different times share few rows (merging static features cut
their factor from 4-14 to 2.06, measured), and joint rows are the OR of their flags.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from recd_dist.suggest.features import Look
from recd_dist.table.schema import SAMPLE
from recd_dist.table.stats.batch_cost import DIM

WORTH = 1.25
"""A group whose rows repeat less often stays in ``sample``."""

SAMPLE_BYTES = 16
"""What a group costs per sample: the row number that is read (8), the inverse (4) and the index of expansion (4)."""

GROUP_BYTES = 300
"""What a group must save per sample to stand alone: a batch of 4096 then saves a megabyte, which is about what one more
set of files, kernels and messages costs. A single id saves 292 at most. Groups that save less join another, or stay in
``sample``."""

ROW_BYTES = 8
"""What a group costs per row: its number."""

LENGTH_BYTES = 4
VECTOR_BYTES = DIM * 4

LOOKUP_BYTES = VECTOR_BYTES // 8
"""What it costs to look an id up: a vector that is read from memory, about eight times as fast as one that is sent."""

_SEEN, _INSIDE = 0.4, 0.95  # of the other's changes; of its own

Bits = npt.NDArray[np.uint64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Proposed:
    """A group of features.

    Attributes:
        name: plain, and different from the others'.
        looks: its features.
        flags: bool [N], the OR of theirs.
    """

    name: str
    looks: tuple[Look, ...]
    flags: Flags

    @property
    def features(self) -> tuple[str, ...]:
        """Names of its features."""
        return tuple(look.name for look in self.looks)

    @property
    def num_rows(self) -> int:
        """Rows stored."""
        return int(self.flags.sum())

    @property
    def factor(self) -> float:
        """Samples per row."""
        return len(self.flags) / max(self.num_rows, 1)


def cost(looks: Sequence[Look], flags: Flags) -> float:
    """Bytes that a group of these features costs over the samples: read, sent, and its pooled vectors back.

    Args:
        looks: features of the group.
        flags: bool [N], where a row is stored.
    """
    num_rows = int(flags.sum())
    values = sum(look.num_values(flags) * _per_value(look) for look in looks)
    return SAMPLE_BYTES * len(flags) + values + num_rows * (ROW_BYTES + _per_row(looks))


def cost_in_sample(looks: Sequence[Look]) -> float:
    """Bytes of the same features in ``sample``, a row each sample."""
    num = len(looks[0].flags)
    return float(sum(look.num_values() * _per_value(look) for look in looks) + num * _per_row(looks))


def _per_value(look: Look) -> int:
    """Bytes of a value, and of looking it up."""
    return look.width + (LOOKUP_BYTES if look.feature.is_sparse else 0)


def _per_row(looks: Iterable[Look]) -> int:
    """Lengths and vectors of a row."""
    return sum(
        (LENGTH_BYTES if look.lengths is not None else 0) + (VECTOR_BYTES if look.feature.is_sparse else 0)
        for look in looks
    )


def groups(
    looks: Sequence[Look], new_session: Flags, names: dict[str, tuple[str, ...]] | None = None
) -> tuple[Proposed, ...]:
    """The groups that cost least, found greedily.

    Args:
        looks: every feature.
        new_session: bool [N], the first sample of each session.
        names: groups of the config; one with the same features gives its name.

    Returns:
        Groups in the order of their first feature; a feature in none of them stays in ``sample``.
    """
    has_pairs = not new_session.all()  # else nothing but constants could repeat
    able = [look for look in looks if look.origin or (has_pairs and repeats(look) and look.is_of_session)]
    merged = _joined(_merged(_contained([_Set.of(same) for same in _same_flags(able)], new_session)))
    kept = [s for s in merged if s.looks[0].origin is not None or _stands(s)]
    order = {look.name: i for i, look in enumerate(looks)}
    kept = sorted(kept, key=lambda s: min(order[look.name] for look in s.looks))
    members = [tuple(sorted(s.looks, key=lambda look: order[look.name])) for s in kept]
    named = _named(members, names or {}, set(order))
    return tuple(Proposed(name, m, s.flags) for name, m, s in zip(named, members, kept, strict=True))


def repeats(look: Look) -> bool:
    """A group of its own would have fewer rows than samples."""
    return len(look.flags) >= WORTH * int(look.flags.sum())


def alone(looks: Sequence[Look], worth: float) -> tuple[Proposed, ...]:
    """Each feature that repeats enough in a group of its own: what ``groups: null`` makes.

    Groups with their own query stay what they are.
    """
    origins = dict.fromkeys(look.origin for look in looks if look.origin is not None)
    linked = [Proposed(o, (m := tuple(x for x in looks if x.origin == o)), m[0].flags) for o in origins]
    single = [x for x in looks if x.origin is None and len(x.flags) >= worth * x.flags.sum()]
    return (*linked, *(Proposed(x.name, (x,), x.flags) for x in single))


def configured(looks: Sequence[Look], names: dict[str, tuple[str, ...]]) -> tuple[Proposed, ...]:
    """The groups that a config names."""
    by_name = {look.name: look for look in looks}
    found = []
    for name, features in names.items():
        members = tuple(by_name[f] for f in features if f in by_name)
        if members and name != SAMPLE:
            found.append(Proposed(name, members, np.logical_or.reduce([m.flags for m in members])))
    return tuple(found)


@dataclass(frozen=True)
class _Set:
    """Features that are one group so far; flags also packed, so that an OR is a few thousand words."""

    looks: tuple[Look, ...]
    flags: Flags
    bits: Bits
    cost: float

    @staticmethod
    def of(looks: tuple[Look, ...]) -> "_Set":
        flags = np.logical_or.reduce([look.flags for look in looks])
        packed = np.packbits(flags)
        bits = np.pad(packed, (0, -len(packed) % 8)).view(np.uint64)
        return _Set(looks, flags, bits, cost(looks, flags))

    def gain(self, other: "_Set") -> float:
        """Bytes saved by merging; minus infinity where that is out of the question."""
        if self.looks[0].origin != other.looks[0].origin:
            return -np.inf
        num_rows = int(np.bitwise_count(self.bits | other.bits).sum())
        looks = (*self.looks, *other.looks)
        if num_rows * (ROW_BYTES + _per_row(looks)) + SAMPLE_BYTES * len(self.flags) > self.cost + other.cost:
            return -np.inf  # too dear without a single value
        return self.cost + other.cost - cost(looks, self.flags | other.flags)


def _same_flags(looks: Iterable[Look]) -> Iterable[tuple[Look, ...]]:
    same: dict[Any, list[Look]] = {}
    for look in looks:
        same.setdefault((look.origin, np.packbits(look.flags).tobytes()), []).append(look)
    return map(tuple, same.values())


def _contained(sets: list[_Set], new_session: Flags) -> list[_Set]:
    """A change to one of few values is not always seen: 2 values stay the same half of the time.

    So a feature that changes only where another does, and at least 40% as often, changes with it.
    """
    inside = ~new_session
    kept: list[tuple[_Set, Flags]] = []
    for small in sorted(sets, key=lambda s: -int((s.flags & inside).sum())):
        changes = small.flags & inside
        num = int(changes.sum())
        for i, (big, among) in enumerate(kept):
            if small.looks[0].origin != big.looks[0].origin or not num or num < _SEEN * among.sum():
                continue
            if (changes & among).sum() >= _INSIDE * num:
                kept[i] = (_Set.of((*big.looks, *small.looks)), among | changes)
                break
        else:
            kept.append((small, changes))
    return [each for each, _ in kept]


def _merged(sets: list[_Set]) -> list[_Set]:
    """Merges the two sets that gain most until none gain."""
    return _greedy(sets, lambda a, b: a.gain(b))


def _joined(sets: list[_Set]) -> list[_Set]:
    """Sets that save too little to stand alone join where that costs least."""

    def gain(a: _Set, b: _Set) -> float:
        if a.looks[0].origin != b.looks[0].origin or (_stands(a) and _stands(b)):
            return -np.inf
        return _least(a) + _least(b) - _least(_Set.of((*a.looks, *b.looks)))

    return _greedy(sets, gain)


def _least(found: _Set) -> float:
    """What a set costs where it costs least: as a group, or in ``sample``."""
    as_group = found.cost + GROUP_BYTES * len(found.flags)
    return as_group if found.looks[0].origin is not None else min(as_group, cost_in_sample(found.looks))


def _greedy(sets: list[_Set], gain: Callable[[_Set, _Set], float]) -> list[_Set]:
    living = dict(enumerate(sets))
    gains = {(i, j): gain(living[i], living[j]) for i, j in combinations(living, 2)}
    while gains:
        i, j = max(gains, key=lambda pair: gains[pair])
        if gains[i, j] <= 0:
            break
        new = max(living) + 1
        joined = _Set.of((*living.pop(i).looks, *living.pop(j).looks))
        gains = {pair: value for pair, value in gains.items() if not {i, j} & set(pair)}
        gains |= {(k, new): gain(other, joined) for k, other in living.items()}
        living[new] = joined
    return list(living.values())


def _stands(found: _Set) -> bool:
    """Saves enough for a group."""
    saved = cost_in_sample(found.looks) - found.cost
    return len(found.flags) >= WORTH * int(found.flags.sum()) and saved >= GROUP_BYTES * len(found.flags)


def _named(members: list[tuple[Look, ...]], names: dict[str, tuple[str, ...]], taken: set[str]) -> list[str]:
    """A name for each group: the config's, a common beginning, or its heaviest feature's."""
    result: list[str] = []
    for looks in members:
        features = [look.name for look in looks]
        heaviest = max(looks, key=lambda look: look.num_values() * look.width).name.removesuffix("_id")
        name = _of_config(set(features), names) or looks[0].origin or _beginning(features) or heaviest
        if name in ("sample", "samples", "row"):
            name += "_group"
        base, number = name, 2
        while name in result or f"{name}_row" in taken:
            name, number = f"{base}_{number}", number + 1
        result.append(name)
    return result


def _of_config(features: set[str], names: dict[str, tuple[str, ...]]) -> str | None:
    """The config's group that has most of the same features."""
    shares = {name: len(features & set(of)) / len(features | set(of)) for name, of in names.items()}
    best = max(shares, key=lambda name: shares[name], default=None)
    return best if best is not None and shares[best] > 0.5 else None


def _beginning(features: list[str]) -> str:
    """What the names of several features begin with, in whole words of three letters or more."""
    if len(features) < 2:
        return ""
    words = [name.split("_") for name in features]
    common = []
    for column in zip(*words, strict=False):
        if len(set(column)) > 1:
            break
        common.append(column[0])
    name = "_".join(common)
    return name if len(name) >= 3 else ""
