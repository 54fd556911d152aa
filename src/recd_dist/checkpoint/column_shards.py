"""Optimizer states with a number a row, for tables that are split by columns in another way than when they were saved.

Row-wise optimizers keep one number for each row of a shard. Where a table is split by columns, each column shard has a
number of its own for each row, and TorchRec saves them one behind the other::

    weight [rows, 16] in columns 0-7 | 8-15      state [2 * rows]:   rows of columns 0-7, rows of columns 8-15
    weight [rows, 16] whole                      state [rows]

The numbers of row-wise Adagrad are sums over the steps of the mean squared gradient over the shard's columns. So the
number of a wider shard is the mean of those of its parts, weighted by their columns: exactly what it would have summed
up of the same gradients. A narrower shard takes the number of the shard that it was cut from, since what belonged to
its own columns is not known any more.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata

from recd_dist.checkpoint.staging import parts_of

Blocks = tuple[tuple[int, int], ...]
"""The columns of a table's shards, as (first column, number of columns), in order."""

_TABLE = re.compile(r"model/(.*\.)?tables\.[^./]+\.weight\Z")


def current_blocks(tensors: Mapping[str, Any]) -> dict[str, Blocks]:
    """For each table's weight of this run the columns of its shards; a data-parallel table is in one piece."""
    blocks = {}
    for name, value in tensors.items():
        if name.startswith("model/") and hasattr(value, "local_shards"):
            blocks[name] = _blocks((s.shard_offsets, s.shard_sizes) for s in value.metadata().shards_metadata)
        elif _TABLE.match(name):
            blocks[name] = _blocks([((0, 0), value.size())])
    return blocks


def stored_blocks(metadata: Metadata) -> dict[str, Blocks]:
    """For each weight of a checkpoint the columns of its shards."""
    return {
        name: _blocks((c.offsets, c.sizes) for c in value.chunks)
        for name, value in metadata.state_dict_metadata.items()
        if name.startswith("model/") and isinstance(value, TensorStorageMetadata)
    }


def _blocks(rectangles: Iterable[tuple[Any, Any]]) -> Blocks:
    return tuple(sorted({(int(o[1]), int(s[1])) for o, s in rectangles if len(o) == 2}))


def weight_of(state: str, weights: Iterable[str]) -> str | None:
    """The weight to which an optimizer state belongs; None where there is none among these.

    Args:
        state: such as ``optimizer/tables.embeddings.tables.item.weight/item.momentum1``.
        weights: such as ``model/embeddings.tables.item.weight``.
    """
    if not state.startswith("optimizer/"):
        return None
    parameter = state.split("/")[1]
    return next((w for w in weights if f".{parameter}".endswith(f".{w.removeprefix('model/')}")), None)


def shape_of_rows(shape: tuple[int, ...], blocks: Blocks) -> tuple[int, ...]:
    """The shape that a state with a number a row would have if the table were whole; other shapes stay as they are."""
    return (shape[0] // len(blocks),) if len(shape) == 1 and len(blocks) > 1 else shape


def states_to_convert(
    metadata: Metadata, tensors: Mapping[str, Any], was: Mapping[str, Blocks], now: Mapping[str, Blocks]
) -> dict[str, Tensor]:
    """Room for the states of this rank with a number a row, whose table is split by columns, here or there.

    Args:
        metadata: that of the checkpoint.
        tensors: the tensors of this run.
        was: for each weight in the checkpoint the columns of its shards.
        now: the same of this run.

    Returns:
        For each such state a tensor of the size that it has in the checkpoint.
    """
    room = {}
    for name, value in tensors.items():
        weight = weight_of(name, now)
        if weight is None or len(value.size()) != 1 or len(was[weight]) == len(now[weight]) == 1:
            continue
        stored: Any = metadata.state_dict_metadata[name]
        if (was[weight], stored.size) != (now[weight], value.size()):
            room[name] = torch.empty(stored.size, dtype=stored.properties.dtype)
    return room


def convert_states(
    stored: Mapping[str, Tensor], tensors: Mapping[str, Any], was: Mapping[str, Blocks], now: Mapping[str, Blocks]
) -> None:
    """Fills the states of this rank from those that were read; rows that the checkpoint does not have stay as they are.

    Args:
        stored: the states of ``states_to_convert``, as they are in the checkpoint.
        tensors: the tensors of this run.
        was: for each weight in the checkpoint the columns of its shards.
        now: the same of this run.
    """
    for name, value in stored.items():
        if weight := weight_of(name, now):
            _convert_rows(value, was[weight], tensors[name], now[weight])


def _convert_rows(stored: Tensor, was: Blocks, state: Any, now: Blocks) -> None:
    """Fills the parts [rows] of a state [rows * number of ``now``] from [rows * number of ``was``]."""
    by_block = stored.view(len(was), -1)
    num_rows, num_now = by_block.shape[1], state.size()[0] // len(now)
    for (offset,), tensor in parts_of(state):
        size = tensor.shape[0]
        first, width = now[offset // num_now]
        row = offset % num_now
        rows = slice(row, min(row + size, num_rows))
        if rows.start >= num_rows:
            continue
        parts = [(by_block[n], max(0, min(first + width, f + w) - max(first, f))) for n, (f, w) in enumerate(was)]
        mean = sum((part[rows] * (shared / width) for part, shared in parts if shared), torch.zeros(()))
        tensor[: rows.stop - rows.start].copy_(mean)
