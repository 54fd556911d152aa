"""The directory in which a table is built, and the step that puts it in place.

::

    tables/.mine.partial/    job.json   which table is made of which files; another job begins anew
                             lock       held by the run that is at work
                             runs/ ...  what has been read, and parts/ what has been written: kept until the end
                             table/     train/, test/
    tables/mine/             appears by one rename. Tables that are there are replaced by one exchange, or added to by
                             one new manifest

So a table is whole or absent. Work that a mistake in data or config ends is removed. Work that a kill, Ctrl-C or a lost
machine ends stays, and the next run of the same job goes on with it.
"""

import errno
import fcntl
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from recd_dist.errors import DataError, UserError
from recd_dist.etl.place.publish import check_store_free
from recd_dist.table.location import Location, StoreError
from recd_dist.table.manifest import NAME

logger = logging.getLogger(__name__)

_JOB, _LOCK = "job.json", "lock"


def work_directory(out: Location) -> Path:
    """The directory in which tables are built.

    Args:
        out: directory of the tables, local or in a store.

    Returns:
        A directory beside ``out``, so that the last step is a rename; for a store, one below the current directory.
    """
    if not isinstance(out, Path):
        name = hashlib.sha256(str(out).encode()).hexdigest()[:8]
        return Path(".recd-etl").absolute() / f"{out.name}-{name}"
    out = Path(os.path.abspath(out))  # not resolve(): a link to a large disk stays a link
    return out.parent / f".{out.name}.partial"


def check_free(out: Location, may_exist: bool) -> None:
    """Refuses to write tables where something else lies.

    Args:
        out: directory of the tables.
        may_exist: tables that are there may be replaced or added to.

    Raises:
        DataError: tables are there that must stay, or something that is no table.
    """
    if not isinstance(out, Path):
        check_store_free(out, may_exist)
        return
    if not (out.exists() or out.is_symlink()) or (out.is_dir() and not any(out.iterdir())):
        return
    if not _has_table(out):
        raise DataError(f"{out}: something else than a clustered table is there; choose another output directory")
    if not may_exist:
        raise DataError(
            f"{out}: a table is already there; overwrite=true replaces it, append=true adds to it, or choose another "
            "directory"
        )


def _has_table(out: Path) -> bool:
    """Whether a local directory holds clustered tables, or is one."""
    return (out / NAME).is_file() or any(out.glob(f"*/{NAME}"))


@contextmanager
def hold_work(work: Path, job: Mapping[str, Any]) -> Iterator[bool]:
    """Holds a job's directory of work while a block runs, and removes it unless the block was only stopped.

    Args:
        work: the directory.
        job: what is made, in JSON-ready values. Work of the same job is kept, work of another job is thrown away.

    Yields:
        Whether there is work of this job to go on with.

    Raises:
        DataError: another run holds the directory, it cannot be written, or the disk is full.
    """
    try:
        work.mkdir(parents=True, exist_ok=True)
        with (work / _LOCK).open("w") as lock:
            _lock(lock.fileno(), work)
            going_on = has_work_of(work, job)
            if not going_on:
                _begin(work, job)
            try:
                yield going_on
            except (KeyboardInterrupt, SystemExit, StoreError):
                logger.warning("stopped; the same command goes on from here (work so far: %s)", work)
                raise
            except BaseException:
                _remove(work)
                raise
            _empty(work, but=_JOB)  # if a kill comes now, the next run finds in the table that this job is done
            shutil.rmtree(work, ignore_errors=True)
    except UserError:
        raise
    except OSError as error:
        raise DataError(_reason(work, error)) from error


def check_space(directory: Path, wanted: int) -> None:
    """Refuses to begin work that the disk cannot hold, and warns where it may not.

    Args:
        directory: directory of work, which need not exist yet.
        wanted: bytes that the work is expected to need.

    Raises:
        DataError: less than half of these bytes is free.
    """
    there = directory
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    if free < wanted / 2:
        raise DataError(
            f"{directory}: {_size(free)} are free on this disk, about {_size(wanted)} are needed while the table is "
            "made; free some space, choose a table on another disk, or take fewer files at a time (append=true)"
        )
    if free < wanted:
        logger.warning("%s: %s are free, about %s may be needed", there, _size(free), _size(wanted))


def has_work_of(work: Path, job: Mapping[str, Any]) -> bool:
    """Whether a directory holds work of this very job.

    Args:
        work: the directory, which need not exist.
        job: what is made, in JSON-ready values.
    """
    with suppress(OSError, UnicodeDecodeError):
        return (work / _JOB).read_text() == _text(job)
    return False


def _lock(descriptor: int, work: Path) -> None:
    """Locks the directory of work, and refuses to begin while another run holds it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise DataError(f"{work}: another `recd etl` is making this table; wait for it or stop it") from None


def _begin(work: Path, job: Mapping[str, Any]) -> None:
    """Empties the directory and writes down the job that it is for."""
    if (work / _JOB).exists():
        logger.warning("%s: work of another run or another release is there; it is removed, this run begins anew", work)
    (work / _JOB).unlink(missing_ok=True)  # first, since no run may go on with work that is half removed
    _empty(work, but=_LOCK)
    (work / _JOB).write_text(_text(job))


def _remove(work: Path) -> None:
    """Removes the directory; the job goes first, so that no run goes on with what is left after a kill."""
    (work / _JOB).unlink(missing_ok=True)
    shutil.rmtree(work, ignore_errors=True)


def _empty(work: Path, but: str) -> None:
    """Removes everything in the directory but one file."""
    for path in work.iterdir():
        if path.name != but:
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def _text(job: Mapping[str, Any]) -> str:
    return json.dumps(job, sort_keys=True, default=str)


def _reason(work: Path, error: OSError) -> str:
    """An error of the disk in words that say what to do."""
    if error.errno == errno.ENOSPC or "No space left" in str(error):
        return f"{work.parent}: the disk is full; nothing was left there. Free some space or choose another directory"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{work.parent}: no permission to write ({error.strerror} on {error.filename}); choose another directory"
    return f"{work.parent}: cannot be written ({error.strerror or error}); choose another directory"


def _size(num_bytes: float) -> str:
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e8 else f"{num_bytes / 1e6:.1f} MB"
