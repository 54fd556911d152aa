"""Where a table is built and how it takes its place: whole or absent, whatever happens in between."""

import errno
import logging
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recd_dist.errors import DataError

logger = logging.getLogger(__name__)

_MANIFEST = "manifest.json"


@contextmanager
def built(out: Path, overwrite: bool) -> Iterator[Path]:
    """A hidden directory beside ``out`` that takes its place when the block ends well, and vanishes when it does not.

    Its subdirectory ``work`` is removed first.

    Args:
        out: directory of the tables.
        overwrite: replace tables that are there (and nothing else).

    Raises:
        DataError: something is there that may not be replaced, no permission, or a full disk.
    """
    out = Path(os.path.abspath(out))  # not resolve(): a link to a large disk stays a link
    _check_free(out, overwrite)
    partial = out.parent / f".{out.name}.partial-{socket.gethostname()}-{os.getpid()}"
    try:
        _remove_left_over(out)
        partial.mkdir(parents=True)
        yield partial
        shutil.rmtree(partial / "work", ignore_errors=True)
        _check_free(out, overwrite)
        _replace(partial, out)
    except OSError as error:
        raise DataError(_reason(out, error)) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _check_free(out: Path, overwrite: bool) -> None:
    if out.is_dir() and not any(out.iterdir()):
        return
    if not (out.exists() or out.is_symlink()):
        return
    is_table = (out / _MANIFEST).is_file() or any(out.glob(f"*/{_MANIFEST}"))
    if not is_table:
        raise DataError(f"{out}: something else than a clustered table is there; choose another output directory")
    if not overwrite:
        raise DataError(f"{out}: a table is already there; overwrite=true replaces it, or choose another directory")


def _replace(partial: Path, out: Path) -> None:
    """Renames; the old table is out of the way for the time of two renames and removed last."""
    old = partial.with_name(partial.name.replace(".partial-", ".old-"))
    if out.exists():
        out.rename(old)
    try:
        partial.rename(out)
    except OSError:
        if old.exists():
            old.rename(out)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _remove_left_over(out: Path) -> None:
    """Removes what killed runs of this host left behind."""
    prefix = f".{out.name}.partial-{socket.gethostname()}-"
    for path in out.parent.glob(f"{prefix}*") if out.parent.is_dir() else ():
        pid = path.name.removeprefix(prefix)
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            logger.warning("removing %s, left by a run that was killed", path)
            shutil.rmtree(path, ignore_errors=True)


def _reason(out: Path, error: OSError) -> str:
    if error.errno == errno.ENOSPC or "No space left" in str(error):
        return f"{out}: the disk is full; nothing was left there. Free some space or choose another directory"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{out}: no permission to write ({error.strerror} on {error.filename}); choose another directory"
    return f"{out}: cannot be written ({error.strerror or error}); choose another directory"
