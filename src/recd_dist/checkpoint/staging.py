"""A copy of this rank's part of the state, from which a checkpoint is written while training goes on.

::

    model, optimizer --copy, while training waits--> buffers on the host --> files, while training goes on
                                                     made once, filled anew for each checkpoint

torch's own stager cannot copy TorchRec's ShardedTensor (docs/upstream.md), and a ShardedTensor on the host would need
the placement of every shard rewritten. torch.distributed.checkpoint asks a tensor for nothing but its shards, so these
stand here by themselves.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, MetadataIndex, TensorProperties
from torch.distributed.checkpoint.planner import TensorWriteData, WriteItem, WriteItemType


@dataclass(frozen=True)
class StagedShards:
    """This rank's shards of a tensor, as torch.distributed.checkpoint asks for them.

    Attributes:
        global_size: of the whole tensor.
        offsets: of each shard in the whole tensor.
        tensors: the shards, on the host.
    """

    global_size: torch.Size
    offsets: tuple[torch.Size, ...]
    tensors: tuple[Tensor, ...]

    def __create_write_items__(self, fqn: str, _object: object) -> list[WriteItem]:
        """What is to be written of it."""
        return [
            WriteItem(
                index=MetadataIndex(fqn, offset),
                type=WriteItemType.SHARD,
                tensor_data=TensorWriteData(
                    chunk=ChunkStorageMetadata(offset, tensor.size()),
                    properties=TensorProperties.create_from_tensor(tensor),
                    size=self.global_size,
                ),
            )
            for offset, tensor in zip(self.offsets, self.tensors, strict=True)
        ]

    def shard(self, index: MetadataIndex) -> Tensor:
        """One of the shards."""
        return self.tensors[self.offsets.index(torch.Size(index.offset or ()))]


class StagedPlanner(DefaultSavePlanner):
    """A ``DefaultSavePlanner`` that finds shards in ``StagedShards``, too."""

    def lookup_object(self, index: MetadataIndex) -> Any:
        """The tensor or shard to write."""
        found = self.state_dict[index.fqn]
        return found.shard(index) if isinstance(found, StagedShards) else super().lookup_object(index)


def shards_of(value: Any) -> tuple[tuple[torch.Size, Tensor], ...] | None:
    """Offset and tensor of each shard of a ShardedTensor that lies here; None for a tensor that every rank has."""
    if not hasattr(value, "local_shards"):
        return None
    return tuple((torch.Size(s.metadata.shard_offsets), s.tensor.detach()) for s in value.local_shards())


def parts_of(value: Any) -> tuple[tuple[torch.Size, Tensor], ...]:
    """Offset and tensor of each part of a tensor that lies here: its shards, or the whole of it."""
    shards = shards_of(value)
    return ((torch.Size([0] * value.dim()), value),) if shards is None else shards


class Stage:
    """Room for one copy of this rank's part of the state."""

    def __init__(self) -> None:
        self._room: dict[str, Tensor | StagedShards] = {}

    def fill(self, tensors: Mapping[str, Any]) -> dict[str, Any]:
        """Copies the state; what an earlier call returned holds the new values, too.

        Args:
            tensors: what ``state.flatten`` returned.

        Returns:
            The same names, with tensors on the host that training does not touch.
        """
        room, moved = {}, False
        for name, value in tensors.items():
            room[name], of_device = self._copy(name, value)
            moved |= of_device
        if moved:
            torch.cuda.synchronize()
        self._room = room
        return dict(room)

    @property
    def num_bytes(self) -> int:
        """Bytes of the copy."""
        parts = [t for v in self._room.values() for t in (v.tensors if isinstance(v, StagedShards) else (v,))]
        return sum(part.numel() * part.element_size() for part in parts)

    def _copy(self, name: str, value: Any) -> tuple[Tensor | StagedShards, bool]:
        shards, old = shards_of(value), self._room.get(name)
        if shards is None:
            into = _fill(old if isinstance(old, Tensor) else None, value.detach())
            return into, bool(value.is_cuda)
        before = old.tensors if isinstance(old, StagedShards) and len(old.tensors) == len(shards) else ()
        rooms = before or (None,) * len(shards)
        copied = tuple(_fill(into, tensor) for into, (_, tensor) in zip(rooms, shards, strict=True))
        offsets = tuple(offset for offset, _ in shards)
        return StagedShards(torch.Size(value.size()), offsets, copied), any(t.is_cuda for _, t in shards)


def _fill(into: Tensor | None, tensor: Tensor) -> Tensor:
    """Copies a tensor into room that fits it, which is made where there is none."""
    if into is None or into.size() != tensor.size() or into.dtype != tensor.dtype:
        into = torch.empty(tensor.size(), dtype=tensor.dtype, device="cpu", pin_memory=tensor.is_cuda)
    into.copy_(tensor, non_blocking=tensor.is_cuda)
    return into
