"""Whether a checkpoint still is what was written, and which is the newest one that is."""

import logging
from collections.abc import Mapping
from contextlib import suppress

from torch.distributed.checkpoint.metadata import Metadata

from recd_dist.checkpoint.agreement import gather, rank, world_size
from recd_dist.checkpoint.catalog import (
    LATEST,
    find_wrong_content,
    find_wrong_size,
    list_whole,
    read_description,
    read_latest,
)
from recd_dist.checkpoint.safe_storage import read_metadata
from recd_dist.errors import DataError
from recd_dist.screen.numbers import size
from recd_dist.table.location import Location, StoreError, file_sizes, is_remote

logger = logging.getLogger(__name__)

LARGE_BYTES = 4 << 30
"""From so many bytes on reading a checkpoint takes seconds, and is said."""


def find_sound(directory: Location) -> Location | None:
    """Finds the newest checkpoint that is not damaged, and warns of newer ones that are; a collective.

    The ranks share the work: together they read every file once. Of a checkpoint in a store the sizes alone are
    compared, as the store has checksums of its own.

    Args:
        directory: ``RUN/checkpoints``; it may be absent.

    Returns:
        Its directory; None where there is no checkpoint.

    Raises:
        DataError: every checkpoint is damaged; the message names what is wrong with the newest one.
        StoreError: the store cannot be reached.
    """
    found = [path.name for path in list_whole(directory)], read_latest(directory)
    names, latest = gather(found if rank() == 0 else None)[0]
    newest_damage = None
    if latest is not None and latest not in names:
        newest_damage = f"{directory / latest}: not whole any more, and {directory / LATEST} names it"
    for name in reversed(names):
        path = directory / name
        if rank() == 0:
            _say_what_takes_long(path)
        mine = find_damage(path, rank(), world_size(), contents=not is_remote(path))
        damage = next((each for each in gather(mine) if each), None)
        if damage is None:
            if newest_damage and rank() == 0:
                logger.warning("%s; taking %s instead", newest_damage, path)
            return path
        newest_damage = newest_damage or f"{path}: {damage}"
    if newest_damage:
        raise DataError(
            f"{newest_damage}; no older checkpoint is sound either: restore one from a copy, or begin anew with "
            "resume=false"
        )
    return None


def _say_what_takes_long(path: Location) -> None:
    with suppress(DataError):
        num_bytes = sum(part.num_bytes for part in read_description(path).files.values())
        if num_bytes >= LARGE_BYTES and not is_remote(path):
            logger.info("%s: comparing the checksums of %s", path, size(num_bytes))


def require_sound(path: Location) -> None:
    """Refuses a damaged checkpoint; a collective.

    Raises:
        DataError: the message names the file and what is wrong with it.
        StoreError: the store cannot be reached.
    """
    mine = find_damage(path, rank(), world_size(), contents=not is_remote(path))
    if damage := next((each for each in gather(mine) if each), None):
        raise DataError(f"{path}: {damage}; use another checkpoint")


def find_damage(path: Location, part: int = 0, of: int = 1, *, contents: bool = True) -> str | None:
    """What is wrong with a checkpoint, in words; None where nothing is.

    Args:
        path: the checkpoint's directory.
        part: which share of the files to read.
        of: the number of shares.
        contents: read the files and compare their checksums; otherwise sizes alone are compared.

    Raises:
        StoreError: the store cannot be reached.
    """
    try:
        files = read_description(path).files
        metadata = read_metadata(path)
    except StoreError:
        raise
    except DataError as error:
        return str(error).removeprefix(f"{path}: ").removeprefix(f"{path}/")
    wrong = find_wrong_size(path, files) or _find_short(path, metadata)
    if wrong or not contents:
        return wrong
    return find_wrong_content(path, files, sorted(files)[part::of])


def _find_short(path: Location, metadata: Metadata) -> str | None:
    """A file that ends before the tensors in it do; earlier releases wrote no sizes."""
    storage: Mapping[object, object] = metadata.storage_data or {}
    ends: dict[str, int] = {}
    for info in storage.values():
        name = info.relative_path  # type: ignore[attr-defined]
        ends[name] = max(ends.get(name, 0), info.offset + info.length)  # type: ignore[attr-defined]
    sizes = file_sizes(path, ends)
    for name, end in ends.items():
        if sizes.get(name, -1) < end:
            return f"{name} has {sizes[name]:,} bytes, {end:,} are needed" if name in sizes else f"{name} is missing"
    return None
