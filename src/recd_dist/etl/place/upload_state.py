"""Both ends of an upload: the tables built here, and what lies at the target."""

import json
import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recd_dist.errors import DataError
from recd_dist.table.location import StoreError, contents, listing
from recd_dist.table.manifest import NAME, FileEntry, Manifest, splits_of

if TYPE_CHECKING:
    from upath import UPath

PLAN = "upload.json"
"""The file at the target that says what is being uploaded."""

DATA = re.compile(r"[^/]+/[^/]+/part-(\d+)\.\w+")
"""SPLIT/DIRECTORY/part-N.SUFFIX: a file of a table's data, which may be deleted when no manifest names it."""

_FORMAT = "recd_dist.upload"


@dataclass(frozen=True)
class BuiltTables:
    """The tables that are to be uploaded, one per split.

    Attributes:
        built: the local directory that they lie in.
        files: the data files of all splits by relative path, such as ``train/samples/part-00000.parquet``.
        manifests: the text of each split's manifest.
        others: the sizes in bytes of the files that no manifest names, by relative path.
    """

    built: Path
    files: dict[str, FileEntry]
    manifests: dict[str, bytes]
    others: dict[str, int]

    @staticmethod
    def of(built: Path) -> "BuiltTables":
        """The tables in a local directory.

        Raises:
            DataError: there is no table.
        """
        files: dict[str, FileEntry] = {}
        manifests: dict[str, bytes] = {}
        for split in splits_of(built):
            manifests[split] = (built / split / NAME).read_bytes()
            parts = Manifest.load(built / split).parts
            files |= {f"{split}/{entry.path}": entry for part in parts for entry in part.files}
        if not manifests:
            raise DataError(f"{built}: no finished table to publish (no */{NAME}); make one with `recd etl`")
        local = {str(p.relative_to(built)): p.stat().st_size for p in built.rglob("*") if p.is_file()}
        known = {*files, *(f"{split}/{NAME}" for split in manifests)}
        others = {
            name: size
            for name, size in sorted(local.items())
            if name not in known and name.partition("/")[0] in manifests and not Path(name).name.startswith(".")
        }
        return BuiltTables(built, files, manifests, others)

    @property
    def splits(self) -> list[str]:
        """Names of the splits, ``train`` last: where it stands, the other splits of the same tables do too."""
        return sorted(self.manifests, key=lambda split: (split == "train", split))

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of every file but the manifests, by relative path."""
        return {path: entry.num_bytes for path, entry in self.files.items()} | self.others

    def plan(self) -> bytes:
        """The contents of ``upload.json``."""
        value = {
            "format": _FORMAT,
            "files": {path: [entry.num_bytes, entry.crc32] for path, entry in self.files.items()},
            "notes": {path: [size, zlib.crc32((self.built / path).read_bytes())] for path, size in self.others.items()},
            "manifests": {split: zlib.crc32(text) for split, text in self.manifests.items()},
        }
        return json.dumps(value).encode()


@dataclass(frozen=True)
class TargetState:
    """What lies at the target of an upload.

    Attributes:
        sizes: bytes of every object, by relative path.
        standing: for each split that has a manifest its data files; where the manifest cannot be read, all data files
            that lie there, without their entries.
        is_planned: an upload to the target was begun and not finished.
        planned: the data files of that upload, ``[bytes, CRC-32]`` by relative path.
        notes: its other files (sketches, statistics), ``[bytes, CRC-32]`` by relative path.
        splits: its splits.
        finished: those of its splits whose manifest has arrived.
    """

    sizes: dict[str, int]
    standing: dict[str, dict[str, FileEntry | None]] = field(default_factory=dict)
    is_planned: bool = False
    planned: Mapping[str, Any] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)
    splits: frozenset[str] = frozenset()
    finished: frozenset[str] = frozenset()

    @staticmethod
    def of(target: "UPath") -> "TargetState":
        """Looks at a target.

        Raises:
            DataError: its ``upload.json`` cannot be read.
        """
        sizes = listing(target)
        splits = [path.partition("/")[0] for path in sizes if path.count("/") == 1 and path.endswith(f"/{NAME}")]
        standing = {split: _standing_files(target, split, sizes) for split in splits}
        if PLAN not in sizes:
            return TargetState(sizes, standing)
        try:
            plan = json.loads(contents(target / PLAN))
            files, notes, manifests = (dict(plan[key]) for key in ("files", "notes", "manifests"))
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{target / PLAN}: not readable ({error!r}); remove it and publish again") from error
        ours = [split for split in standing if manifests.get(split) == zlib.crc32(contents(target / split / NAME))]
        return TargetState(sizes, standing, True, files, notes, frozenset(manifests), frozenset(ours))

    def holds(self, path: str, entry: FileEntry) -> bool:
        """Whether a file is there with the bytes of an entry, as far as its size and the earlier upload tell."""
        if self.sizes.get(path) != entry.num_bytes:
            return False
        before = [files[path] for files in self.standing.values() if path in files]
        return entry in before or self.planned.get(path) == [entry.num_bytes, entry.crc32]


def _standing_files(target: "UPath", split: str, sizes: Iterable[str]) -> dict[str, FileEntry | None]:
    """The data files of a split that has a manifest, by relative path."""
    try:
        parts = Manifest.load(target / split).parts
    except StoreError:
        raise
    except DataError:  # the manifest is of another release, perhaps
        return {path: None for path in sizes if path.startswith(f"{split}/") and DATA.fullmatch(path)}
    return {f"{split}/{entry.path}": entry for part in parts for entry in part.files}
