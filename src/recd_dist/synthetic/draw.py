"""Random ids as a pure function of (seed, user, version, position).

A history that shifts is a window over an endless stream of a user's ids::

    stream of user 7:   4 9 9 1 6 3 8 ...
    version 0, length 4:  [4 9 9 1]
    version 1:              [9 9 1 6]

Values come from a counter-based generator (splitmix64). Neither the stream nor the row before has to be kept, so any
chunk of time can be written alone.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from recd_dist.table.hash import GOLDEN, scramble
from recd_dist.table.loops import jit, scramble_one

U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]

_S11, _S40 = np.uint64(11), np.uint64(40)
_LOW12 = np.uint64(0xFFF)
_TO_UNIT = 1.0 / (1 << 53)


def mix(key: U64, value: NDArray[Any] | int) -> U64:
    """Draws new random keys from keys and numbers, element by element.

    Args:
        key: uint64 of any shape.
        value: whole numbers of the same shape, or one number.

    Returns:
        uint64 of the same shape.
    """
    with np.errstate(over="ignore"):
        x = np.asarray(key, np.uint64) + (np.asarray(value).astype(np.uint64) + np.uint64(1)) * GOLDEN
        return np.asarray(scramble(x), np.uint64)


def uniform(key: U64) -> NDArray[np.float64]:
    """Turns random keys, uint64 of any shape, into uniform numbers in [0, 1): float64 of the same shape."""
    return np.asarray((key >> _S11) * _TO_UNIT, np.float64)


def normal(key: U64) -> NDArray[np.float64]:
    """Turns random keys, uint64 of any shape, into standard normal numbers: float64 (Box-Muller)."""
    angle = uniform(mix(key, 1)) * (2 * np.pi)
    return np.asarray(np.sqrt(-2 * np.log1p(-uniform(mix(key, 2)))) * np.cos(angle), np.float64)


@jit
def _zipf(u: float, size: int, law: tuple[float, float]) -> int:
    """The rank in [0, size) at which the power law of ``zipf_law`` reaches the share u of its mass."""
    rank = int((1.0 + u * law[0]) ** law[1]) - 1
    return min(max(rank, 0), size - 1)


@jit
def _category(h: np.uint64, liked: I64, focus: float, num_categories: int) -> int:
    """The category that a hash draws: with probability ``focus`` one that the user likes, else any."""
    if float(h & _LOW12) < focus * 4096.0:
        return int(liked[int((h >> np.uint64(12)) & np.uint64(0xFF)) % liked.shape[0]])
    return int((h >> np.uint64(12)) & np.uint64(0xFFFFF)) % num_categories


@jit
def fill_ids(
    keys: U64,
    starts: I64,
    offsets: I64,
    size: int,
    spread: int,
    law: tuple[float, float],
    values: NDArray[np.int32],
) -> None:
    """Fills rows with ids of a table that has nothing to do with items.

    Args:
        keys: uint64 [n], key of each row's stream.
        starts: int64 [n], position in the stream of each row's first id.
        offsets: int64 [n+1], where each row begins and ends in ``values``.
        size: number of ids in the table.
        spread: multiplier prime to ``size`` that scatters popular ids over the table (``spread_multiplier``).
        law: result of ``zipf_law`` for the size of the table.
        values: int32 [offsets[n]], filled here.
    """
    for i in range(keys.shape[0]):
        for j in range(offsets[i + 1] - offsets[i]):
            h = scramble_one(keys[i] + np.uint64(starts[i] + j + 1) * GOLDEN)
            rank = _zipf(float(h >> _S11) * _TO_UNIT, size, law)
            values[offsets[i] + j] = rank * spread % size


@jit
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
    """Fills rows with items, or with the categories of these items where ``per_category`` is 0.

    Args:
        keys: uint64 [n], key of each row's stream.
        starts: int64 [n], position in the stream of each row's first item.
        offsets: int64 [n+1], where each row begins and ends in ``values``.
        liked: int64 [n, k], categories that each row's user prefers.
        focus: probability of drawing from the preferred categories.
        num_categories: number of all categories.
        per_category: number of items in a category; item = (rank * num_categories + category) * spread mod size.
        spread: multiplier prime to the number of items (``spread_multiplier``).
        law: result of ``zipf_law`` for ``per_category``.
        values: int32 [offsets[n]], filled here.
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


@jit
def match_share(
    keys: U64, starts: I64, lengths: I64, liked: I64, focus: float, num_categories: int, categories: NDArray[np.int32]
) -> NDArray[np.float64]:
    """The share of each row's history that has a given category.

    Args:
        keys: uint64 [n], key of each row's stream.
        starts: int64 [n], position in the stream of each row's first item.
        lengths: int64 [n], number of items in each row.
        liked: int64 [n, k], categories that each row's user prefers.
        focus: probability of drawing from the preferred categories.
        num_categories: number of all categories.
        categories: int32 [n], the category to look for in each row.

    Returns:
        float64 [n]; 0 for an empty history.
    """
    share = np.zeros(keys.shape[0])
    for i in range(keys.shape[0]):
        hits = 0
        for j in range(lengths[i]):
            h = scramble_one(keys[i] + np.uint64(starts[i] + j + 1) * GOLDEN)
            hits += _category(h, liked[i], focus, num_categories) == categories[i]
        share[i] = hits / max(lengths[i], 1)
    return share


def zipf_law(size: int, exponent: float) -> tuple[float, float]:
    """Numbers (a, b) such that floor((1 + u * a) ** b) - 1 is a Zipf-like rank in [0, size) for uniform u.

    Args:
        size: number of ranks.
        exponent: exponent of the law; 1 is the classic one.
    """
    exponent = exponent if abs(exponent - 1) > 1e-6 else 1 + 1e-6
    return float((size + 1) ** (1 - exponent) - 1), float(1 / (1 - exponent))


def spread_multiplier(size: int) -> int:
    """A multiplier prime to size, near the golden section of it, so that neighbours in popularity land far apart."""
    candidate = int(size * 0.6180339887) | 1
    while np.gcd(candidate, size) != 1:
        candidate += 1
    return max(candidate, 1)
