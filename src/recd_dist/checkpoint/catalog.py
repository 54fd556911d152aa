"""Which checkpoints a directory holds, and what each says of itself and of its files. Loads no torch.

::

    RUN/checkpoints/step-00000100/checkpoint.json   written last: where it stands, the checkpoint is whole
                    step-00000200/...
                    latest                          the name of the newest one, moved after that one is whole

The directory is a local one or lies in a store, where nothing can be renamed: there a checkpoint is whole once its
checkpoint.json is there, and loses that file first when it is removed.
"""

import json
import logging
import re
import shutil
import zlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recd_dist.errors import DataError
from recd_dist.files.json_text import json_text
from recd_dist.table.location import (
    Location,
    contents,
    directories,
    file_sizes,
    is_remote,
    listing,
    put,
    report_store_errors,
)
from recd_dist.table.schema import Schema

logger = logging.getLogger(__name__)

FORMAT, VERSION = "recd_dist.checkpoint", 1

DESCRIPTION = "checkpoint.json"
METADATA = ".metadata"
LATEST = "latest"
"""A file beside the checkpoints with the name of the newest one, for people and for tools."""

_STEP = re.compile(r"step-(\d{8,})\Z")
_OWN_CRC = "crc32"
_BLOCK_BYTES = 1 << 22


@dataclass(frozen=True)
class StoredPart:
    """What a file of a checkpoint held when it was written.

    Attributes:
        num_bytes: its size.
        crc32: the checksum of its bytes, as zlib counts it.
    """

    num_bytes: int
    crc32: int


@dataclass(frozen=True)
class Checkpoint:
    """What ``checkpoint.json`` says.

    Attributes:
        path: the checkpoint's directory.
        step: the number of optimizer steps that were done.
        world_size: the number of ranks that wrote it.
        schema: the features and labels that the model was trained on.
        extra: further values of the run, JSON-ready (reader position, config, transforms, ...).
        files: by name the other files; empty where an earlier release wrote it, which kept no checksums.
        written: when, for how long and by which versions it was written; empty as above.
    """

    path: Location
    step: int
    world_size: int
    schema: Schema
    extra: dict[str, Any]
    files: Mapping[str, StoredPart]
    written: Mapping[str, Any]


def step_name(step: int) -> str:
    """The name of a checkpoint's directory."""
    return f"step-{step:08d}"


def list_steps(directory: Location) -> list[Location]:
    """The directories that have a checkpoint's name, oldest first, whole or not."""
    steps = {int(m[1]): name for name in directories(directory) if (m := _STEP.match(name))}
    return [directory / steps[step] for step in sorted(steps)]


def list_whole(directory: Location) -> list[Location]:
    """The whole checkpoints of a directory, oldest first; none where there is no directory.

    Raises:
        StoreError: the store cannot be reached.
    """
    if is_remote(directory):
        files = set(listing(directory))
        names = {name.partition("/")[0] for name in files if "/" in name}
    else:
        names = set(directories(directory))
        files = {f"{n}/{f}" for n in names for f in (DESCRIPTION, METADATA) if (directory / n / f).is_file()}
    steps = {int(m[1]): name for name in names if (m := _STEP.match(name))}
    whole = (steps[s] for s in sorted(steps) if files >= {f"{steps[s]}/{f}" for f in (DESCRIPTION, METADATA)})
    return [directory / name for name in whole]


def find_newest(directory: Location) -> Location | None:
    """Finds the whole checkpoint of the highest step; None when there is no whole checkpoint.

    Args:
        directory: ``RUN/checkpoints``; it may be absent.
    """
    whole = list_whole(directory)
    return whole[-1] if whole else None


def read_description(path: Location) -> Checkpoint:
    """Reads ``checkpoint.json``, which is enough to build the model before its weights are loaded.

    Args:
        path: a checkpoint's directory, ``.../step-00000100``.

    Raises:
        DataError: there is no checkpoint, it is damaged, or this release cannot read it.
    """
    file = path / DESCRIPTION
    try:
        value = json.loads(contents(file))
        if value["format"] != FORMAT or value["version"] != VERSION:
            raise DataError(
                f"{file}: {value['format']} version {value['version']}, this release reads {FORMAT} version {VERSION}; "
                "use the release that wrote it"
            )
        if _OWN_CRC in value and value[_OWN_CRC] != _crc_of(value):
            raise DataError(f"{file}: damaged, its checksum is another one; use an older checkpoint")
        schema = Schema.from_json(value["schema"])
        files = {name: StoredPart(size, crc) for name, (size, crc) in value.get("files", {}).items()}
        return Checkpoint(
            path, value["step"], value["world_size"], schema, value["extra"], files, value.get("written", {})
        )
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"{path}: no whole checkpoint here ({error.strerror}: {DESCRIPTION})") from error
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{file}: not a checkpoint's description ({error!r}); use an older checkpoint") from error


def description_text(header: Mapping[str, Any]) -> str:
    """The text of ``checkpoint.json``, with a checksum of itself at its end.

    Args:
        header: all that it shall say.
    """
    plain = json.loads(json_text(header))
    return json_text({**plain, _OWN_CRC: _crc_of(plain)})


def _crc_of(header: Mapping[str, Any]) -> int:
    rest = {key: value for key, value in header.items() if key != _OWN_CRC}
    return zlib.crc32(json_text(rest, indent=None).encode())


def find_wrong_size(path: Location, files: Mapping[str, StoredPart]) -> str | None:
    """The first file that is missing or has another size than when it was written, in words; None where all fit.

    Raises:
        StoreError: the store cannot be reached.
    """
    there = file_sizes(path, files)
    for name, part in files.items():
        if name not in there:
            return f"{name} is missing"
        if there[name] != part.num_bytes:
            return f"{name} has {there[name]:,} bytes, {part.num_bytes:,} were written"
    return None


def find_wrong_content(path: Location, files: Mapping[str, StoredPart], names: Iterable[str]) -> str | None:
    """The first of some files whose bytes are not those that were written, in words; None where all are.

    Args:
        path: the checkpoint's directory.
        files: what was written.
        names: the files to read, each once from its beginning to its end.

    Raises:
        StoreError: the store cannot be reached.
    """
    for name in names:
        try:
            crc = _crc_of_file(path / name)
        except FileNotFoundError:
            return f"{name} is missing"
        except OSError as error:
            return f"{name} cannot be read ({error.strerror or error})"
        if crc != files[name].crc32:
            return f"{name} is damaged: its checksum is {crc:08x}, {files[name].crc32:08x} was written"
    return None


def _crc_of_file(path: Location) -> int:
    crc = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            crc = zlib.crc32(block, crc)
    return crc


def read_latest(directory: Location) -> str | None:
    """The name in the file ``latest``; None where there is none that can be read."""
    with suppress(OSError, UnicodeDecodeError):
        name = contents(directory / LATEST).decode().strip()
        return name if _STEP.match(name) else None
    return None


def move_latest(directory: Location, path: Location) -> None:
    """Lets the file ``latest`` name a checkpoint, which must be whole."""
    put(directory / LATEST, f"{path.name}\n".encode())


def remove_checkpoint(path: Location) -> None:
    """Removes a checkpoint; one that is removed halfway is not whole any more."""
    if isinstance(path, Path):
        hidden = path.with_name(f".{path.name}.removed.partial")
        with suppress(OSError):
            path.rename(hidden)
        remove_tree(hidden)
        return
    with report_store_errors(path):
        for file, recursive in ((path / DESCRIPTION, False), (path, True)):
            with suppress(FileNotFoundError):
                path.fs.rm(file.path, recursive=recursive)


def remove_tree(path: Location) -> None:
    """Removes a local directory or a file; in a store, a checkpoint."""
    if not isinstance(path, Path):
        remove_checkpoint(path)
    elif path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def prune(directory: Location, newest: Location, keep: int) -> None:
    """Removes the oldest checkpoints, so that ``keep`` stay; the newest one and those beyond its step are not touched.

    Args:
        directory: where they are.
        newest: the one that was just written. One of a higher step stays: a run that went back is the one that counts.
        keep: how many to keep, at least 1.
    """
    others = [path for path in list_whole(directory) if path.name != newest.name]
    for old in others[: len(others) + 1 - max(keep, 1)]:
        remove_checkpoint(old)


def list_unfinished(directory: Location) -> list[Location]:
    """What killed saves and removals left in a directory."""
    if isinstance(directory, Path):
        return sorted(directory.glob(".step-*.partial"))
    whole = {path.name for path in list_whole(directory)}
    return [directory / n for n in directories(directory) if _STEP.match(n) and n not in whole]


def remove_all(directory: Location) -> None:
    """Removes every checkpoint of a directory, whole or not, and no other files."""
    if isinstance(directory, Path):
        shutil.rmtree(directory, ignore_errors=True)
        return
    for path in (*list_whole(directory), *list_unfinished(directory)):
        remove_checkpoint(path)
    with report_store_errors(directory), suppress(FileNotFoundError):
        directory.fs.rm_file((directory / LATEST).path)
