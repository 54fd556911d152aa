"""Checkpoints: whole or absent, for any world size and any sharding.

::

    RUN/checkpoints/step-00000100/checkpoint.json    step, world size, schema, checksums, extra values
                                  .metadata          which tensor lies where (torch.distributed.checkpoint)
                                  __0_0.distcp ...   model and optimizer, a file from each rank
                                  rng-00000.pt ...   random states, a file from each rank
    RUN/checkpoints/latest                           the name of the newest one
    RUN/checkpoints/.step-00000200.partial           a checkpoint that is being written, or that a killed save left

All ranks write into the hidden directory. At the end rank 0 writes checkpoint.json and renames the directory. Every
function except ``find_newest`` and ``read_description`` is a collective: all ranks call it, and an error on one rank is
raised on all of them. ``saver.py`` writes while training goes on.
"""

import time
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.state_dict_loader import load as dcp_load

from recd_dist.checkpoint.agreement import gather, rank, world_size
from recd_dist.checkpoint.catalog import Checkpoint, find_newest, read_description
from recd_dist.checkpoint.column_shards import (
    Blocks,
    convert_states,
    current_blocks,
    shape_of_rows,
    states_to_convert,
    stored_blocks,
    weight_of,
)
from recd_dist.checkpoint.replicated_states import fill_from_old, old_names, room_for_old, shared_name
from recd_dist.checkpoint.safe_storage import SafeReader, TensorsOnlyPlanner, read_metadata
from recd_dist.checkpoint.soundness import find_sound
from recd_dist.checkpoint.state import (
    Kind,
    Rename,
    flatten,
    initialize_state,
    require_same_schema,
    require_same_tensors,
    restore_rng,
    rng_state,
    set_num_steps,
)
from recd_dist.checkpoint.writing import Draft, first_reason, remove_unfinished, write
from recd_dist.errors import DataError
from recd_dist.table.location import Location
from recd_dist.table.schema import Schema

__all__ = ["Checkpoint", "find_newest", "find_sound", "load", "read_description", "remove_unfinished", "save"]


def save(
    directory: Location,
    step: int,
    model: nn.Module,
    optimizer: Any,
    schema: Schema,
    extra: Mapping[str, Any] | None = None,
    keep: int = 2,
    rename: Rename | None = None,
) -> Location:
    """Writes model, optimizer, random states and extra values, then removes all but the newest ``keep`` checkpoints.

    Args:
        directory: ``RUN/checkpoints``, which all ranks see; it is made if absent.
        step: the number of optimizer steps done, at least 1 (before that the dense optimizer has no state to save).
        model: a DistributedModelParallel, or any module.
        optimizer: the KeyedOptimizer of the whole model (a CombinedOptimizer of fused and dense optimizers).
        schema: the features and labels that the model was trained on.
        extra: further values to keep, JSON-ready; those of rank 0 are written.
        keep: how many whole checkpoints to keep, at least 1.
        rename: maps a parameter's name here to its name in the checkpoint; None keeps the names.

    Returns:
        The finished checkpoint's directory.

    Raises:
        UserError: the disk is full or not writable; older checkpoints are untouched.
    """
    tensors = flatten(model.state_dict(), optimizer.state_dict(), rename or str)
    return write(Draft(directory, step, tensors, rng_state(), schema, dict(extra or {}), keep, time.time()))


def load(
    path: Location,
    model: nn.Module,
    optimizer: Any = None,
    schema: Schema | None = None,
    rename: Rename | None = None,
    new_run: bool = False,
    may_grow: bool = False,
) -> Checkpoint:
    """Loads a checkpoint into a model that is already sharded, at any world size and under any sharding.

    Random states are restored when as many ranks load the checkpoint as wrote it.

    Args:
        path: a checkpoint's directory, ``.../step-00000100``.
        model: the model as in ``save``; its parameters are overwritten.
        optimizer: the optimizer as in ``save``; None loads the weights only (evaluation).
        schema: the features and labels that this run trains on; None skips the comparison.
        rename: maps a parameter's name here to its name in the checkpoint; None keeps the names.
        new_run: begin another run with it: random states stay as they are.
        may_grow: tables may have more rows than in the checkpoint; these keep the values that they have.

    Raises:
        DataError: the checkpoint is of another schema, model or optimizer, or it is damaged or foreign; the message
            names what differs.
    """
    description = read_description(path)
    remedy = "train without run_from" if new_run else "start a new run directory"
    if schema is not None:
        require_same_schema(path, description.schema, schema, remedy)
    model_state = model.state_dict()
    optimizer_state: dict[str, Any] = {}
    if optimizer is not None:
        initialize_state(optimizer)
        optimizer_state = optimizer.state_dict()
    tensors = flatten(model_state, optimizer_state, rename or str)
    metadata = read_metadata(path)
    was, now = stored_blocks(metadata), current_blocks(tensors)
    stored, current = _stored_kinds(metadata, was, optimizer is not None), _current_kinds(tensors, now)
    grown = {k for k in stored if may_grow and (k in now or weight_of(k, now))}
    require_same_tensors(path, stored, current, grown, remedy)
    old = old_names(metadata)
    renamed = room_for_old(metadata, tensors, old)
    converted = states_to_convert(metadata, {k: v for k, v in tensors.items() if k not in old}, was, now)
    wanted = {**{k: v for k, v in tensors.items() if k not in old}, **converted}
    wanted |= {old[name]: room for name, room in renamed.items()}
    try:
        dcp_load(wanted, storage_reader=SafeReader(path), planner=TensorsOnlyPlanner(grown))
    except CheckpointException as error:
        raise DataError(f"{path}: cannot be read ({first_reason(error)}); use an older checkpoint") from error
    convert_states(converted, tensors, was, now)
    fill_from_old(renamed, tensors, was, now)
    model.load_state_dict(model_state)
    if optimizer is not None:
        set_num_steps(optimizer_state, rename or str, description.step)
        optimizer.load_state_dict(optimizer_state)
    if description.world_size == world_size() and not new_run:
        restore_rng(path / f"rng-{rank():05d}.pt")
    return description


def _stored_kinds(metadata: Metadata, blocks: Mapping[str, Blocks], with_optimizer: bool) -> dict[str, Kind]:
    """Those of a checkpoint's tensors, by their names today."""
    stored: Mapping[str, Any] = metadata.state_dict_metadata
    kinds = {}
    for old, value in stored.items():
        name = shared_name(old)
        if name is None or not (with_optimizer or name.startswith("model/")):
            continue
        if not hasattr(value, "size"):
            kinds[name] = Kind((), torch.uint8)  # it is pickled, and refused when it is read
            continue
        shape = value.size[:1] if name != old and value.size[1:] == (1,) else value.size
        kinds[name] = _kind(name, shape, value.properties.dtype, blocks)
    return kinds


def _current_kinds(tensors: Mapping[str, Tensor], blocks: Mapping[str, Blocks]) -> dict[str, Kind]:
    """Those of all ranks' tensors: with table-wise sharding a rank may not know the optimizer state of the others."""
    kinds: dict[str, Kind] = {}
    for part in gather({k: _kind(k, v.size(), v.dtype, blocks) for k, v in tensors.items()}):
        kinds |= part
    return kinds


def _kind(name: str, shape: Iterable[int], dtype: torch.dtype, blocks: Mapping[str, Blocks]) -> Kind:
    """Shape and dtype; of a state with a number a row as if its table were not split by columns."""
    weight = weight_of(name, blocks)
    return Kind(shape_of_rows(tuple(shape), blocks[weight]) if weight else tuple(shape), dtype)
