"""A batch in one block of memory, as worker processes hand it on in shared memory, and servers over the network.

torch hands over each tensor in a file of its own; a batch of ten tensors took 11 ms that way, as long as reading it
(rm1, 4096 samples). One block takes one file and, for CUDA, one pinning.

Tensors have names here. One that a batch may lack is absent by its name, so that whoever hands batches on carries it
without knowing it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

from recd_dist.tensors.batch import Batch
from recd_dist.tensors.ikjt import IKJT, GroupLayout

ALIGN = 64
"""Bytes of a cache line; each tensor of a block begins with one."""

_DENSE = "dense."
_DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (torch.uint8, torch.int16, torch.int32, torch.int64, torch.float16, torch.float32, torch.float64)
}


def tensors_of(batch: Batch) -> dict[str, Tensor]:
    """The tensors of a batch by name; those of dense features are ``dense.GROUP``."""
    sparse = batch.sparse
    named = {
        "values": sparse.values,
        "lengths": sparse.lengths,
        "inverse": sparse.inverse,
        "starts": sparse.starts,
        "weights": sparse.weights,
        "labels": batch.labels,
        "sample_ids": batch.sample_ids,
        "request_ids": batch.request_ids,
        "session_ids": batch.session_ids,
        **{_DENSE + group: tensor for group, tensor in batch.dense.items()},
    }
    return {name: tensor for name, tensor in named.items() if tensor is not None}


@dataclass(frozen=True)
class TensorPlace:
    """Where a tensor lies in a block.

    Attributes:
        name: its name in ``tensors_of``.
        start: the byte of the block at which it begins, a multiple of 64.
        dtype, shape: those of the tensor.
    """

    name: str
    start: int
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        """Bytes of the tensor."""
        return prod(self.shape) * self.dtype.itemsize

    @property
    def end(self) -> int:
        """The byte at which the next tensor may begin."""
        return self.start + -(-self.num_bytes // ALIGN) * ALIGN

    def view(self, block: Tensor) -> Tensor:
        """The tensor in a block, uint8 [bytes]."""
        return block[self.start : self.start + self.num_bytes].view(self.dtype).view(self.shape)


@dataclass(frozen=True)
class BatchLayout:
    """What a batch is beside the numbers in its tensors.

    Attributes:
        tensors: where each tensor lies in a block.
        groups, batch_size, value_offsets, windows: the attributes of the IKJT with these names.
    """

    tensors: tuple[TensorPlace, ...]
    groups: tuple[GroupLayout, ...]
    batch_size: int
    value_offsets: tuple[int, ...]
    windows: tuple[str, ...] = ()

    @staticmethod
    def of(batch: Batch, starts: Mapping[str, int] | None = None, first: int = 0) -> "BatchLayout":
        """The layout of a batch.

        Args:
            batch: the batch.
            starts: for each tensor the byte at which it begins; None lays them one after another.
            first: the byte from which on they are laid.
        """
        places = []
        for name, tensor in tensors_of(batch).items():
            start = first if starts is None else starts[name]
            places.append(TensorPlace(name, start, tensor.dtype, tuple(tensor.shape)))
            first = places[-1].end
        sparse = batch.sparse
        return BatchLayout(tuple(places), sparse.groups, sparse.batch_size, sparse.value_offsets, sparse.windows)

    @property
    def num_bytes(self) -> int:
        """Bytes of a block that holds the tensors."""
        return max((place.end for place in self.tensors), default=0)

    def fill(self, block: Tensor, batch: Batch) -> None:
        """Copies the tensors of a batch (on the CPU) into a block, uint8 [at least num_bytes]."""
        tensors = tensors_of(batch)
        for place in self.tensors:
            place.view(block).copy_(tensors[place.name])

    def unpack(self, block: Tensor) -> Batch:
        """Makes the batch out of views of a block, uint8 [at least num_bytes]."""
        named = {place.name: place.view(block) for place in self.tensors}
        sparse = IKJT(
            self.groups,
            self.batch_size,
            named["values"],
            named["lengths"],
            named["inverse"],
            self.value_offsets,
            named.get("weights"),
            windows=self.windows,
            starts=named.get("starts"),
        )
        dense = {name.removeprefix(_DENSE): tensor for name, tensor in named.items() if name.startswith(_DENSE)}
        ids = (named["sample_ids"], named["request_ids"], named.get("session_ids"))
        return Batch(sparse, dense, named["labels"], *ids)

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict; ``BatchLayout.from_json`` is its inverse."""
        return {
            "tensors": [[p.name, p.start, str(p.dtype).removeprefix("torch."), list(p.shape)] for p in self.tensors],
            "groups": [[g.name, list(g.keys), g.num_rows] for g in self.groups],
            "batch_size": self.batch_size,
            "value_offsets": list(self.value_offsets),
            "windows": list(self.windows),
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> "BatchLayout":
        """The layout that ``to_json`` wrote.

        Raises:
            KeyError, TypeError, ValueError: something else wrote it.
        """
        return BatchLayout(
            tuple(
                TensorPlace(str(name), int(start), _DTYPES[dtype], tuple(map(int, shape)))
                for name, start, dtype, shape in value["tensors"]
            ),
            tuple(GroupLayout(str(name), tuple(map(str, keys)), int(rows)) for name, keys, rows in value["groups"]),
            int(value["batch_size"]),
            tuple(map(int, value["value_offsets"])),
            tuple(map(str, value["windows"])),
        )


@dataclass(frozen=True, eq=False)
class PackedBatch:
    """A batch in one block.

    Attributes:
        block: uint8; every tensor begins at a multiple of 64 bytes.
        layout: what lies where in it.
    """

    block: Tensor
    layout: BatchLayout

    def pin_memory(self) -> "PackedBatch":
        """Copies the batch to page-locked memory."""
        return PackedBatch(self.block[: self.layout.num_bytes].pin_memory(), self.layout)

    def unpack(self) -> Batch:
        """Makes the batch out of views of the block."""
        return self.layout.unpack(self.block)
