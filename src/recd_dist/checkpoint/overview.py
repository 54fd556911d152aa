"""What checkpoints hold, for people: a line each, or all tensors of one. Loads no torch until tensors are asked for."""

from collections.abc import Iterator
from typing import Any

from recd_dist.checkpoint.catalog import (
    DESCRIPTION,
    METADATA,
    Checkpoint,
    find_wrong_size,
    list_steps,
    list_unfinished,
    read_description,
    read_latest,
)
from recd_dist.errors import DataError
from recd_dist.table.location import Location, StoreError, file_size, file_sizes

QUALITY = "quality"
"""Key of a checkpoint's extra values under which the numbers of its evaluation stand."""


def list_checkpoints(directory: Location) -> list[dict[str, Any]]:
    """A line for each checkpoint of a directory, also for those that are not whole, oldest first.

    Args:
        directory: where checkpoints are; it may be absent.

    Returns:
        For each its path, step, time, bytes, world_size, state (``whole``, or what is wrong, sizes alone being
        compared), whether ``latest`` names it, and the quality that was measured with it, if any.

    Raises:
        StoreError: the store cannot be reached.
    """
    latest = read_latest(directory)
    lines = [{**_line(path), "latest": path.name == latest} for path in list_steps(directory)]
    for path in list_unfinished(directory):
        if path.name.startswith("."):
            lines.append({**_EMPTY, "path": str(path), "state": "unfinished: being written, or left by a killed save"})
    return lines


_EMPTY = {
    "path": "", "step": None, "time": None, "bytes": None, "world_size": None, "state": "", "latest": False,
    "quality": None,
}  # fmt: skip


def _line(path: Location) -> dict[str, Any]:
    for name in (DESCRIPTION, METADATA):
        if file_size(path / name) is None:
            return {**_EMPTY, "path": str(path), "state": f"not whole: {name} is missing"}
    try:
        found = read_description(path)
    except StoreError:
        raise
    except DataError as error:
        return {**_EMPTY, "path": str(path), "state": str(error).removeprefix(f"{path}/")}
    return {
        "path": str(path),
        "step": found.step,
        "time": found.written.get("time"),
        "bytes": bytes_of(found),
        "world_size": found.world_size,
        "state": find_wrong_size(path, found.files) or "whole",
        "quality": found.extra.get(QUALITY),
    }


def bytes_of(found: Checkpoint) -> int | None:
    """Bytes of a checkpoint's files; None where an earlier release wrote it, which kept no sizes."""
    return sum(part.num_bytes for part in found.files.values()) if found.files else None


def describe(path: Location) -> dict[str, Any]:
    """All that a checkpoint says of itself, JSON-ready, but for the values of its tensors.

    Args:
        path: a checkpoint's directory.

    Raises:
        DataError: it cannot be read.
    """
    found = read_description(path)
    files = {name: part.num_bytes for name, part in found.files.items()}
    return {
        "path": str(path),
        "step": found.step,
        "world_size": found.world_size,
        **found.written,
        "bytes": bytes_of(found),
        "files": files or file_sizes(path, (DESCRIPTION, METADATA)),
        "labels": list(found.schema.labels),
        "features": [feature.name for feature in found.schema.features],
        "tensors": list(_tensors(path)),
        "extra": found.extra,
    }


def _tensors(path: Location) -> Iterator[dict[str, Any]]:
    from recd_dist.checkpoint.safe_storage import read_metadata

    known: dict[str, Any] = read_metadata(path).state_dict_metadata
    for name, value in sorted(known.items()):
        if not hasattr(value, "chunks"):
            continue
        dtype = str(value.properties.dtype).removeprefix("torch.")
        yield {"name": name, "shape": list(value.size), "dtype": dtype, "parts": len(value.chunks)}
