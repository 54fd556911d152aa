"""Checkpoints: whole or absent, loadable at another world size and under another sharding.

::

    RUN/checkpoints/step-00000100/checkpoint.json    step, world size, schema, extra, one extra per rank
                                  .metadata          which tensor lies where (torch.distributed.checkpoint)
                                  __0_0.distcp ...   model and optimizer, written by each rank
                                  rng-00000.pt ...   random states of each rank
    RUN/checkpoints/.step-00000200.partial           being written, or left by a killed save: swept at the next start

All ranks write into the hidden directory; rank 0 writes checkpoint.json last and renames. Every function but ``latest``
and ``describe`` is a collective: all ranks call it, and an error on one rank is the same error on all.
"""

import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.state_dict_loader import load as dcp_load
from torch.distributed.checkpoint.state_dict_saver import save as dcp_save

from recd_dist.checkpoint.safe_storage import SafeReader, TensorsOnlyPlanner, read_metadata
from recd_dist.checkpoint.state import (
    Rename,
    Shape,
    flatten,
    initialized,
    require_same_schema,
    require_same_tensors,
    restore_rng,
    rng_state,
)
from recd_dist.errors import DataError, UserError
from recd_dist.table.schema import Schema

logger = logging.getLogger(__name__)

FORMAT, VERSION = "recd_dist.checkpoint", 1
_STEP = re.compile(r"step-(\d{8,})\Z")


@dataclass(frozen=True)
class Checkpoint:
    """What ``checkpoint.json`` says.

    Attributes:
        path: the checkpoint's directory.
        step: optimizer steps done.
        world_size: ranks that wrote it.
        schema: the features and labels it was trained on.
        extra: rank 0's JSON-ready values (epoch, config, transforms, ...).
        rank_extra: one JSON-ready value per rank that wrote it (reader positions).
    """

    path: Path
    step: int
    world_size: int
    schema: Schema
    extra: dict[str, Any]
    rank_extra: tuple[Any, ...]


def latest(directory: Path) -> Path | None:
    """The whole checkpoint of the highest step, or None.

    Args:
        directory: ``RUN/checkpoints``; may be absent.
    """
    whole = _whole(directory)
    return whole[-1] if whole else None


def describe(path: Path) -> Checkpoint:
    """Reads ``checkpoint.json``: enough to build the model before its weights are loaded.

    Args:
        path: ``.../step-00000100``.

    Raises:
        DataError: no checkpoint there, or one that this release cannot read.
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
        return Checkpoint(path, value["step"], value["world_size"], schema, value["extra"], tuple(value["rank_extra"]))
    except OSError as error:
        raise DataError(f"{path}: no whole checkpoint here ({error.strerror}: checkpoint.json)") from error
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise DataError(f"{file}: not a checkpoint's description ({error!r}); use an older checkpoint") from error


def sweep(directory: Path) -> int:
    """Removes what killed saves left; call it once at the start, when nothing is being saved.

    Returns:
        How many were removed.
    """
    left = sorted(directory.glob(".step-*.partial")) if _rank() == 0 else []
    for path in left:
        logger.info("removing %s: an unfinished checkpoint of an earlier attempt", path)
        shutil.rmtree(path, ignore_errors=True)
    _gather(None)
    return len(left)


def save(
    directory: Path,
    step: int,
    model: nn.Module,
    optimizer: Any,
    schema: Schema,
    extra: Mapping[str, Any] | None = None,
    rank_extra: Any = None,
    keep: int = 2,
    rename: Rename | None = None,
) -> Path:
    """Writes model, optimizer, random states and extras, then removes all but the newest ``keep`` checkpoints.

    Args:
        directory: ``RUN/checkpoints``, seen by all ranks; made if absent.
        step: optimizer steps done, at least one (before it the dense optimizer has no state to save).
        model: DistributedModelParallel or any module.
        optimizer: KeyedOptimizer of the whole model (CombinedOptimizer of fused and dense).
        schema: what it was trained on.
        extra: JSON-ready; rank 0's is kept.
        rank_extra: JSON-ready; every rank's is kept.
        keep: whole checkpoints to keep, at least one.
        rename: a parameter's name here -> its name in the checkpoint; None keeps names.

    Returns:
        The finished checkpoint's directory.

    Raises:
        UserError: the disk is full or not writable; older checkpoints are untouched.
    """
    partial = directory / f".step-{step:08d}.partial"
    try:
        _all_or_none(lambda: _empty(partial) if _rank() == 0 else None)
        tensors = flatten(model.state_dict(), optimizer.state_dict(), rename or str)
        _dcp_save(tensors, partial)
        _all_or_none(lambda: torch.save(rng_state(), partial / f"rng-{_rank():05d}.pt"))
        rank_extras = _gather(rank_extra)
        header = {"format": FORMAT, "version": VERSION, "step": step, "world_size": len(rank_extras)}
        header |= {"schema": schema.to_json(), "extra": dict(extra or {}), "rank_extra": rank_extras}
        _all_or_none(lambda: _finish(partial, directory / f"step-{step:08d}", header) if _rank() == 0 else None)
    except _SaveError as error:
        if _rank() == 0:
            shutil.rmtree(partial, ignore_errors=True)
        _gather(None)  # no rank goes on before the failed save is gone
        raise UserError(
            f"{directory}: the checkpoint of step {step} could not be written ({error}); "
            "free or choose another disk and start the same command again: it resumes from the newest whole checkpoint"
        ) from error
    if _rank() == 0:
        for old in _whole(directory)[: -max(keep, 1)]:
            shutil.rmtree(old, ignore_errors=True)
    return directory / f"step-{step:08d}"


def load(
    path: Path,
    model: nn.Module,
    optimizer: Any = None,
    schema: Schema | None = None,
    rename: Rename | None = None,
) -> Checkpoint:
    """Loads a checkpoint into a model that is already sharded, at any world size and sharding.

    Random states are restored when the world size is the one that saved them.

    Args:
        path: ``.../step-00000100``.
        model: as for ``save``; its parameters are overwritten.
        optimizer: as for ``save``; None loads the weights only (evaluation).
        schema: what this run trains on; None skips the comparison.
        rename: as for ``save``.

    Raises:
        DataError: another schema, another model or optimizer, a damaged or foreign checkpoint; names what differs.
    """
    found = describe(path)
    if schema is not None:
        require_same_schema(path, found.schema, schema)
    model_state = model.state_dict()
    optimizer_state = initialized(optimizer).state_dict() if optimizer is not None else {}
    tensors = flatten(model_state, optimizer_state, rename or str)
    require_same_tensors(path, _shapes_there(path, optimizer is not None), _shapes_here(tensors))
    try:
        dcp_load(tensors, storage_reader=SafeReader(path), planner=TensorsOnlyPlanner())
    except CheckpointException as error:
        raise DataError(f"{path}: cannot be read ({_first(error)}); use an older checkpoint") from error
    model.load_state_dict(model_state)
    if optimizer is not None:
        optimizer.load_state_dict(optimizer_state)
    if found.world_size == _world_size():
        restore_rng(path / f"rng-{_rank():05d}.pt")
    return found


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
    """Runs on every rank; one rank's failure is every rank's _SaveError."""
    failure = None
    try:
        write()
    except (OSError, RuntimeError) as error:  # torch.save says RuntimeError when the disk is full
        failure = str(error)
    if failures := [f for f in _gather(failure) if f]:
        raise _SaveError(failures[0])


def _dcp_save(tensors: dict[str, Tensor], partial: Path) -> None:
    try:
        dcp_save(tensors, storage_writer=FileSystemWriter(partial))
    except CheckpointException as error:
        raise _SaveError(_first(error)) from error


def _first(error: CheckpointException) -> str:
    """The first rank's reason, in one line."""
    reason = next(iter(error.failures.values()))[0]
    return (str(reason).splitlines() or [type(reason).__name__])[0]


def _shapes_there(path: Path, with_optimizer: bool) -> dict[str, Shape]:
    stored = read_metadata(path).state_dict_metadata
    return {k: tuple(getattr(v, "size", ())) for k, v in stored.items() if with_optimizer or k.startswith("model/")}


def _shapes_here(tensors: Mapping[str, Tensor]) -> dict[str, Shape]:
    """Of all ranks: with table-wise sharding a rank may not know the others' optimizer state."""
    shapes: dict[str, Shape] = {}
    for part in _gather({k: tuple(v.size()) for k, v in tensors.items()}):
        shapes |= part
    return shapes


def _empty(partial: Path) -> None:
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)


def _finish(partial: Path, final: Path, header: dict[str, Any]) -> None:
    """Writes checkpoint.json and gives the directory its name."""
    with (partial / "checkpoint.json").open("w") as file:
        json.dump(header, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    if final.exists():  # the same step again, saved by a run that did not resume
        replaced = final.with_name(f".{final.name}.replaced.partial")
        final.rename(replaced)
        partial.rename(final)
        shutil.rmtree(replaced, ignore_errors=True)
    else:
        partial.rename(final)
    descriptor = os.open(final.parent, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def _whole(directory: Path) -> list[Path]:
    """Whole checkpoints, oldest first."""
    if not directory.is_dir():
        return []
    steps = {int(m[1]): p for p in directory.iterdir() if (m := _STEP.match(p.name))}
    return [steps[s] for s in sorted(steps) if all((steps[s] / f).is_file() for f in ("checkpoint.json", ".metadata"))]
