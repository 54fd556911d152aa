"""Ids as a pure function of (seed, user, version, position): no state, so any chunk of time can be written alone.

A history that shifts is a window over an endless stream of a user's ids::

    stream of user 7:   4 9 9 1 6 3 8 ...
    version 0, length 4:  [4 9 9 1]
    version 1:              [9 9 1 6]

Values come from a counter-based generator (splitmix64), so neither the stream nor the row before has to be kept.
"""

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from recd_dist.table.hash import GOLDEN, scramble
from recd_dist.table.loops import scramble_one

U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]

_S11, _S40 = np.uint64(11), np.uint64(40)
_LOW12 = np.uint64(0xFFF)
_TO_UNIT = 1.0 / (1 << 53)


def mix(key: U64, value: NDArray[Any] | int) -> U64:
    """A new random key from a key and a number, elementwise: uint64, same shape."""
    with np.errstate(over="ignore"):
        x = np.asarray(key, np.uint64) + (np.asarray(value).astype(np.uint64) + np.uint64(1)) * GOLDEN
        return np.asarray(scramble(x), np.uint64)


def uniform(key: U64) -> NDArray[np.float64]:
    """Keys -> numbers in [0, 1), elementwise."""
    return np.asarray((key >> _S11) * _TO_UNIT, np.float64)


def normal(key: U64) -> NDArray[np.float64]:
    """Keys -> standard normal numbers, elementwise (Box-Muller)."""
    angle = uniform(mix(key, 1)) * (2 * np.pi)
    return np.asarray(np.sqrt(-2 * np.log1p(-uniform(mix(key, 2)))) * np.cos(angle), np.float64)


@numba.njit(cache=True, inline="always")  # type: ignore[untyped-decorator, unused-ignore]
def _zipf(u: float, size: int, law: tuple[float, float]) -> int:
    """A rank in [0, size) by inverting the continuous power law of ``zipf_law``."""
    rank = int((1.0 + u * law[0]) ** law[1]) - 1
    return min(max(rank, 0), size - 1)


@numba.njit(cache=True, inline="always")  # type: ignore[untyped-decorator, unused-ignore]
def _category(h: np.uint64, liked: I64, focus: float, num_categories: int) -> int:
    """The category at a position: one the user likes with probability focus, else any."""
    if float(h & _LOW12) < focus * 4096.0:
        return int(liked[int((h >> np.uint64(12)) & np.uint64(0xFF)) % liked.shape[0]])
    return int((h >> np.uint64(12)) & np.uint64(0xFFFFF)) % num_categories


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator, unused-ignore]
def fill_ids(
    keys: U64,
    starts: I64,
    offsets: I64,
    size: int,
    spread: int,
    law: tuple[float, float],
    values: NDArray[np.int32],
) -> None:
    """Fills the ids of a table that stands alone.

    Args:
        keys: uint64 [n], the stream of each row.
        starts: int64 [n], position in the stream of the row's first id.
        offsets: int64 [n+1], where each row lies in values.
        size: ids in the table.
        spread: odd multiplier, prime to size, that scatters popular ids over the table.
        law: of ``zipf_law``.
        values: int32 [offsets[n]], written.
    """
    for i in range(keys.shape[0]):
        for j in range(offsets[i + 1] - offsets[i]):
            h = scramble_one(keys[i] + np.uint64(starts[i] + j + 1) * GOLDEN)
            rank = _zipf(float(h >> _S11) * _TO_UNIT, size, law)
            values[offsets[i] + j] = rank * spread % size


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator, unused-ignore]
def fill_items(
    keys: U64,
    starts: I64,
    offsets: I64,
    liked: I64,
    focus: float,
    num_categories: int,
    per_category: int,
    spread: int,
    law: tuple[float, float],
    values: NDArray[np.int32],
) -> None:
    """Fills items, or their categories when per_category is 0.

    Args:
        keys: uint64 [n], the stream of each row.
        starts: int64 [n], position in the stream of the row's first item.
        offsets: int64 [n+1], where each row lies in values.
        liked: int64 [n, k], categories that each row's user prefers.
        focus: probability of drawing from them.
        num_categories: categories in all.
        per_category: items in each; item = (rank * num_categories + category) * spread mod size.
        spread: odd multiplier, prime to the number of items.
        law: of ``zipf_law`` for per_category.
        values: int32 [offsets[n]], written.
    """
    size = num_categories * max(per_category, 1)
    for i in range(keys.shape[0]):
        for j in range(offsets[i + 1] - offsets[i]):
            h = scramble_one(keys[i] + np.uint64(starts[i] + j + 1) * GOLDEN)
            category = _category(h, liked[i], focus, num_categories)
            if per_category == 0:
                values[offsets[i] + j] = category
            else:
                u = float(h >> _S40) * (1.0 / (1 << 24)) + float(scramble_one(h) >> _S40) * (1.0 / (1 << 48))
                rank = _zipf(u, per_category, law)
                values[offsets[i] + j] = (rank * num_categories + category) * spread % size


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator, unused-ignore]
def match_share(
    keys: U64, starts: I64, lengths: I64, liked: I64, focus: float, num_categories: int, wanted: NDArray[np.int32]
) -> NDArray[np.float64]:
    """Share of each row's history that has the wanted category: float64 [n] (0 for an empty history)."""
    share = np.zeros(keys.shape[0])
    for i in range(keys.shape[0]):
        hits = 0
        for j in range(lengths[i]):
            h = scramble_one(keys[i] + np.uint64(starts[i] + j + 1) * GOLDEN)
            hits += _category(h, liked[i], focus, num_categories) == wanted[i]
        share[i] = hits / max(lengths[i], 1)
    return share


def zipf_law(size: int, exponent: float) -> tuple[float, float]:
    """(a, b) such that floor((1 + u * a) ** b) - 1 is a Zipf-like rank in [0, size) for uniform u."""
    exponent = exponent if abs(exponent - 1) > 1e-6 else 1 + 1e-6
    return float((size + 1) ** (1 - exponent) - 1), float(1 / (1 - exponent))


def spread_of(size: int) -> int:
    """A multiplier prime to size, near the golden section: neighbours in popularity land far apart."""
    candidate = int(size * 0.6180339887) | 1
    while np.gcd(candidate, size) != 1:
        candidate += 1
    return max(candidate, 1)
