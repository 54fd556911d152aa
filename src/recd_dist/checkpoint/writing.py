"""One checkpoint on its way to disk or into a store: every rank writes its part, rank 0 makes it whole.

Nothing here looks at the model: the tensors may be copies that were made some steps ago, and the process group one of
its own, so that training goes on meanwhile. Every function is a collective.
"""

import io
import logging
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import torchrec
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict_saver import save as dcp_save

import recd_dist
from recd_dist.checkpoint.agreement import Group, SaveError, all_or_none, gather, rank, world_size
from recd_dist.checkpoint.catalog import (
    DESCRIPTION,
    FORMAT,
    VERSION,
    StoredPart,
    description_text,
    list_unfinished,
    move_latest,
    prune,
    remove_tree,
    step_name,
)
from recd_dist.checkpoint.safe_storage import PortableWriter
from recd_dist.checkpoint.staging import StagedPlanner
from recd_dist.errors import UserError
from recd_dist.files.whole_file import flush_directory
from recd_dist.table.location import Location, put
from recd_dist.table.schema import Schema

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Draft:
    """All that a rank has to write of one checkpoint.

    Attributes:
        directory: the directory of the checkpoints.
        step: the number of optimizer steps done.
        tensors: by name this rank's part of the state, which nobody changes until it is written.
        random_states: those of this rank.
        schema: the features and labels that the model was trained on.
        extra: further values to keep, JSON-ready; those of rank 0 are written.
        keep: how many whole checkpoints to keep, at least 1.
        started: when the copy was made, in seconds as of ``time.time``.
    """

    directory: Location
    step: int
    tensors: Mapping[str, Any]
    random_states: Mapping[str, Any]
    schema: Schema
    extra: Mapping[str, Any]
    keep: int
    started: float


def write(draft: Draft, group: Group = None) -> Location:
    """Writes a checkpoint, and then removes all but the newest ones.

    Args:
        draft: what to write.
        group: a group of all ranks that nothing else uses meanwhile; None: the default group.

    Returns:
        The finished checkpoint's directory.

    Raises:
        UserError: the disk is full, or disk or store are not writable; older checkpoints are untouched.
    """
    final = draft.directory / step_name(draft.step)
    partial = final.with_name(f".{final.name}.partial") if isinstance(final, Path) else final
    try:
        all_or_none(lambda: _clear(partial) if rank() == 0 else None, group)
        writer = PortableWriter(partial)
        try:
            dcp_save(dict(draft.tensors), storage_writer=writer, planner=StagedPlanner(), process_group=group)
        except CheckpointException as error:
            raise SaveError(first_reason(error)) from error
        parts = all_or_none(lambda: _finish_rank(writer, partial, draft.random_states), group)
        files = {name: part for each in parts for name, part in each.items()}
        all_or_none(lambda: _finish(draft, partial, final, files) if rank() == 0 else None, group)
    except SaveError as error:
        if rank() == 0:
            remove_tree(partial)
        gather(None, group)  # no rank continues before the failed save is removed
        raise UserError(
            f"{draft.directory}: the checkpoint of step {draft.step} could not be written ({error}); "
            "free or choose another disk and start the same command again: it resumes from the newest whole checkpoint"
        ) from error
    return final


def remove_unfinished(directory: Location) -> None:
    """Removes what killed saves left unfinished. Call it at the start, before anything is saved.

    Args:
        directory: ``RUN/checkpoints``; it may be absent.
    """
    for path in list_unfinished(directory) if rank() == 0 else []:
        logger.info("removing %s: an unfinished checkpoint of an earlier attempt", path)
        remove_tree(path)
    gather(None)  # no rank continues before they are removed


def first_reason(error: CheckpointException) -> str:
    """The first rank's reason, in one line."""
    reason = next(iter(error.failures.values()))[0]
    return (str(reason).splitlines() or [type(reason).__name__])[0]


def _clear(partial: Location) -> None:
    """Makes an empty directory; what stands in a store under this name goes, as the step is saved again."""
    remove_tree(partial)
    if isinstance(partial, Path):
        partial.mkdir(parents=True)


def _finish_rank(writer: PortableWriter, partial: Location, states: Mapping[str, Any]) -> dict[str, StoredPart]:
    """Writes this rank's random states; returns all files that this rank has written."""
    data = io.BytesIO()
    torch.save(dict(states), data)
    writer.fs.write(partial / f"rng-{rank():05d}.pt", data.getvalue())
    written: dict[str, StoredPart] = writer.fs.written
    return written


def _finish(draft: Draft, partial: Location, final: Location, files: Mapping[str, StoredPart]) -> None:
    """Writes checkpoint.json, gives the directory its final name, lets ``latest`` name it, and removes older ones."""
    header = {"format": FORMAT, "version": VERSION, "step": draft.step, "world_size": world_size()}
    header |= {"schema": draft.schema.to_json(), "extra": dict(draft.extra)}
    header |= {"rank_extra": [None] * world_size()}  # earlier releases refuse a checkpoint without it
    header |= {"files": {name: [part.num_bytes, part.crc32] for name, part in sorted(files.items())}}
    header |= {"written": _circumstances(draft.started)}
    put(partial / DESCRIPTION, description_text(header).encode())
    if isinstance(partial, Path) and isinstance(final, Path):
        _rename(partial, final)
    move_latest(draft.directory, final)
    prune(draft.directory, final, draft.keep)


def _circumstances(started: float) -> dict[str, Any]:
    versions = {"recd_dist": recd_dist.__version__, "torch": torch.__version__, "torchrec": torchrec.__version__}
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(time.time() - started, 3),
        "versions": {**versions, "python": platform.python_version()},
    }


def _rename(partial: Path, final: Path) -> None:
    """Gives the directory its final name, in place of what has it."""
    flush_directory(partial)
    if final.exists():  # a run that did not resume saves this step again, or a stray file has the name
        replaced = final.with_name(f".{final.name}.replaced.partial")
        final.rename(replaced)
        partial.rename(final)
        remove_tree(replaced)
    else:
        partial.rename(final)
    flush_directory(final.parent)
