"""The directory of an export: whole or absent, written by one command at a time, never in the place of its own base.

::

    .out.partial   locked while files are written; what a kill has left is removed by the next export to this place
    out            appears by one rename, or by one exchange with the export that is there
"""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recd_dist.errors import ConfigError, DataError
from recd_dist.exported.delta import bases_of
from recd_dist.exported.description import DESCRIPTION
from recd_dist.files.whole_directory import put_in_place


def require_free(out: Path, may_replace: bool, base: Path | None) -> None:
    """Refuses to write where something else lies, or where what the new export builds upon lies.

    Args:
        out: the directory of the export.
        may_replace: whether an export that is there may be replaced.
        base: the export that a delta builds upon; None for a whole one.

    Raises:
        ConfigError: the message names the option.
        DataError: the base is damaged.
    """
    if base is not None:
        base = Path(os.path.realpath(base))
        if Path(os.path.realpath(out)) in (base, *bases_of(base)):
            raise ConfigError(
                f"base={base}: a delta cannot take the place of its base {out}; choose another out=... or base=..."
            )
    if out.exists() and any(out.iterdir() if out.is_dir() else [out]):
        if not (out / DESCRIPTION).is_file():
            raise ConfigError(f"out={out}: holds something that is no export; choose another out=...")
        if not may_replace:
            raise ConfigError(f"out={out}: holds an export; overwrite=true replaces it, or choose another out=...")


@contextmanager
def new_directory(out: Path) -> Iterator[Path]:
    """Puts a directory in place once a block has filled it; where the block fails, nothing is left.

    Args:
        out: its place; a link to a directory stays a link.

    Yields:
        The directory to fill, beside its place.

    Raises:
        DataError: another process fills it, or the disk refuses.
    """
    place = Path(os.path.realpath(out))
    work = place.parent / f".{place.name}.partial"
    try:
        work.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _lock(work)
        try:
            _empty(work)
            yield work
            put_in_place(work, place)
        finally:
            shutil.rmtree(work, ignore_errors=True)
            os.close(descriptor)
    except OSError as error:
        what = f"{error.strerror or error}: {error.filename}" if error.filename else f"{error.strerror or error}"
        raise DataError(f"out={out}: cannot be written ({what}); free some space or choose another out=...") from error


def _lock(work: Path) -> int:
    """Makes the directory and locks it; the lock ends with the process, however that ends."""
    while True:
        work.mkdir(exist_ok=True)
        descriptor = os.open(work, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if work.is_dir() and os.path.samestat(os.fstat(descriptor), work.stat()):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            raise DataError(f"{work}: another `recd export` is writing there; wait for it or stop it") from None
        except FileNotFoundError:
            pass
        os.close(descriptor)  # the one before has just put it in place


def _empty(work: Path) -> None:
    """Removes what a command that was killed has left."""
    for path in work.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
