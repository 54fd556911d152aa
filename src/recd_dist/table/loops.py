"""Loops compiled by numba, for which numpy has no function.

They are compiled on first use (about 0.3 s each, then cached on disk), release the GIL and use one thread. Numba takes
0.35 s to load, so that a module which a light command imports loads this one where it runs a loop.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import numba
import numpy as np
import numpy.typing as npt

from recd_dist.table.hash import GOLDEN, scramble

F = TypeVar("F", bound=Callable[..., object])


def jit(function: F) -> F:
    """Compiles with a cache beside the source or in the user's cache directory, or without one: neither is writable."""
    try:
        return numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:
        return numba.njit(nogil=True)(function)


@jit
def gather_slices(
    values: npt.NDArray[Any], starts: npt.NDArray[np.int64], offsets: npt.NDArray[np.int64], out: npt.NDArray[Any]
) -> None:
    """Writes slices of values: slice i begins at starts[i] (int64) and stands in out from offsets[i] (int64)."""
    for i in range(len(starts)):
        shift = starts[i] - offsets[i]
        for j in range(offsets[i], offsets[i + 1]):
            out[j] = values[j + shift]


scramble_one = jit(scramble)
"""``scramble`` of one number, for compiled loops."""


@jit
def splitmix64_one(x: np.uint64) -> np.uint64:
    """``splitmix64`` of one number, for compiled loops."""
    return scramble_one(x + GOLDEN)
