"""A small local file is written whole or not at all."""

import os
from contextlib import suppress
from pathlib import Path


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
                file.flush()
                os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
