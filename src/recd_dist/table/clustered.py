"""A clustered table with its location and its manifest, which is loaded once."""

import zlib
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field

from recd_dist.errors import DataError
from recd_dist.table.location import Location, file_size, file_sizes, report_store_errors
from recd_dist.table.manifest import FileEntry, Manifest, splits_of

REMEDY = "make the table again with `recd etl ... overwrite=true`"
"""What mends a file that is not as it was written."""

_BLOCK_BYTES = 1 << 22


@dataclass(frozen=True)
class Damage:
    """A file of a table that is not as it was written.

    Attributes:
        path: the place of the file.
        problem: what is wrong with the file, in plain words.
    """

    path: Location
    problem: str

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}; {REMEDY}"


@dataclass(frozen=True)
class ClusteredTable:
    """One split of a clustered table.

    Attributes:
        path: the directory of the table.
        manifest: what the directory holds of what is to be read, all of it or some partitions.
    """

    path: Location
    manifest: Manifest
    _all_partitions: "ClusteredTable | None" = field(default=None, repr=False, compare=False)

    @staticmethod
    def load(path: Location) -> "ClusteredTable":
        """Loads the manifest of a table.

        Args:
            path: directory of one split.

        Raises:
            DataError: there is no table, or this release cannot read it.
        """
        return ClusteredTable(path, Manifest.load(path))

    def of_partitions(self, names: Collection[str] | None) -> "ClusteredTable":
        """The table as if it had some partitions only.

        Args:
            names: the partitions to read; None keeps all of them.

        Raises:
            ConfigError: the table has no such partition.
        """
        if names is None:
            return self
        return ClusteredTable(self.path, self.manifest.of_partitions(names), self.whole)

    @property
    def whole(self) -> "ClusteredTable":
        """The table with all its partitions, whichever of them are to be read."""
        return self._all_partitions or self

    @property
    def root(self) -> Location:
        """The directory that holds the splits."""
        return self.path.parent

    @property
    def splits(self) -> list[str]:
        """Names of the splits that lie beside this one, itself included, sorted."""
        return splits_of(self.root)

    def of_split(self, name: str) -> "ClusteredTable":
        """Another split beside this one, with all its partitions; this one is in memory already.

        Args:
            name: the name of the split.

        Raises:
            DataError: there is no such table, or one that this release cannot read.
        """
        path = self.root / name
        return self.whole if path == self.path else ClusteredTable.load(path)

    @property
    def files(self) -> list[FileEntry]:
        """Every file that the manifest names."""
        return [entry for part in self.manifest.parts for entry in part.files]

    def check_sizes(self, files: Iterable[FileEntry] | None = None) -> None:
        """Refuses a table of which a file is missing, or is not as long as it was written; reads no file.

        Args:
            files: the files to look at; all of them when absent.

        Raises:
            DataError: the message names the first such file.
        """
        entries = self.files if files is None else list(files)
        sizes = file_sizes(self.path, (entry.path for entry in entries))
        for entry in entries:
            self.check_size(entry, sizes.get(entry.path))

    def check_size(self, entry: FileEntry, num_bytes: int | None) -> None:
        """Refuses a file that is missing or of another length.

        Args:
            entry: the file.
            num_bytes: the size of the file; None where it is missing.

        Raises:
            DataError: the message names the file, the sizes and the remedy.
        """
        if problem := _size_problem(entry, num_bytes):
            raise DataError(str(Damage(self.path / entry.path, problem)))

    def find_damage(self, report: Callable[[int], None] | None = None) -> Iterator[Damage]:
        """Reads every file whole, those beside the manifest too, and compares it with its checksum.

        Args:
            report: called with the number of bytes after each block that was read.

        Yields:
            Every file that is missing or whose bytes are not those that were written.
        """
        for entry in (*self.files, *self.manifest.notes):
            path = self.path / entry.path
            problem = _size_problem(entry, file_size(path))
            if problem is None:
                crc = 0
                with report_store_errors(path), path.open("rb") as file:
                    while block := file.read(_BLOCK_BYTES):
                        crc = zlib.crc32(block, crc)
                        if report:
                            report(len(block))
                if crc != entry.crc32:
                    problem = f"its checksum is {crc}, {entry.crc32} was written"
            if problem:
                yield Damage(path, problem)


def _size_problem(entry: FileEntry, num_bytes: int | None) -> str | None:
    """What is wrong with the size of a file, in words."""
    if num_bytes is None:
        return "no such file, though the manifest names it"
    if num_bytes != entry.num_bytes:
        return f"{num_bytes:,} bytes, {entry.num_bytes:,} were written: the file was cut off or replaced"
    return None
