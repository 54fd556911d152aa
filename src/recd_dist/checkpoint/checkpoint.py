"""Checkpoints: whole or absent, for any world size and any sharding.

::

    RUN/checkpoints/step-00000100/checkpoint.json    step, world size, schema, extra values
                                  .metadata          which tensor lies where (torch.distributed.checkpoint)
                                  __0_0.distcp ...   model and optimizer, a file from each rank
                                  rng-00000.pt ...   random states, a file from each rank
    RUN/checkpoints/.step-00000200.partial           a checkpoint that a rank is writing, or that a killed save left

All ranks write into the hidden directory. At the end rank 0 writes checkpoint.json and renames the directory. Every
function except ``find_newest`` and ``read_description`` is a collective: all ranks call it, and an error on one rank is
raised on all of them.
"""

import json
import logging
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.state_dict_loader import load as dcp_load
from torch.distributed.checkpoint.state_dict_saver import save as dcp_save

from recd_dist.checkpoint.column_shards import (
    Blocks,
    convert_states,
    current_blocks,
    shape_of_rows,
    states_to_convert,
    stored_blocks,
    weight_of,
)
from recd_dist.checkpoint.safe_storage import PortableWriter, SafeReader, TensorsOnlyPlanner, read_metadata
from recd_dist.checkpoint.state import (
    Kind,
    Rename,
    flatten,
    initialize_state,
    require_same_schema,
    require_same_tensors,
    restore_rng,
    rng_state,
)
from recd_dist.errors import DataError, UserError
from recd_dist.files.json_text import json_text
from recd_dist.files.whole_file import flush_directory, flush_file, write_whole
from recd_dist.table.schema import Schema

logger = logging.getLogger(__name__)

FORMAT, VERSION = "recd_dist.checkpoint", 1
_STEP = re.compile(r"step-(\d{8,})\Z")


@dataclass(frozen=True)
class Checkpoint:
    """What ``checkpoint.json`` says.

    Attributes:
        path: the checkpoint's directory.
        step: the number of optimizer steps that were done.
        world_size: the number of ranks that wrote it.
        schema: the features and labels that the model was trained on.
        extra: further values of the run, JSON-ready (reader position, config, transforms, ...).
    """

    path: Path
    step: int
    world_size: int
    schema: Schema
    extra: dict[str, Any]


def find_newest(directory: Path) -> Path | None:
    """Finds the whole checkpoint of the highest step; None when there is no whole checkpoint.

    Args:
        directory: ``RUN/checkpoints``; it may be absent.
    """
    whole = _list_whole(directory)
    return whole[-1] if whole else None


def read_description(path: Path) -> Checkpoint:
    """Reads ``checkpoint.json``, which is enough to build the model before its weights are loaded.

    Args:
        path: a checkpoint's directory, ``.../step-00000100``.

    Raises:
        DataError: there is no checkpoint, or this release cannot read it.
    """
    file = path / "checkpoint.json"
    try:
        value = json.loads(file.read_text())
        if value["format"] != FORMAT or value["version"] != VERSION:
            raise DataError(
                f"{file}: {value['format']} version {value['version']}, this release reads {FORMAT} version {VERSION}; "
                "use the release that wrote it"
            )
        schema = Schema.from_json(value["schema"])
        return Checkpoint(path, value["step"], value["world_size"], schema, value["extra"])
    except OSError as error:
        raise DataError(f"{path}: no whole checkpoint here ({error.strerror}: checkpoint.json)") from error
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise DataError(f"{file}: not a checkpoint's description ({error!r}); use an older checkpoint") from error


def remove_unfinished(directory: Path) -> None:
    """Removes the checkpoints that killed saves left unfinished. Call it at the start, before anything is saved.

    Args:
        directory: ``RUN/checkpoints``; it may be absent.
    """
    for path in sorted(directory.glob(".step-*.partial")) if _rank() == 0 else []:
        logger.info("removing %s: an unfinished checkpoint of an earlier attempt", path)
        shutil.rmtree(path, ignore_errors=True)
    _gather(None)  # no rank continues before they are removed


def save(
    directory: Path,
    step: int,
    model: nn.Module,
    optimizer: Any,
    schema: Schema,
    extra: Mapping[str, Any] | None = None,
    keep: int = 2,
    rename: Rename | None = None,
) -> Path:
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
    partial = directory / f".step-{step:08d}.partial"
    try:
        _all_or_none(lambda: _empty_directory(partial) if _rank() == 0 else None)
        tensors = flatten(model.state_dict(), optimizer.state_dict(), rename or str)
        _dcp_save(tensors, partial)
        _all_or_none(lambda: _finish_rank(partial))
        header = {"format": FORMAT, "version": VERSION, "step": step, "world_size": _world_size()}
        header |= {"schema": schema.to_json(), "extra": dict(extra or {})}
        header |= {"rank_extra": [None] * _world_size()}  # earlier releases refuse a checkpoint without it
        _all_or_none(lambda: _finish(partial, directory / f"step-{step:08d}", header) if _rank() == 0 else None)
    except _SaveError as error:
        if _rank() == 0:
            shutil.rmtree(partial, ignore_errors=True)
        _gather(None)  # no rank continues before the failed save is removed
        raise UserError(
            f"{directory}: the checkpoint of step {step} could not be written ({error}); "
            "free or choose another disk and start the same command again: it resumes from the newest whole checkpoint"
        ) from error
    if _rank() == 0:
        others = [path for path in _list_whole(directory) if path.name != f"step-{step:08d}"]
        for old in others[: len(others) + 1 - max(keep, 1)]:  # a step that is behind others stays: it is what is wanted
            shutil.rmtree(old, ignore_errors=True)
    return directory / f"step-{step:08d}"


def load(
    path: Path,
    model: nn.Module,
    optimizer: Any = None,
    schema: Schema | None = None,
    rename: Rename | None = None,
    new_run: bool = False,
) -> Checkpoint:
    """Loads a checkpoint into a model that is already sharded, at any world size and under any sharding.

    Random states are restored when as many ranks load the checkpoint as wrote it.

    Args:
        path: a checkpoint's directory, ``.../step-00000100``.
        model: the model as in ``save``; its parameters are overwritten.
        optimizer: the optimizer as in ``save``; None loads the weights only (evaluation).
        schema: the features and labels that this run trains on; None skips the comparison.
        rename: maps a parameter's name here to its name in the checkpoint; None keeps the names.
        new_run: begin another run with it. Tables may have more rows than in the checkpoint; these keep the values that
            they have. Random states stay as they are.

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
    grown = {k for k in stored if new_run and (k in now or weight_of(k, now))}
    require_same_tensors(path, stored, current, grown, remedy)
    converted = states_to_convert(metadata, tensors, was, now)
    wanted = {**tensors, **converted}
    try:
        dcp_load(wanted, storage_reader=SafeReader(path), planner=TensorsOnlyPlanner(grown))
    except CheckpointException as error:
        raise DataError(f"{path}: cannot be read ({_first_reason(error)}); use an older checkpoint") from error
    convert_states(converted, tensors, was, now)
    model.load_state_dict(model_state)
    if optimizer is not None:
        optimizer.load_state_dict(optimizer_state)
    if description.world_size == _world_size() and not new_run:
        restore_rng(path / f"rng-{_rank():05d}.pt")
    return description


class _SaveError(Exception):
    """A rank could not write."""


def _rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def _world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def _gather(value: Any) -> list[Any]:
    """Every rank's value, on every rank."""
    values = [value] * _world_size()
    if _world_size() > 1:
        dist.all_gather_object(values, value)
    return values


def _all_or_none(write: Callable[[], Any]) -> None:
    """Calls ``write`` on every rank; when it fails on one rank, all ranks raise _SaveError."""
    failure = None
    try:
        write()
    except (OSError, RuntimeError) as error:  # torch.save raises RuntimeError when the disk is full
        failure = str(error)
    if failures := [f for f in _gather(failure) if f]:
        raise _SaveError(failures[0])


def _dcp_save(tensors: dict[str, Tensor], partial: Path) -> None:
    try:
        dcp_save(tensors, storage_writer=PortableWriter(partial, sync_files=False))  # _finish_rank flushes
    except CheckpointException as error:
        raise _SaveError(_first_reason(error)) from error


def _first_reason(error: CheckpointException) -> str:
    """The first rank's reason, in one line."""
    reason = next(iter(error.failures.values()))[0]
    return (str(reason).splitlines() or [type(reason).__name__])[0]


def _stored_kinds(metadata: Metadata, blocks: Mapping[str, Blocks], with_optimizer: bool) -> dict[str, Kind]:
    stored: Mapping[str, Any] = metadata.state_dict_metadata
    wanted = {k: v for k, v in stored.items() if with_optimizer or k.startswith("model/")}
    pickled = Kind((), torch.uint8)  # it is refused when it is read
    return {
        k: _kind(k, v.size, v.properties.dtype, blocks) if hasattr(v, "size") else pickled for k, v in wanted.items()
    }


def _current_kinds(tensors: Mapping[str, Tensor], blocks: Mapping[str, Blocks]) -> dict[str, Kind]:
    """Those of all ranks' tensors: with table-wise sharding a rank may not know the optimizer state of the others."""
    kinds: dict[str, Kind] = {}
    for part in _gather({k: _kind(k, v.size(), v.dtype, blocks) for k, v in tensors.items()}):
        kinds |= part
    return kinds


def _kind(name: str, shape: Iterable[int], dtype: torch.dtype, blocks: Mapping[str, Blocks]) -> Kind:
    """Shape and dtype; of a state with a number a row as if its table were not split by columns."""
    weight = weight_of(name, blocks)
    return Kind(shape_of_rows(tuple(shape), blocks[weight]) if weight else tuple(shape), dtype)


def _empty_directory(partial: Path) -> None:
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)


def _finish_rank(partial: Path) -> None:
    """Writes this rank's random states, and flushes all files that this rank has written."""
    states = partial / f"rng-{_rank():05d}.pt"
    torch.save(rng_state(), states)
    for file in (states, *partial.glob(f"__{_rank()}_*.distcp")):
        flush_file(file)


def _finish(partial: Path, final: Path, header: dict[str, Any]) -> None:
    """Writes checkpoint.json and gives the directory its final name."""
    write_whole(partial / "checkpoint.json", json_text(header), durable=True)
    flush_directory(partial)
    if final.exists():  # a run that did not resume saves this step again
        replaced = final.with_name(f".{final.name}.replaced.partial")
        final.rename(replaced)
        partial.rename(final)
        shutil.rmtree(replaced, ignore_errors=True)
    else:
        partial.rename(final)
    flush_directory(final.parent)


def _list_whole(directory: Path) -> list[Path]:
    """The whole checkpoints, oldest first."""
    if not directory.is_dir():
        return []
    steps = {int(m[1]): p for p in directory.iterdir() if (m := _STEP.match(p.name))}
    return [steps[s] for s in sorted(steps) if all((steps[s] / f).is_file() for f in ("checkpoint.json", ".metadata"))]
