"""Memory for what is decoded, which is used again once nobody refers to it any more.

Memory that is new to a process is zeroed by the kernel page by page when it is first touched: for what an epoch of rm1
decodes that takes as long as decoding it. So it is taken in slabs, which stay. They are in large pages, where the
kernel has some: batches pick rows from all over a shuffle window, and each pick looks its page up.
"""

import math
import mmap
import weakref
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from recd_dist.table.column import Array

_SIZE = 16 << 20
_LARGE_PAGE = 2 << 20
_ALIGN = 64
_SMALL = 1 << 16
"""Bytes that the allocator of C has at hand anyway."""
_PRIVATE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS


@dataclass(eq=False)
class _Slab:
    """Some memory, how much of it is given out, and to how many arrays."""

    memory: mmap.mmap
    used: int = 0
    num_arrays: int = 0


class Slabs:
    """Gives out memory; for one thread at a time, arrays may be let go by any.

    As much stays as was in use at once, until nobody refers to this any more.
    """

    def __init__(self) -> None:
        self._free: list[_Slab] = []
        self._returned: deque[_Slab] = deque()
        self._current = _Slab(_map(0))

    def take(self, num_bytes: int) -> Array:
        """Memory that belongs to the array and its views as long as there are any.

        Args:
            num_bytes: its size, at least 1.

        Returns:
            uint8 [num_bytes], at an address that 64 divides; what it holds is any.
        """
        while self._returned:
            self._give_back(self._returned.popleft())
        size = -(-num_bytes // _ALIGN) * _ALIGN
        if self._current.used + size > len(self._current.memory):
            self._current = self._find(size)
        slab = self._current
        array = np.frombuffer(slab.memory, np.uint8, num_bytes, slab.used)
        slab.used += size
        slab.num_arrays += 1
        weakref.finalize(array, self._returned.append, slab).atexit = False  # appending is safe in any thread
        return array

    def empty(self, shape: Any, dtype: Any) -> Array:
        """An array whose content is anything, as ``np.empty`` gives one, which gives the small ones here too."""
        size = math.prod(shape if isinstance(shape, tuple) else (shape,)) * np.dtype(dtype).itemsize
        return np.empty(shape, dtype) if size < _SMALL else self.take(size).view(dtype).reshape(shape)

    def _give_back(self, slab: _Slab) -> None:
        """Takes note that an array is gone, and with the last one its slab is free."""
        slab.num_arrays -= 1
        if not slab.num_arrays:
            slab.used = 0
            if slab is not self._current:
                self._free.append(slab)

    def _find(self, size: int) -> _Slab:
        """A slab of at least that size: the smallest of those that are free, or a new one."""
        if not self._current.num_arrays and len(self._current.memory):
            self._free.append(self._current)
        fitting = [slab for slab in self._free if len(slab.memory) >= size]
        if not fitting:
            return _Slab(_map(max(_SIZE, -(-size // _LARGE_PAGE) * _LARGE_PAGE)))
        found = min(fitting, key=lambda slab: len(slab.memory))
        self._free.remove(found)
        return found


def _map(size: int) -> mmap.mmap:
    """New memory; without a size, so little that nothing fits in."""
    memory = mmap.mmap(-1, size or 1, flags=_PRIVATE)
    if size and hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a kernel without large pages
            memory.madvise(mmap.MADV_HUGEPAGE)
    return memory
