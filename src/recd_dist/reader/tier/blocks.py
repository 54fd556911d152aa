"""Blocks of memory that batches arrive in, used again once nobody holds a batch of them any more."""

import weakref
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recd_dist.reader.tier.lent_memory import LentMemory, can_lend
from recd_dist.reader.transport import BatchLayout, PackedBatch

_SPARE = 1 / 8
"""A block is larger than the batch for which it is made, since the next one may be."""


@dataclass(eq=False)
class _Memory:
    """Memory of a block.

    Attributes:
        bytes: uint8 [n].
        lent: it, where servers may write into it.
        is_lost: whether somebody may still write into it, so that it is not used again.
    """

    bytes: npt.NDArray[np.uint8]
    lent: LentMemory | None = None
    is_lost: bool = False


@dataclass(frozen=True, eq=False)
class Block:
    """A block in use.

    Attributes:
        tensor: uint8 [bytes]; the block is used again when it and all tensors over it have gone.
        name: what a server on this host finds it by; None where none can.
    """

    tensor: Tensor
    name: Mapping[str, Any] | None = None
    _memory: _Memory | None = field(default=None, repr=False)

    def lose(self) -> None:
        """Keeps the block from being used again: a server may write into it, whenever it finds time."""
        if self._memory is not None:
            self._memory.is_lost = True


class Blocks:
    """Blocks aligned to 64 bytes. One that is in use belongs to its tensors; the last of them to go gives it back.

    Args:
        pinned: page-locked, for CUDA. Such blocks are torch's own, which waits for copies to the device under way.
        most: blocks that are kept while none is in use.
        lent: servers on this host may write into them; none of these is page-locked.
    """

    def __init__(self, pinned: bool = False, most: int = 16, lent: bool = False) -> None:
        self._pinned, self._lent = pinned, lent
        self._free: deque[_Memory] = deque(maxlen=most)

    def take(self, num_bytes: int) -> Block:
        """A block of at least so many bytes, whose content is anything.

        Args:
            num_bytes: what it must hold.
        """
        if self._pinned:
            return Block(torch.empty(max(num_bytes, 1), dtype=torch.uint8, pin_memory=True))
        memory = self._find(max(num_bytes, 1))
        used = memory.bytes[:]
        # torch holds this view for as long as any tensor over it lives.
        weakref.finalize(used, self._take_back, memory).atexit = False
        return Block(torch.from_numpy(used), None if memory.lent is None else memory.lent.name, memory)

    def _take_back(self, memory: _Memory) -> None:
        if not memory.is_lost:
            self._free.append(memory)

    def _find(self, num_bytes: int) -> _Memory:
        """Memory that is large enough: one that is free, or new memory. Smaller ones that are free are dropped."""
        while self._free:
            try:
                memory = self._free.popleft()
            except IndexError:  # another thread was faster
                break
            if len(memory.bytes) >= num_bytes:
                return memory
        size = int(num_bytes * (1 + _SPARE))
        if self._lent:
            lent = LentMemory(size)
            return _Memory(lent.bytes, lent)
        return _Memory(torch.empty(size, dtype=torch.uint8).numpy())


class ArrivingBlocks:
    """Where the batches of a rank arrive.

    Args:
        pinned: put batches into page-locked memory.
        most: blocks that are kept while none is in use.
        lends: let servers on this host write into memory of this process.

    Attributes:
        far: for batches that come through a socket.
        near: for batches that a server on this host writes; None where none may.
        opening: names a block that servers may try whether they can find; None where none may.
    """

    def __init__(self, pinned: bool = False, most: int = 16, lends: bool = False) -> None:
        self._pinned = pinned
        self.far = Blocks(pinned, most)
        self.near = Blocks(most=most, lent=True) if lends and can_lend() else None
        self._trial = None if self.near is None else self.near.take(1)
        self.opening = None if self._trial is None else self._trial.name

    def packed(self, block: Block, layout: BatchLayout) -> PackedBatch:
        """The batch that has arrived in a block.

        Args:
            block: one of ``far`` or ``near``.
            layout: what lies where in it.
        """
        arrived = PackedBatch(block.tensor[: max(layout.num_bytes, 1)], layout)
        return arrived.pin_memory() if self._pinned and block.name is not None else arrived
