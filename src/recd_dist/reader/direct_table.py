"""Flat Parquet files as a table that the reader takes: the files, their rows in units, and what becomes of each column.

::

    file a, row groups      | 9,000 rows | 100 | 100 | 100 |       1,000,000 rows        |
    units                   |     0      |        1        | 2 | 3 | 4 | ...             |   about 8,192 rows each
    parts of the manifest   |              0               |   1: read one after another |

A unit stands for a row group of a clustered table: it is read alone, so that orders, deals and positions are those of
any table. Small row groups are joined, large ones are cut; the units of a large one stay side by side in an epoch,
since Parquet can be decoded from the beginning of a row group only.
"""

import zlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from recd_dist.errors import ConfigError, DataError, nearest
from recd_dist.table.location import Location, file_size, is_remote, location
from recd_dist.table.manifest import FileEntry, Manifest, Part

NEIGHBOURS, HASH = "neighbours", "hash"
"""How equal rows of a group are found: each row is compared with the one before it, or also with those of its hash."""

NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
"""The name that Hive gives the folder of rows whose value is missing."""

CHANGED = "the files of a run must stay as they are: put new rows into new files, and start again"


@dataclass(frozen=True)
class RawFile:
    """A Parquet file of samples.

    Attributes:
        name: its path, or its address in a store.
        num_bytes: its size.
        version: the time of its last change in ns; in a store, a number that changes with the file.
        row_groups: rows of each row group.
        folders: the columns that names of folders give (``day=2026-11-25``), with their text; None where it is missing.
    """

    name: str
    num_bytes: int
    version: int
    row_groups: tuple[int, ...]
    folders: Mapping[str, str | None] = field(default_factory=dict)

    @property
    def path(self) -> Location:
        """Where the file lies."""
        return location(self.name)

    @property
    def num_rows(self) -> int:
        """Its rows."""
        return sum(self.row_groups)

    def check(self) -> None:
        """Refuses a file that is gone, or is not as it was when the table was opened.

        Raises:
            DataError: the message names the file and what is different.
        """
        num_bytes: int | None
        if is_remote(path := self.path):
            num_bytes, version = file_size(path), self.version  # a version would cost a second request
        else:
            try:
                stat = path.stat()
            except FileNotFoundError:
                num_bytes, version = None, 0
            else:
                num_bytes, version = stat.st_size, stat.st_mtime_ns
        if num_bytes is None:
            raise DataError(f"{self.name}: gone since this job has opened it; {CHANGED}")
        if (num_bytes, version) != (self.num_bytes, self.version):
            told = f"{num_bytes:,} bytes, it had {self.num_bytes:,}" if num_bytes != self.num_bytes else "written anew"
            raise DataError(f"{self.name}: {told} since this job has opened it; {CHANGED}")


@dataclass(frozen=True)
class Piece:
    """Rows [start, end) of a row group.

    Attributes:
        file: place of the file in ``DirectTable.raw_files``.
        row_group: number of the row group in the file.
        start, end: its rows, counted from the first of the row group.
    """

    file: int
    row_group: int
    start: int
    end: int


Unit = tuple[Piece, ...]
"""Rows that are read together, in order."""


@dataclass(frozen=True)
class Conversion:
    """How a column of the samples is made of the raw columns.

    Attributes:
        raw: the raw columns that it needs; none of a label that the files do not have, which is missing in each sample.
        sql: an SQL expression of DuckDB, the one of the ETL; empty where the raw column is taken as it is.
        per_value: whether ``sql`` is of one value, named ``x``, and is applied once to each distinct text.
        cast: the Arrow type that the raw column is brought to; empty where it fits as it is.
    """

    raw: tuple[str, ...]
    sql: str = ""
    per_value: bool = False
    cast: str = ""


@dataclass(frozen=True)
class DirectManifest(Manifest):
    """What the files hold, as far as footers tell it and some units that were read.

    Attributes:
        sequences: the parts whose units lie in one row group, so that an epoch has them one after another.
    """

    sequences: frozenset[int] = frozenset()

    def of_partitions(self, names: Collection[str]) -> "DirectManifest":
        """What there would be in some folders only; the factors of groups stay those of all.

        Args:
            names: values of the folders, such as ``2026-11-25``.

        Raises:
            ConfigError: there is no such folder.
        """
        kept = [n for n, part in enumerate(self.parts) if part.partition in names]
        whole = replace(self, group_rows={})
        smaller = Manifest.of_partitions(whole, names)
        share = smaller.num_samples / max(self.num_samples, 1)
        return replace(
            self,
            parts=smaller.parts,
            num_samples=smaller.num_samples,
            num_sessions=round(self.num_sessions * share),
            num_requests=round(self.num_requests * share),
            group_rows={group: round(rows * share) for group, rows in self.group_rows.items()},
            sequences=frozenset(new for new, old in enumerate(kept) if old in self.sequences),
        )


@dataclass(frozen=True)
class DirectTable:
    """One split of flat Parquet files.

    Attributes:
        path: what ``data.path`` names.
        manifest: samples, schema, statistics; its parts are made of units.
        raw_files: the files.
        units: for each part its units.
        conversions: for each key, label, feature and column of weights how it is made.
        ways: for each group how equal rows are found.
        others: the other splits, by name.
    """

    path: Location
    manifest: DirectManifest
    raw_files: tuple[RawFile, ...]
    units: tuple[tuple[Unit, ...], ...]
    conversions: Mapping[str, Conversion]
    ways: Mapping[str, str]
    others: "Mapping[str, DirectTable]" = field(default_factory=dict, repr=False, compare=False)
    _all_partitions: "DirectTable | None" = field(default=None, repr=False, compare=False)

    @property
    def whole(self) -> "DirectTable":
        """The table with all its partitions, whichever of them are to be read."""
        return self._all_partitions or self

    @property
    def root(self) -> Location:
        """What holds the splits: the same files."""
        return self.path

    @property
    def splits(self) -> list[str]:
        """Names of the splits, sorted."""
        return sorted({self.manifest.split, *self.others})

    def of_split(self, name: str) -> "DirectTable":
        """Another split of the same files, with all its partitions.

        Raises:
            ConfigError: there is none of that name.
        """
        if name == self.manifest.split:
            return self.whole
        if name not in self.others:
            raise ConfigError(f"split={name}: {self.path} has no such split{nearest(name, self.splits)}")
        return self.others[name]

    def of_partitions(self, names: Collection[str] | None) -> "DirectTable":
        """The table as if it had the files of some folders only.

        Args:
            names: values of the folders, such as ``2026-11-25``; None keeps all.

        Raises:
            ConfigError: there is no such folder.
        """
        if names is None:
            return self
        units = tuple(u for u, part in zip(self.units, self.manifest.parts, strict=True) if part.partition in names)
        return replace(self, manifest=self.manifest.of_partitions(names), units=units, _all_partitions=self.whole)

    def check_sizes(self) -> None:
        """Refuses files that are gone or were changed since the table was opened.

        Raises:
            DataError: the message names the first such file.
        """
        used = {piece.file for part in self.units for unit in part for piece in unit}
        for number in sorted(used):
            self.raw_files[number].check()


def manifest_parts(files: tuple[RawFile, ...], units: Iterable[tuple[Unit, ...]], root: str) -> tuple[Part, ...]:
    """The parts of a manifest, from which orders and fingerprints follow: path, size and rows of each file.

    Args:
        files: the files.
        units: for each part its units.
        root: the beginning of all paths that does not count, so that the files may lie elsewhere when a run goes on.
    """
    parts, first = list[Part](), 0
    for number, of_part in enumerate(units):
        named = [files[n] for n in dict.fromkeys(piece.file for unit in of_part for piece in unit)]
        row_groups = tuple(sum(piece.end - piece.start for piece in unit) for unit in of_part)
        told = repr(([(f.name.removeprefix(root), f.num_bytes, f.row_groups) for f in named], of_part[0][0]))
        entry = FileEntry(named[0].name, row_groups, sum(f.num_bytes for f in named), zlib.crc32(told.encode()))
        partition = "/".join(NO_VALUE if text is None else text for text in named[0].folders.values())
        parts.append(Part(entry, {}, {}, partition, number, 0, 0, first))
        first += sum(row_groups)
    return tuple(parts)
