"""A directory of made-up logs, written once for what was asked for: whole or absent."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from recd_dist.errors import DataError

MARKER = "spec.json"
"""The file that says what was asked for; it is written last."""


def write_once(out: Path, marker: str, write: Callable[[Path], None]) -> bool:
    """Writes a directory unless it is there already; older logs of the same kind are replaced.

    Args:
        out: the directory.
        marker: the text of what was asked for; a directory that holds the same text is finished.
        write: fills an empty directory.

    Returns:
        Whether it was written.

    Raises:
        DataError: the directory holds something else, or cannot be written.
    """
    if _is_finished(out, marker):
        return False
    work = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        write(work)
        (work / MARKER).write_text(marker)
        _move_into_place(work, out)
    except OSError as error:
        raise DataError(f"{out}: cannot write synthetic logs ({error}); choose another data.path") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return True


def _is_finished(out: Path, marker: str) -> bool:
    """Whether a directory holds the logs that are asked for; what is no synthetic logs at all is not to be replaced.

    Raises:
        DataError: the directory holds something else.
    """
    found = out / MARKER
    if found.is_file():
        return found.read_text() == marker
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(
            f"{out}: exists and holds no synthetic logs; choose another data.path or move it away (data.source=sql "
            "reads logs that are there)"
        )
    return False


def _move_into_place(work: Path, out: Path) -> None:
    """Renames a finished directory to its final name; older logs of this name are removed first."""
    if out.exists():
        old = out.with_name(f".{out.name}.{os.getpid()}.old")
        out.rename(old)
        shutil.rmtree(old)
    work.rename(out)
