"""Blocks of memory that received batches are copied into, used again once nobody holds a batch of them any more."""

import weakref
from collections import deque

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

_SPARE = 1 / 8
"""A block is larger than the batch for which it is made, since the next one may be."""


class Blocks:
    """Blocks aligned to 64 bytes. One that is in use belongs to its tensors; the last of them to go gives it back.

    Args:
        pinned: page-locked, for CUDA. Such blocks are torch's own, which waits for copies to the device under way.
        most: blocks that are kept while none is in use.
    """

    def __init__(self, pinned: bool = False, most: int = 16) -> None:
        self._pinned = pinned
        self._free: deque[npt.NDArray[np.uint8]] = deque(maxlen=most)

    def take(self, num_bytes: int) -> Tensor:
        """A block, uint8 [num_bytes], whose content is anything."""
        if self._pinned:
            return torch.empty(max(num_bytes, 1), dtype=torch.uint8, pin_memory=True)
        memory = self._find(num_bytes)
        used = memory[: max(num_bytes, 1)]
        # torch holds this view for as long as any tensor over it lives.
        weakref.finalize(used, self._free.append, memory).atexit = False
        return torch.from_numpy(used)

    def _find(self, num_bytes: int) -> npt.NDArray[np.uint8]:
        """Memory that is large enough: one that is free, or new memory. Smaller ones that are free are dropped."""
        while self._free:
            try:
                memory = self._free.popleft()
            except IndexError:  # another thread was faster
                break
            if len(memory) >= num_bytes:
                return memory
        return torch.empty(int(max(num_bytes, 1) * (1 + _SPARE)), dtype=torch.uint8).numpy()
