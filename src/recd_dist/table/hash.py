"""The hash function splitmix64, whose values look random.

Files on disk, the order of epochs and the rows of hashed ids follow from it, so that no bit of it may ever change. The
compiled forms are ``table.loops.scramble_one`` and ``splitmix64_one``. Source: Steele, Lea, Flood, "Fast splittable
pseudorandom number generators" (OOPSLA 2014).
"""

from typing import TypeVar

import numpy as np
import numpy.typing as npt

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
"""2^64 divided by the golden ratio, made odd: the step from one state of splitmix64 to the next. A product with it
spreads neighbouring numbers over the upper bits, which is Fibonacci hashing."""
MIX_1, MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
"""The multipliers of ``scramble``."""
_S27, _S30, _S31 = np.uint64(27), np.uint64(30), np.uint64(31)

U64 = TypeVar("U64", np.uint64, npt.NDArray[np.uint64])


def scramble(x: U64) -> U64:
    """The last part of splitmix64, a bijection of 64 bits in which every output bit depends on every input bit.

    Args:
        x: uint64, any shape.
    """
    x = (x ^ (x >> _S30)) * MIX_1
    x = (x ^ (x >> _S27)) * MIX_2
    return x ^ (x >> _S31)


def splitmix64(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The number that splitmix64 draws in a state.

    Args:
        x: the state, uint64, any shape but that of a single number.
    """
    return scramble(x + GOLDEN)


def as_signed(constant: np.uint64) -> int:
    """The same 64 bits as a signed number, which is what torch multiplies by."""
    return int(constant.astype(np.int64))
