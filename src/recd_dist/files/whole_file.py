"""A small local file is written whole or not at all; files and directories are flushed to the disk."""

import errno
import logging
import os
from contextlib import suppress
from pathlib import Path

logger = logging.getLogger(__name__)

_NO_SUCH_CALL = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS)
"""What a file system answers that has no fsync: some network and FUSE file systems."""


def write_whole(path: Path, data: str | bytes, *, durable: bool = False) -> None:
    """Writes a small local file, and nobody ever sees a part of it under its name.

    The data go into ``.NAME.PID.partial`` beside the file. One rename then gives them the file's name and replaces what
    stood there. The process number keeps processes apart that write the same file at the same time.

    Args:
        path: the file to write; its directory must exist.
        data: all that the file shall hold; text is written as UTF-8.
        durable: wait until the data are on the disk before the rename. Without it the file survives a killed process,
            with it also a machine that loses its power.

    Raises:
        OSError: the disk is full or cannot be written; a file that stood there before still does.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
        if durable:
            flush_file(partial)
        partial.replace(path)
    except BaseException:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


def flush_file(path: Path) -> None:
    """Waits until the data of a file are on the disk, where the file system can tell.

    Args:
        path: a closed file.

    Raises:
        OSError: the data could not be written.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SUCH_CALL:
            raise
    finally:
        os.close(descriptor)


def flush_directory(path: Path) -> None:
    """Waits until the names in a directory are on the disk; call it after a rename.

    It raises nothing, since the rename is done already: all that can be lost is its order against a loss of power. Some
    file systems refuse to flush a directory, and a directory that may be written need not be readable.

    Args:
        path: the directory.
    """
    try:
        flush_file(path)
    except OSError as error:
        logger.warning("%s: its names could not be flushed to the disk (%s)", path, error.strerror)
