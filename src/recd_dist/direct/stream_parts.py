"""The parts of a folder that grows: which are whole, which are new, and which were trained.

::

    day=1/a.parquet  day=1/b.parquet  day=2/a.parquet  day=2/.b.parquet.tmp     in order of their names
    trained          trained          new, whole       hidden: being written

A part is whole when it ends as Parquet files do and its size and time have not changed for a second; an object in a
store is whole when it is there. Names that begin with ``.`` or ``_`` are passed over, so that a writer may write under
such a name and rename the file. A part waits for those before it by name that are not whole yet.
"""

import logging
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow.parquet as pq

from recd_dist.direct.footers import SUFFIXES, FlatFiles, flat_files_of, has_footer, read_flat_files
from recd_dist.direct.units import count_rows_of, cut_units, sequences_of
from recd_dist.errors import DataError
from recd_dist.etl.raw.common_types import common_types
from recd_dist.etl.raw.found_files import FoundFile, find_files, fixed_part
from recd_dist.reader.direct_table import DirectTable, RawFile, manifest_parts
from recd_dist.table.location import arrow_input, is_remote, location, report_store_errors

logger = logging.getLogger(__name__)

SETTLE_S, WARN_S = 1.0, 60.0


@dataclass(frozen=True)
class StreamPart:
    """A part that was taken to be trained.

    Attributes:
        name: its path below the folder.
        num_bytes, num_rows: its size and its rows.
        footer: a checksum of its footer.
    """

    name: str
    num_bytes: int
    num_rows: int
    footer: int

    @property
    def content(self) -> tuple[int, int, int]:
        """What stays of it under another name."""
        return self.num_bytes, self.num_rows, self.footer


class PartWatcher:
    """Looks for new parts.

    Args:
        path: the folder or pattern.
        table: what every part must look like: its columns and their types.
        known: the parts that were taken already.
    """

    def __init__(self, path: str, table: DirectTable, known: Sequence[StreamPart] = ()) -> None:
        self._path, self._table = path, table
        self._root = stream_root(path)
        self._known = {part.name: part for part in known}
        self._seen: dict[str, tuple[int, int, float]] = {}
        self._versions: dict[str, int] = {}
        self._warned_s = time.monotonic()

    def look(self) -> tuple[list[StreamPart], FlatFiles | None]:
        """New parts that are whole, in order of their names; they count as taken from now on.

        Raises:
            DataError: a part that was taken has been written anew or got another name, or a new part has other columns.
        """
        new, found = list[FoundFile](), find_files(self._path)
        for file in found:
            name = file.name.removeprefix(self._root)
            if name in self._known:
                self._check(file, self._known[name])
            elif file.suffix in SUFFIXES:
                new.append(file)
        is_whole = [self._is_whole(file) for file in new]
        whole = new[: is_whole.index(False)] if False in is_whole else new
        if not whole:
            return [], None
        latest = max(self._known, default="")
        late = [file.name for file in whole if file.name.removeprefix(self._root) < latest]
        if late:
            logger.warning("%d parts have come late, such as %s after %s: trained now", len(late), late[0], latest)
        there = {file.name.removeprefix(self._root) for file in found}
        gone = {part.content: part.name for part in self._known.values() if part.name not in there}
        parts = [self._take(file, gone) for file in whole]
        return parts, self._read(whole)

    def reopen(self, parts: Sequence[StreamPart]) -> FlatFiles:
        """The files of parts that were taken by an earlier attempt and are not trained yet.

        Raises:
            DataError: a part is gone, or was written anew.
        """
        there = {file.name.removeprefix(self._root): file for file in find_files(self._path)}
        for part in parts:
            if part.name not in there:
                raise DataError(f"{self._root}{part.name}: gone, and not trained to its end; put it back")
            self._check(there[part.name], part)
        return self._read([there[part.name] for part in parts])

    def _take(self, file: FoundFile, gone: Mapping[tuple[int, int, int], str]) -> StreamPart:
        part = part_of(file, self._root)
        if (before := gone.get(part.content)) and _has_ranges(file):
            raise DataError(
                f"{file.name}: looks like {before}, which was taken to be trained and is gone; its samples would be "
                "trained twice. Parts must keep their names: give it back its name, or take it away"
            )
        self._known[part.name] = part
        self._versions[part.name] = file.version
        return part

    def _check(self, file: FoundFile, part: StreamPart) -> None:
        """Refuses a part that is not what it was when it was taken."""
        if self._versions.get(part.name) == file.version:
            return
        if file.num_bytes != part.num_bytes or part_of(file, self._root) != part:
            raise DataError(
                f"{file.name}: was written anew after it was taken to be trained ({part.num_rows:,} "
                f"rows, {part.num_bytes:,} bytes then); parts must stay as they are; new samples go into new ones"
            )
        self._versions[part.name] = file.version

    def _is_whole(self, file: FoundFile) -> bool:
        """Whether a part has stopped changing, and its footer can be read."""
        now_s, before = time.monotonic(), self._seen.get(file.name)
        if is_remote(file.path):
            return True
        if before is None or before[:2] != (file.num_bytes, file.version):
            self._seen[file.name] = (file.num_bytes, file.version, now_s)
            return time.time_ns() - file.version > 1e9 * WARN_S and has_footer(file)
        if now_s - before[2] >= SETTLE_S and has_footer(file):
            return True
        if now_s - max(before[2], self._warned_s) > WARN_S:
            self._warned_s = now_s
            logger.warning(
                "%s: no whole Parquet file yet; it is waited for, with the parts after it by name", file.name
            )
        return False

    def _read(self, files: Sequence[FoundFile]) -> FlatFiles:
        """The files with their footers, whose columns must be those of the table."""
        source = self._table.manifest.source
        flat = flat_files_of(files, self._path, source["drop"])
        own = {name: kind for name, kind in flat.types.items() if name not in flat.files[0].folders}
        if own != source["types"]:
            common_types([("the first parts of the stream", source["types"]), (files[0].name, own)], "read_parquet")
            changed = next(name for name in own if own[name] != source["types"].get(name))
            raise DataError(
                f"{files[0].name}: column '{changed}' is {own[changed]}, in the first parts of the stream it is "
                f"{source['types'].get(changed)}; write it as before, or begin a new run"
            )
        return replace(flat, root=self._root)


def stream_root(path: str) -> str:
    """The folder in which the parts of a stream lie; their names are counted from there."""
    return fixed_part(str(location(path))).rstrip("/") + "/"


def part_of(file: FoundFile, root: str) -> StreamPart:
    """What tells a part from another one."""
    with report_store_errors(file.path):
        metadata = pq.read_metadata(arrow_input(file.path))
    rows = [metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)]
    chunks = [metadata.row_group(n).column(c) for n in range(len(rows)) for c in range(metadata.num_columns)]
    ranges = [chunk.statistics.to_dict() if chunk.is_stats_set else None for chunk in chunks]
    told = [(chunk.file_offset, chunk.total_compressed_size) for chunk in chunks]
    footer = zlib.crc32(repr((rows, told, ranges, metadata.created_by)).encode())
    return StreamPart(file.name.removeprefix(root), file.num_bytes, sum(rows), footer)


def _has_ranges(file: FoundFile) -> bool:
    """Whether the footer tells of smallest and largest values, so that parts of other samples have another one."""
    with report_store_errors(file.path):
        metadata = pq.read_metadata(arrow_input(file.path))
    return any(metadata.row_group(0).column(c).is_stats_set for c in range(metadata.num_columns))


def table_of_parts(base: DirectTable, flat: FlatFiles, first_sample: int = 0) -> DirectTable:
    """A table of some parts of a stream, with the schema and statistics that the stream began with.

    Args:
        base: the table of the first parts.
        flat: the files of the parts.
        first_sample: how many samples lie in parts before these.
    """
    units = cut_units(flat.files)
    num, manifest = count_rows_of(units), base.manifest
    scale = num / max(manifest.num_samples, 1)
    parts = [
        replace(part, first_sample=part.first_sample + first_sample)
        for part in manifest_parts(flat.files, units, flat.root)
    ]
    manifest = replace(
        manifest,
        parts=tuple(parts),
        num_samples=num,
        group_rows={group: max(round(rows * scale), 1) for group, rows in manifest.group_rows.items()},
        sequences=sequences_of(units),
    )
    return replace(base, manifest=manifest, raw_files=flat.files, units=tuple(units), others={})


def first_folder(flat: FlatFiles, parts: Sequence[StreamPart], least: int) -> int:
    """How many of the first parts are trained together: those of one folder, and more until they have enough samples.

    Args:
        flat: the files of the parts.
        parts: the parts.
        least: samples that there must be, one for each rank.

    Returns:
        0 where all of them have too few.
    """
    num_rows = 0
    for number, file in enumerate(flat.files):
        if num_rows >= least and tuple(file.folders.items()) != tuple(flat.files[number - 1].folders.items()):
            return number
        num_rows += parts[number].num_rows
    return len(parts) if num_rows >= least else 0


def files_from(flat: FlatFiles, start: int, end: int) -> FlatFiles:
    """Some of the files."""
    files: tuple[RawFile, ...] = flat.files[start:end]
    return replace(flat, files=files, metadata=flat.metadata[start:end])


def part_from_json(value: Mapping[str, Any]) -> StreamPart:
    """The part of which ``asdict`` made a dict."""
    return StreamPart(str(value["name"]), int(value["num_bytes"]), int(value["num_rows"]), int(value["footer"]))


def table_of_present_parts(base: DirectTable, path: str) -> DirectTable:
    """A table of the parts that are there now, of which the plan of a run that goes on is made.

    Args:
        base: what the run began with.
        path: the folder or pattern.

    Raises:
        DataError: none is there, or one that cannot be read.
    """
    flat = read_flat_files(path, base.manifest.source["drop"], only_whole=True)
    return table_of_parts(base, replace(flat, root=stream_root(path)))
