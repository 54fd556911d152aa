"""Uploads a finished table to a store: data first, manifests last.

::

    built/test/samples/part-00007.parquet  --1 upload.json says what is being uploaded
    built/train/user/part-00007.parquet      2 data files, several at once, under their final names
    built/train/...                          3 one listing gives the sizes of all of them
                                             4 manifests, that of train last
                                             5 files that no manifest names any more are deleted, upload.json last

So a table is whole or absent: when an upload dies before step 4, nothing is visible, since a data file without a
manifest is no table. The next upload reads ``upload.json``, and uploads what is missing or differs from the plan. No
name of a data file is ever given twice (``first_part``), so that readers of the old table find their files until its
manifest is replaced. Only one process may publish to a target at a time.
"""

import logging
import re
import zlib
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from recd_dist.errors import DataError
from recd_dist.etl.place.upload_state import DATA, PLAN, BuiltTables, TargetState
from recd_dist.table.location import Location, StoreError, contents, listing, put, report_store_errors
from recd_dist.table.manifest import NAME, Manifest, splits_of

if TYPE_CHECKING:
    from upath import UPath

logger = logging.getLogger(__name__)

_NUM_THREADS = 8
_MEMORY_BYTES = 256 << 20
"""Libraries of stores hold a file in memory while they send it (s3fs: up to 100 MB, or pieces of 50 MB)."""


def first_part(target: Location) -> int:
    """The number that the first part must have of a table that is to replace the one at a target.

    Args:
        target: directory of the splits, local or in a store.

    Returns:
        The largest ``next_part`` of the splits that stand there, and 0 where there are none. Files that an interrupted
        upload has left do not count, so that the same build gets the same names and is not uploaded twice.
    """
    numbers = [0]
    for split in splits_of(target):
        try:
            numbers.append(Manifest.load(target / split).next_part)
        except StoreError:
            raise
        except DataError:  # the manifest is of another release, perhaps: its files still must not be overwritten
            names = (path.name for path in (target / split).glob("*/part-*"))
            numbers += [int(match[1]) + 1 for name in names if (match := re.match(r"part-(\d+)", name))]
    return max(numbers)


def check_store_free(target: "UPath", overwrite: bool) -> None:
    """Refuses a target that holds something else; to be called before a table is built, too.

    Args:
        target: directory of the splits.
        overwrite: a table there may be replaced.

    Raises:
        DataError: the message says what is there, and what to do.
    """
    _check_free(target, TargetState.of(target), overwrite)


def check_notes(target: "UPath") -> None:
    """Refuses a table whose notes (sketches, statistics) are those of another table.

    To be called before the notes are read for an append. Their names stay the same, so that for a moment of an upload
    they are newer than the manifest beside them. Where the upload only adds to the table, they then say more than the
    table holds, which does no harm. Where it replaces the table, they are wrong.

    Args:
        target: directory of the splits.

    Raises:
        DataError: an upload that replaces the table was interrupted in that moment.
    """
    there = TargetState.of(target)
    for split, files in there.standing.items():
        if split in there.finished or files.keys() <= there.planned.keys():
            continue
        for path, (size, crc) in there.notes.items():
            is_there = path.startswith(f"{split}/") and there.sizes.get(path) == size
            if is_there and zlib.crc32(contents(target / path)) == crc:
                raise DataError(
                    f"{target}: its replacement was interrupted; finish it by the command that began it, or make the "
                    "table anew with overwrite=true"
                )


def publish(
    built: Path, target: "UPath", overwrite: bool = False, progress: Callable[[int], None] | None = None
) -> None:
    """Uploads the splits of a table and makes them visible, or goes on with an upload of them that was interrupted.

    Files that a manifest names and ``built`` lacks must be in the table at the target (after an append or compaction).

    Args:
        built: local directory of the finished splits, with ``train/manifest.json`` and so on; it is left as it is.
        target: directory of the splits in a store.
        overwrite: replace the table that stands there.
        progress: called with the number of bytes of each file that has arrived.

    Raises:
        StoreError: the store gave up. Nothing is visible then, or the old table still is; ``built`` is worth keeping.
        DataError: something else is at the target, or a file does not fit its manifest.
    """
    tables, there = BuiltTables.of(built), TargetState.of(target)
    _check_free(target, there, overwrite)
    _check_names(tables, there, target)
    done = {path for path, entry in tables.files.items() if there.holds(path, entry)}
    # A file with the name of a planned one and other bytes must go before the plan says that it is right.
    used = done | {path for files in there.standing.values() for path in files}
    _delete(target, (path for path in there.sizes if DATA.fullmatch(path) and path not in used))
    put(target / PLAN, tables.plan())
    _upload(tables, target, done, progress)
    _check_sizes(tables.sizes, target)
    for split in tables.splits:
        put(target / split / NAME, tables.manifests[split])
    _remove_old(tables, there, target)


def _check_free(target: "UPath", there: TargetState, overwrite: bool) -> None:
    if there.sizes and not there.standing and not there.is_planned:
        first = min(there.sizes)
        raise DataError(
            f"{target}: something else than a clustered table is there ({first}); choose another directory, or "
            "remove it if it is what is left of a table"
        )
    is_begun = there.finished == there.standing.keys() < there.splits  # by an upload that had nothing to replace
    if there.standing and not overwrite and not is_begun:
        raise DataError(f"{target}: a table is already there; overwrite=true replaces it, or choose another directory")


def _check_names(tables: BuiltTables, there: TargetState, target: "UPath") -> None:
    """Refuses tables that would overwrite a file of the standing table, or that lack a file."""
    standing = {path: entry for files in there.standing.values() for path, entry in files.items()}
    for path, entry in tables.files.items():
        if path in standing and standing[path] != entry:
            raise DataError(
                f"{target / path}: the table that stands there has another file of this name; number the parts from "
                f"{first_part(target)} (recd_dist.etl.place.publish.first_part)"
            )
        local = tables.built / path
        size = local.stat().st_size if local.is_file() else None
        if size is None and not there.holds(path, entry):
            raise DataError(
                f"{path}: the manifest names it, but it is neither in {tables.built} nor at {target}; make the table "
                "again"
            )
        if size not in (None, entry.num_bytes):
            raise DataError(f"{local}: {size} bytes, written were {entry.num_bytes}; make the table again")


def _upload(tables: BuiltTables, target: "UPath", done: set[str], progress: Callable[[int], None] | None) -> None:
    """Uploads the files that are not there yet, data files first, several at once.

    Args:
        tables: the tables to upload.
        target: directory of the splits in a store.
        done: relative paths of the files that are there.
        progress: called with the number of bytes of each file that has arrived.
    """
    sizes = {path: size for path, size in tables.sizes.items() if path not in done}
    logger.info(
        "%s: uploading %d files, %.1f MB%s",
        target,
        len(sizes),
        sum(sizes.values()) / 1e6,
        f"; {len(done)} are there already" if done else "",
    )

    def send(path: str) -> None:
        with report_store_errors(target / path):
            target.fs.put_file(str(tables.built / path), (target / path).path)
        if progress is not None:
            progress(sizes[path])

    num_threads = min(_NUM_THREADS, max(1, _MEMORY_BYTES // max(1, *sizes.values(), 1)))
    _run_in_threads(send, (path for path in sizes if path in tables.files), num_threads)
    _run_in_threads(send, (path for path in sizes if path not in tables.files), num_threads)


def _run_in_threads(work: Callable[[str], None], paths: Iterable[str], num_threads: int = _NUM_THREADS) -> None:
    """Does the work for each path in a few threads; after the first error no thread begins another path."""
    with ThreadPoolExecutor(num_threads, thread_name_prefix="recd-upload") as pool:
        try:
            for _ in pool.map(work, paths):
                pass
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _check_sizes(sizes: Mapping[str, int], target: "UPath") -> None:
    """Makes sure that every file has arrived whole, before a manifest says so."""
    there = listing(target)
    for path, size in sizes.items():
        if there.get(path) != size:
            what = f"{there[path]} bytes arrived" if path in there else "not there"
            raise StoreError(f"{target / path}: {size} bytes were uploaded, {what}; publish again")


def _remove_old(tables: BuiltTables, there: TargetState, target: "UPath") -> None:
    """Removes splits that are no more, files that no manifest names, and the plan; the new tables stand already."""
    splits = [f"{split}/{NAME}" for split in there.standing if split not in tables.manifests]
    files = [path for path in there.sizes if DATA.fullmatch(path) and path not in tables.sizes]
    try:
        for paths in (splits, files, [PLAN]):
            _delete(target, paths)
    except DataError as error:
        logger.warning("%s: the new table stands, but files of the old one could not be removed: %s", target, error)


def _delete(target: "UPath", paths: Iterable[str]) -> None:
    """Deletes files at the target; one that is not there is no error."""

    def remove(path: str) -> None:
        try:
            with report_store_errors(target / path):
                target.fs.rm_file((target / path).path)
        except FileNotFoundError:
            pass

    _run_in_threads(remove, paths)
