"""Where a table is built and how it takes its place: whole or absent, and a run that was killed goes on.

::

    tables/.mine.partial/    job.json   what is being made, of which files; another job begins anew
                             lock       held by the run that is at it
                             runs/ ...  what was read; parts/ what was written: kept until the end
                             table/     train/, test/
    tables/mine/             appears by one rename, or, when tables are replaced or appended to, by one exchange or one
                             new manifest

What a mistake in data or config ends is removed; what a kill, Ctrl-C or a lost machine ends stays and is used again.
"""

import ctypes
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
from recd_dist.etl.place import publish
from recd_dist.table.location import Location, StoreError

logger = logging.getLogger(__name__)

_MANIFEST, _JOB = "manifest.json", "job.json"
_EXCHANGE, _AT_FDCWD = 2, -100  # renameat2(2)


def work_directory(out: Location) -> Path:
    """Where the tables of ``out`` are built: beside it, so that the last step is a rename; for a store, here."""
    if not isinstance(out, Path):
        name = hashlib.sha256(str(out).encode()).hexdigest()[:8]
        return Path(".recd-etl").absolute() / f"{out.name}-{name}"
    out = Path(os.path.abspath(out))  # not resolve(): a link to a large disk stays a link
    return out.parent / f".{out.name}.partial"


def check_free(out: Location, may_exist: bool) -> None:
    """Refuses to write where something else stands.

    Args:
        out: directory of the tables.
        may_exist: tables that are there may be replaced or appended to.

    Raises:
        DataError: something is there that may not be touched.
    """
    if not isinstance(out, Path):
        publish.check_free(out, may_exist)
        return
    if not (out.exists() or out.is_symlink()) or (out.is_dir() and not any(out.iterdir())):
        return
    if not has_table(out):
        raise DataError(f"{out}: something else than a clustered table is there; choose another output directory")
    if not may_exist:
        raise DataError(
            f"{out}: a table is already there; overwrite=true replaces it, append=true adds to it, or choose another "
            "directory"
        )


def has_table(out: Path) -> bool:
    """Whether clustered tables stand in a directory."""
    return (out / _MANIFEST).is_file() or any(out.glob(f"*/{_MANIFEST}"))


@contextmanager
def working(work: Path, job: Mapping[str, Any]) -> Iterator[bool]:
    """Holds the directory of work of a job; removed when the block ends well or by an error of the user's.

    Args:
        work: the directory.
        job: what is made, in plain values: work of the same job is taken up, other work is thrown away.

    Yields:
        Whether there is work to go on with.

    Raises:
        DataError: another run is at it, no permission, or a full disk.
    """
    try:
        work.mkdir(parents=True, exist_ok=True)
        with (work / "lock").open("w") as lock:
            _locked(lock.fileno(), work)
            going_on = taken_up(work, job)
            if not going_on:
                _begin(work, job)
            try:
                yield going_on
            except (KeyboardInterrupt, SystemExit, StoreError):
                logger.warning("stopped; the same command goes on from here (work so far: %s)", work)
                raise
            except BaseException:
                _forget(work)
                raise
            _emptied(work, but=_JOB)  # a kill in between leaves the job, whose run the table then names as its own
            shutil.rmtree(work, ignore_errors=True)
    except UserError:
        raise
    except OSError as error:
        raise DataError(_reason(work, error)) from error


def replaced(table: Path, out: Path) -> None:
    """Puts finished tables in place, by one rename; tables that are there are exchanged with the new ones at once.

    Args:
        table: directory of the new tables, on the file system of ``out``.
        out: their place.
    """
    out = Path(os.path.abspath(out))
    if out.is_dir() and not any(out.iterdir()) and not out.is_symlink():
        out.rmdir()
    if not out.exists():
        table.rename(out)
        return
    real = Path(os.path.realpath(out))
    if _exchanged(table, real):
        shutil.rmtree(table, ignore_errors=True)
        return
    old = table.with_name("old")
    real.rename(old)
    try:
        table.rename(real)
    except OSError:
        old.rename(real)
        raise
    shutil.rmtree(old, ignore_errors=True)


def check_space(directory: Path, wanted: int) -> None:
    """Refuses to begin what the disk cannot hold.

    Raises:
        DataError: less is free than half of what is expected to be needed.
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


def _locked(descriptor: int, work: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _Busy(f"{work}: another `recd etl` is making this table; wait for it or stop it") from None


class _Busy(DataError):
    """The directory is another run's: it must not be removed."""


def taken_up(work: Path, job: Mapping[str, Any]) -> bool:
    """Whether work of this very job is there."""
    with suppress(OSError, UnicodeDecodeError):
        return (work / _JOB).read_text() == _text(job)
    return False


def _begin(work: Path, job: Mapping[str, Any]) -> None:
    """Empties the directory and says what it is for."""
    (work / _JOB).unlink(missing_ok=True)  # first: what is half removed is no work to go on with
    _emptied(work, but="lock")
    (work / _JOB).write_text(_text(job))


def _forget(work: Path) -> None:
    """Removes what is not to be gone on with."""
    (work / _JOB).unlink(missing_ok=True)
    shutil.rmtree(work, ignore_errors=True)


def _emptied(work: Path, but: str) -> None:
    for path in work.iterdir():
        if path.name != but:
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def _text(job: Mapping[str, Any]) -> str:
    return json.dumps(job, sort_keys=True, default=str)


def _exchanged(one: Path, other: Path) -> bool:
    """Swaps two directories in one step, where the kernel can (Linux, most file systems)."""
    with suppress(OSError, AttributeError):
        call = ctypes.CDLL(None, use_errno=True).renameat2
        return bool(call(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _EXCHANGE) == 0)
    return False


def _reason(work: Path, error: OSError) -> str:
    if error.errno == errno.ENOSPC or "No space left" in str(error):
        return f"{work.parent}: the disk is full; nothing was left there. Free some space or choose another directory"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{work.parent}: no permission to write ({error.strerror} on {error.filename}); choose another directory"
    return f"{work.parent}: cannot be written ({error.strerror or error}); choose another directory"


def _size(num_bytes: float) -> str:
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e8 else f"{num_bytes / 1e6:.1f} MB"
