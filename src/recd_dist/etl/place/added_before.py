"""Whether the raw files of a run are in the table already that it adds to, or twice among each other.

::

    the table holds     a.parquet (1,200 bytes, sha256 7f..)
    a run brings        a.parquet or copy.parquet, the same bytes       nothing is left to do: it is skipped
                        a.parquet and b.parquet                         refused: only b.parquet is new
                        a.parquet with other bytes                      refused: which of both shall count?
                        a.parquet, read by another query                read, with a warning
                        only new files, read by another query           read, and said
                        b.parquet and a copy of it                      read, with a warning
"""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from recd_dist.errors import DataError
from recd_dist.etl.source.raw_identity import RawIdentities
from recd_dist.table.announcement import Announcement
from recd_dist.table.raw_file import RawFile

logger = logging.getLogger(__name__)

_NUM_NAMED = 5
_LEAST_BYTES = 1024
"""Smaller files are not looked for twice: many of them are alike, such as CSV files of nothing but a header."""


@dataclass(frozen=True)
class AddedBefore:
    """What a table holds of the files of a run.

    Attributes:
        is_all: whether it holds every one of them, so that there is nothing left to add.
        announcements: the files that it holds by another query, or that new files come by another query than its own.
    """

    is_all: bool
    announcements: tuple[Announcement, ...] = ()


def find_added_before(files: RawIdentities, known: Sequence[RawFile]) -> AddedBefore:
    """Looks for the files of a run among those of the table.

    Only files are read whose size or name the table knows: others cannot be among them.

    Args:
        files: the files of the run.
        known: the files whose samples the table holds.

    Raises:
        DataError: the table holds some of the files and not the others, or a file of the same name with other content.
    """
    sizes, by_name = {file.num_bytes for file in known}, {file.path: file for file in known}
    brought = [file for file in files.files if file.num_bytes]  # empty files are all alike
    suspects = [files.of(f) for f in brought if f.num_bytes in sizes or f.name in by_name]
    held = {f.path: [k for k in known if k.has_content_of(f)] for f in suspects}
    for file in suspects:
        if not held[file.path]:
            _refuse_other_content(file, by_name.get(file.path))
    again = [f for f in suspects if any(k.query == f.query for k in held[f.path])]
    if again and len(again) < len(brought):
        raise DataError(
            f"append: {len(again)} of {len(brought)} raw files are in the table already ({_names(again)}), and "
            "their samples would be there twice; let data.path name the new files only"
        )
    others = [f for f in suspects if held[f.path] and f not in again]
    found = Announcement(
        f"append: {len(others)} raw files are in the table already by another query ({_names(others)})",
        len(others),
        "a sample that both queries read will be there twice",
    )
    return AddedBefore(bool(again), (found,) if others else _other_query(files, known))


def find_copies(files: RawIdentities) -> tuple[Announcement, ...]:
    """Announces files of a run that hold the bytes of another one, such as links and copies.

    Only files of which another one has the size are read.

    Args:
        files: the files of the run.
    """
    sizes = Counter(file.num_bytes for file in files.files)
    alike = [files.of(f) for f in files.files if sizes[f.num_bytes] > 1 and f.num_bytes >= _LEAST_BYTES]
    first = {(file.num_bytes, file.checksum): file for file in reversed(alike)}
    copies = [file for file in alike if file is not first[file.num_bytes, file.checksum]]
    if not copies:
        return ()
    original = first[copies[0].num_bytes, copies[0].checksum]
    found = f"{len(copies)} raw files are copies of others ({copies[0].path} of {original.path}, ...)"
    cure = "their samples are read twice; let data.path leave the copies out, or policy.duplicates=drop equal samples"
    return (Announcement(found, len(copies), cure),)


def _other_query(files: RawIdentities, known: Sequence[RawFile]) -> tuple[Announcement, ...]:
    """Announces new files that are read by a query by which no file of the table was read."""
    if not known or any(file.query == files.query for file in known):
        return ()
    found = "append: no file of the table was read by the query of this run (data.samples, data.sample)"
    cure = "give the query of before if the columns shall mean the same, such as a label that it makes 0 and 1"
    return (Announcement(found, len(files.files), cure, suspicious=False),)


def _refuse_other_content(file: RawFile, before: RawFile | None) -> None:
    """Refuses a file that the table knows under this name, with other content."""
    if before is not None:
        raise DataError(
            f"append: {file.path} is in the table already and had other content then ({before.num_bytes:,} bytes, now "
            f"{file.num_bytes:,}): if it was corrected, replace=[PARTITION] or overwrite=true puts it in the old one's "
            "place; if it is a new file, give it another name"
        )


def _names(files: Sequence[RawFile]) -> str:
    more = ", ..." if len(files) > _NUM_NAMED else ""
    return ", ".join(file.path for file in files[:_NUM_NAMED]) + more


def merge_raw_files(before: Sequence[RawFile], now: Sequence[RawFile]) -> tuple[RawFile, ...]:
    """The files whose samples a table holds after a run.

    Args:
        before: those that it held.
        now: those of the run; one of the same name has taken the place of the old one.
    """
    new = {(file.path, file.query) for file in now}
    changed = {file.path: file for file in now}
    kept = (f for f in before if f.path not in changed or changed[f.path].has_content_of(f))
    return (*(f for f in kept if (f.path, f.query) not in new), *now)
