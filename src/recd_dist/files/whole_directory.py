"""A local directory is the old one or the new one, never half of either."""

import ctypes
import os
import shutil
from contextlib import suppress
from pathlib import Path

_EXCHANGE, _AT_FDCWD = 2, -100  # constants of renameat2(2)


def put_in_place(built: Path, out: Path) -> None:
    """Puts a finished directory in place by one rename, or by one exchange with the directory that is there.

    Args:
        built: the new directory, on the file system of ``out``; under this name it is gone afterwards.
        out: the place that it shall have; a link to a directory stays a link.
    """
    out = Path(os.path.abspath(out))
    if out.is_dir() and not any(out.iterdir()) and not out.is_symlink():
        out.rmdir()
    if not out.exists():
        built.rename(out)
        return
    real = Path(os.path.realpath(out))
    if _exchange(built, real):
        shutil.rmtree(built, ignore_errors=True)
        return
    old = built.with_name("old")
    real.rename(old)
    try:
        built.rename(real)
    except OSError:
        old.rename(real)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Swaps two directories in one step; False where the kernel cannot (it can on most file systems of Linux)."""
    with suppress(OSError, AttributeError):
        call = ctypes.CDLL(None, use_errno=True).renameat2
        return bool(call(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _EXCHANGE) == 0)
    return False
