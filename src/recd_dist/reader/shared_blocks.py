"""Blocks of shared memory in which worker processes make batches, used again once the trainer has let go of them.

::

    block    | in use? | inverse | keys | ... | values | spare      its first 64 bytes say whether a batch lies in it
    worker   1: makes a batch where it stays, hands the block over  trainer   0: the last tensor of the batch is gone

Copying each batch into a new block took longer than making it (rm1, 4096 samples, 3 MB: 2.0 ms after 1.2), since the
kernel finds and clears 770 pages each time. Made in a block that was used before, it takes 1.1 ms in all.
"""

import weakref
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recd_dist.reader.transport import ALIGN, BatchLayout, PackedBatch, tensors_of
from recd_dist.table.addresses import address_of
from recd_dist.table.column import Array
from recd_dist.tensors.batch import Batch

_SPARE = 1 / 4
"""A block is larger than the batch for which it is made, since the next one may be."""

_MOST_FREE = 8
"""Blocks that are kept while no batch lies in them."""


class SharedBatch(PackedBatch):
    """A batch in a block of a worker process; the first byte of the block is 1 for as long as the trainer has it."""

    def __reduce__(self) -> Any:
        return _receive, (self.block, self.layout)


def _receive(block: Tensor, layout: BatchLayout) -> PackedBatch:
    """The batch as the trainer has it: the block is given back when the last tensor over it is gone."""
    memory = block.numpy()
    # torch holds this array for as long as any tensor over it lives.
    weakref.finalize(memory, _give_back, block).atexit = False
    return PackedBatch(torch.from_numpy(memory), layout)


def _give_back(block: Tensor) -> None:
    block[0] = 0


class BlockWriter:
    """Gives memory of a block, piece after piece.

    Args:
        block: uint8; its first ``ALIGN`` bytes are not given.
    """

    def __init__(self, block: Tensor) -> None:
        self.block = block
        self._memory, self._next = block.numpy(), ALIGN

    def empty(self, shape: Any, dtype: Any) -> Array:
        """An array whose content is anything; memory of its own where the block has no room left."""
        num_bytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        start, self._next = self._next, self._next + -(-num_bytes // ALIGN) * ALIGN
        if self._next > len(self._memory):  # whole cache lines, as a layout counts them
            self._next = len(self._memory)
            return np.empty(shape, dtype)
        return self._memory[start : start + num_bytes].view(dtype).reshape(shape)

    def find(self, batch: Batch) -> BatchLayout | None:
        """Where the tensors of a batch lie in the block; None where one lies elsewhere."""
        first, places = address_of(self._memory), dict[str, int]()
        for name, tensor in tensors_of(batch).items():
            start = tensor.data_ptr() - first if tensor.numel() else ALIGN
            if not 0 < start <= len(self._memory) - tensor.nbytes:
                return None
            places[name] = start
        return BatchLayout.of(batch, places)


class SharedBlocks:
    """The blocks of a process that makes batches."""

    def __init__(self) -> None:
        self._blocks: list[Tensor] = []
        self._size = 2 * ALIGN

    def open(self) -> BlockWriter:
        """A block in which nothing lies, for the next batch. Those that are too small are let go, and too many."""
        is_free = [int(block[0]) == 0 for block in self._blocks]
        free = [block for block, of in zip(self._blocks, is_free, strict=True) if of and block.nbytes >= self._size]
        self._blocks = [block for block, of in zip(self._blocks, is_free, strict=True) if not of] + free[:_MOST_FREE]
        return BlockWriter(free[0] if free else self._add())

    def pack(self, batch: Batch, writer: BlockWriter) -> SharedBatch:
        """A batch that was made in the memory of a writer, ready to be handed over; else it is copied into a block.

        Args:
            batch: on the CPU.
            writer: of ``open``, not used for another batch.
        """
        block, layout = writer.block, writer.find(batch)
        if layout is None:
            layout = BatchLayout.of(batch, first=ALIGN)
            self._size = max(self._size, int(layout.num_bytes * (1 + _SPARE)))
            block = self._add()
            layout.fill(block, batch)
        block[0] = 1
        return SharedBatch(block, layout)

    def _add(self) -> Tensor:
        block = torch.empty(0, dtype=torch.uint8).set_(torch.UntypedStorage._new_shared(self._size))
        block[0] = 0
        self._blocks.append(block)
        return block
