"""Optimizer states of tables that every rank has a copy of, under the names that sharded tables have.

A sharded table is updated by fbgemm, a data-parallel one by an optimizer of torch, and each has names and shapes of its
own for the same numbers. In a checkpoint they are one::

    fbgemm                  optimizer/tables.embeddings.tables.item.weight/item.momentum1       [rows] or [rows, dim]
    torch                   optimizer/replicated_tables.embeddings.tables.item.weight/sum       [rows, 1] or [rows, dim]
                            optimizer/replicated_tables.embeddings.tables.item.weight/step      not used by either
    in checkpoints          optimizer/tables.embeddings.tables.item.weight/item.momentum1       as fbgemm's

Earlier releases wrote torch's names where a table was data-parallel; these are still read.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.metadata import Metadata

from recd_dist.checkpoint.column_shards import Blocks, convert_states
from recd_dist.checkpoint.staging import parts_of

_REPLICATED, _SHARDED = "optimizer/replicated_tables.", "optimizer/tables."


def shared_name(name: str) -> str | None:
    """The name in checkpoints of a state of a data-parallel table; None where it is not kept.

    Args:
        name: such as ``optimizer/replicated_tables.embeddings.tables.item.weight/sum``; other names stay as they are.
    """
    if not name.startswith(_REPLICATED):
        return name
    parameter, _, state = name.removeprefix(_REPLICATED).rpartition("/")
    if state != "sum":
        return None  # the number of steps, on which neither optimizer depends
    return f"{_SHARDED}{parameter}/{parameter.split('.')[-2]}.momentum1"


def shared_shape(value: Tensor) -> Tensor:
    """A state of a data-parallel table in the shape of fbgemm's, without a copy: [rows, 1] becomes [rows]."""
    return value.view(-1) if value.dim() == 2 and value.shape[1] == 1 else value


def old_names(metadata: Metadata) -> dict[str, str]:
    """For each state that an earlier release wrote under torch's name: its name today -> its name there."""
    known = {name: shared_name(name) for name in metadata.state_dict_metadata}
    return {now: name for name, now in known.items() if now is not None and now != name}


def room_for_old(metadata: Metadata, tensors: Mapping[str, Any], old: Mapping[str, str]) -> dict[str, Tensor]:
    """Room for the states of this rank that stand in the checkpoint under torch's names, by their names today."""
    room = {}
    for now, name in old.items():
        if now in tensors:
            stored: Any = metadata.state_dict_metadata[name]
            room[now] = torch.empty(stored.size, dtype=stored.properties.dtype)
    return room


def fill_from_old(
    room: Mapping[str, Tensor], tensors: Mapping[str, Any], was: Mapping[str, Blocks], now: Mapping[str, Blocks]
) -> None:
    """Fills the states of this rank from those that were read; rows that the checkpoint does not have stay as they are.

    Args:
        room: what ``room_for_old`` returned, filled.
        tensors: the tensors of this run.
        was: for each weight in the checkpoint the columns of its shards.
        now: the same of this run.
    """
    for name, stored in room.items():
        value = tensors[name]
        if len(value.size()) == 1:
            convert_states({name: stored.view(-1)}, {name: value}, was, now)
            continue
        for (row, column), part in parts_of(value):
            wanted = stored[row : row + part.shape[0], column : column + part.shape[1]]
            part[: wanted.shape[0]].copy_(wanted)
