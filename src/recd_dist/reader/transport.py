"""Hands batches from worker processes to the trainer in shared memory.

torch hands over each tensor in a file of its own; a batch of ten tensors took 11 ms that way, as long as reading it
(rm1, 4096 samples). One block takes one file, one copy and, for CUDA, one pinning.
"""

from dataclasses import dataclass, replace
from math import prod

import torch
from torch import Tensor

from recd_dist.tensors.batch import Batch
from recd_dist.tensors.ikjt import IKJT, GroupLayout

_ALIGN = 64  # bytes, a cache line


@dataclass(frozen=True, eq=False)
class PackedBatch:
    """A batch in one block.

    Attributes:
        block: uint8, in shared memory; every tensor begins at a multiple of 64 bytes.
        tensors: for each tensor the byte of the block at which it begins, its dtype and its shape; in the order of
            ``_tensors_of``.
        groups, batch_size, value_offsets: the attributes of the IKJT with these names.
        dense: names of the groups that have dense features.
        weighted: the IKJT has weights; they are the last tensor but for the sessions.
        has_sessions: the batch has sessions; they are the last tensor.
    """

    block: Tensor
    tensors: tuple[tuple[int, torch.dtype, tuple[int, ...]], ...]
    groups: tuple[GroupLayout, ...]
    batch_size: int
    value_offsets: tuple[int, ...]
    dense: tuple[str, ...]
    weighted: bool = False
    has_sessions: bool = False

    def pin_memory(self) -> "PackedBatch":
        """Copies the block to page-locked memory."""
        return replace(self, block=self.block.pin_memory())

    def unpack(self) -> Batch:
        """Makes the batch out of views of the block."""
        values, lengths, inverse, labels, sample_ids, request_ids, *dense = map(self.view, range(len(self.tensors)))
        sessions = dense.pop() if self.has_sessions else None
        weights = dense.pop() if self.weighted else None
        sparse = IKJT(self.groups, self.batch_size, values, lengths, inverse, self.value_offsets, weights)
        return Batch(sparse, dict(zip(self.dense, dense, strict=True)), labels, sample_ids, request_ids, sessions)

    def view(self, number: int) -> Tensor:
        """A tensor of the batch in the block.

        Args:
            number: the place of the tensor in ``tensors``.
        """
        start, dtype, shape = self.tensors[number]
        size = prod(shape) * dtype.itemsize
        return self.block[start : start + size].view(dtype).view(shape)


def _tensors_of(batch: Batch) -> list[Tensor]:
    """The tensors of a batch in the order in which a block holds them."""
    sparse = batch.sparse
    first = [sparse.values, sparse.lengths, sparse.inverse, batch.labels, batch.sample_ids, batch.request_ids]
    last = [tensor for tensor in (sparse.weights, batch.session_ids) if tensor is not None]
    return [*first, *batch.dense.values(), *last]


def pack(batch: Batch) -> PackedBatch:
    """Copies a batch (on the CPU) into one block of shared memory."""
    tensors, layout, size = _tensors_of(batch), [], 0
    for tensor in tensors:
        layout.append((size, tensor.dtype, tuple(tensor.shape)))
        size += -(-tensor.nbytes // _ALIGN) * _ALIGN
    block = torch.empty(0, dtype=torch.uint8).set_(torch.UntypedStorage._new_shared(max(size, 1)))
    sparse = batch.sparse
    packed = PackedBatch(
        block,
        tuple(layout),
        sparse.groups,
        sparse.batch_size,
        sparse.value_offsets,
        tuple(batch.dense),
        sparse.weights is not None,
        batch.session_ids is not None,
    )
    for number, tensor in enumerate(tensors):
        packed.view(number).copy_(tensor)
    return packed
