"""A finished table to an object store: data first, manifests last, so that a table there is whole or absent.

::

    built/test/samples/part-00007.parquet  --1 upload.json: what is being uploaded
    built/train/user/part-00007.parquet      2 data files, several at once, under their final names
    built/train/...                          3 sizes of all of them, by one listing
                                             4 manifests: train last
                                             5 files that no manifest names any more are deleted, upload.json last

Killed before 4, nothing is visible: a data file without a manifest is no table. The next publish reads ``upload.json``
and uploads what is missing or other than planned. Names of data files are never given twice (``first_part``), so that
readers of the old table find their files until its manifest is replaced. One publisher at a time.
"""

import json
import logging
import re
import zlib
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recd_dist.errors import DataError
from recd_dist.table.location import Location, StoreError, contents, listing, put, report_store_errors
from recd_dist.table.manifest import NAME, FileEntry, Manifest, splits_of

if TYPE_CHECKING:
    from upath import UPath

logger = logging.getLogger(__name__)

_PLAN = "upload.json"
_FORMAT = "recd_dist.upload"
_DATA = re.compile(r"[^/]+/[^/]+/part-(\d+)\.\w+")
"""SPLIT/DIRECTORY/part-N.SUFFIX: what belongs to a table, and may be deleted when no manifest names it."""
_NUM_THREADS = 8
_MEMORY_BYTES = 256 << 20
"""Libraries of stores hold a file (s3fs: up to 100 MB, and pieces of 50 MB of a larger one) while they send it."""


def first_part(target: Location) -> int:
    """The number of the first part of a table that is to replace the one in a place, if there is one.

    Args:
        target: directory of the splits, local or remote.

    Returns:
        The largest ``next_part`` of the splits that stand there, 0 where there are none. It does not count what an
        interrupted publish left, so that the same build gets the same names and is not uploaded twice.
    """
    numbers = [0]
    for split in splits_of(target):
        try:
            numbers.append(Manifest.load(target / split).next_part)
        except StoreError:
            raise
        except DataError:  # of another release, perhaps: its files still must not be overwritten
            names = (path.name for path in (target / split).glob("*/part-*"))
            numbers += [int(found[1]) + 1 for name in names if (found := re.match(r"part-(\d+)", name))]
    return max(numbers)


def check_free(target: "UPath", overwrite: bool) -> None:
    """Refuses a place that holds something else; to be asked before a table is built, too.

    Args:
        target: directory of the splits.
        overwrite: a table there may be replaced.

    Raises:
        DataError: what is there, and the remedy.
    """
    _check_free(target, _Place.at(target), overwrite)


def check_whole(target: "UPath") -> None:
    """Refuses a table whose notes (sketches, statistics) are another's; to be asked before they are read for appending.

    Notes keep their names, so for a moment of an upload they are newer than the manifest beside them. Where the upload
    only adds to the table they say more than it holds, which does no harm; where it replaces the table they are wrong.

    Args:
        target: directory of the splits.

    Raises:
        DataError: a replacement was interrupted in that moment.
    """
    there = _Place.at(target)
    for split, files in there.standing.items():
        if split in there.finished or files.keys() <= there.planned.keys():
            continue
        for path, (size, crc) in there.notes.items():
            here = path.startswith(f"{split}/") and there.sizes.get(path) == size
            if here and zlib.crc32(contents(target / path)) == crc:
                raise DataError(
                    f"{target}: its replacement was interrupted; finish it by the command that began it, or make the "
                    "table anew with overwrite=true"
                )


def publish(
    built: Path, target: "UPath", overwrite: bool = False, progress: Callable[[int], None] | None = None
) -> None:
    """Uploads a table's splits and makes them visible; goes on where an interrupted publish of the same build stopped.

    Files that a manifest names and ``built`` lacks must be in the table that stands there (appending, compaction).

    Args:
        built: local directory of finished splits, ``built/train/manifest.json`` and so on; left as it is.
        target: directory of the splits in a store.
        overwrite: replace the table that stands there.
        progress: told the bytes of each file that has arrived.

    Raises:
        StoreError: the store gave up. Nothing is visible then, or the old table still is; ``built`` is worth keeping.
        DataError: something else is there, or a file that does not fit its manifest.
    """
    tree, there = _Tree.of(built), _Place.at(target)
    _check_free(target, there, overwrite)
    _check_names(tree, there, target)
    done = {path for path, entry in tree.files.items() if there.holds(path, entry)}
    # What is there under a planned name with other bytes goes before the plan says that it is right.
    used = done | {path for files in there.standing.values() for path in files}
    _delete(target, (path for path in there.sizes if _DATA.fullmatch(path) and path not in used))
    put(target / _PLAN, tree.plan())
    _upload(tree, target, done, progress)
    _check_sizes(tree.sizes, target)
    for split in tree.splits:
        put(target / split / NAME, tree.manifests[split])
    _clear(tree, there, target)


@dataclass(frozen=True)
class _Tree:
    """What is to be published.

    Attributes:
        built: where it lies.
        files: data files of all splits, ``train/samples/part-00000.parquet`` and so on.
        manifests: the text of each split's manifest.
        others: sizes of files that no manifest names.
    """

    built: Path
    files: dict[str, FileEntry]
    manifests: dict[str, bytes]
    others: dict[str, int]

    @staticmethod
    def of(built: Path) -> "_Tree":
        files: dict[str, FileEntry] = {}
        manifests: dict[str, bytes] = {}
        for split in splits_of(built):
            manifests[split] = (built / split / NAME).read_bytes()
            parts = Manifest.load(built / split).parts
            files |= {f"{split}/{entry.path}": entry for part in parts for entry in part.files}
        if not manifests:
            raise DataError(f"{built}: no finished table to publish (no */{NAME})")
        local = {str(p.relative_to(built)): p.stat().st_size for p in built.rglob("*") if p.is_file()}
        known = {*files, *(f"{split}/{NAME}" for split in manifests)}
        others = {
            name: size
            for name, size in sorted(local.items())
            if name not in known and name.partition("/")[0] in manifests and not Path(name).name.startswith(".")
        }
        return _Tree(built, files, manifests, others)

    @property
    def splits(self) -> list[str]:
        """``train`` last: where it stands, the other splits of the same table do."""
        return sorted(self.manifests, key=lambda split: (split == "train", split))

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of everything but the manifests."""
        return {path: entry.num_bytes for path, entry in self.files.items()} | self.others

    def plan(self) -> bytes:
        """``upload.json``."""
        value = {
            "format": _FORMAT,
            "files": {path: [entry.num_bytes, entry.crc32] for path, entry in self.files.items()},
            "notes": {path: [size, zlib.crc32((self.built / path).read_bytes())] for path, size in self.others.items()},
            "manifests": {split: zlib.crc32(text) for split, text in self.manifests.items()},
        }
        return json.dumps(value).encode()


@dataclass(frozen=True)
class _Place:
    """What is at the target.

    Attributes:
        sizes: of every object, by relative path.
        standing: data files by split that has a manifest; None as entry where that manifest cannot be read.
        is_planned: an upload to it was not finished.
        planned: its data files, ``[bytes, CRC-32]`` by path.
        notes: its other files.
        splits: its splits.
        finished: those of them that stand.
    """

    sizes: dict[str, int]
    standing: dict[str, dict[str, FileEntry | None]] = field(default_factory=dict)
    is_planned: bool = False
    planned: Mapping[str, Any] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)
    splits: frozenset[str] = frozenset()
    finished: frozenset[str] = frozenset()

    @staticmethod
    def at(target: "UPath") -> "_Place":
        sizes = listing(target)
        splits = [path.partition("/")[0] for path in sizes if path.count("/") == 1 and path.endswith(f"/{NAME}")]
        standing = {split: _standing(target, split, sizes) for split in splits}
        if _PLAN not in sizes:
            return _Place(sizes, standing)
        try:
            plan = json.loads(contents(target / _PLAN))
            files, notes, manifests = (dict(plan[key]) for key in ("files", "notes", "manifests"))
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{target / _PLAN}: not readable ({error!r}); remove it and publish again") from error
        ours = [split for split in standing if manifests.get(split) == zlib.crc32(contents(target / split / NAME))]
        return _Place(sizes, standing, True, files, notes, frozenset(manifests), frozenset(ours))

    def holds(self, path: str, entry: FileEntry) -> bool:
        """Whether a file is there with these very bytes, as far as size and whoever uploaded it say."""
        if self.sizes.get(path) != entry.num_bytes:
            return False
        before = [files[path] for files in self.standing.values() if path in files]
        return entry in before or self.planned.get(path) == [entry.num_bytes, entry.crc32]


def _standing(target: "UPath", split: str, sizes: Iterable[str]) -> dict[str, FileEntry | None]:
    """Data files of a split that stands; where its manifest cannot be read, all that lie there."""
    try:
        parts = Manifest.load(target / split).parts
    except StoreError:
        raise
    except DataError:
        return {path: None for path in sizes if path.startswith(f"{split}/") and _DATA.fullmatch(path)}
    return {f"{split}/{entry.path}": entry for part in parts for entry in part.files}


def _check_free(target: "UPath", there: _Place, overwrite: bool) -> None:
    if there.sizes and not there.standing and not there.is_planned:
        first = min(there.sizes)
        raise DataError(
            f"{target}: something else than a clustered table is there ({first}); choose another directory, or "
            "remove it if it is what is left of a table"
        )
    is_begun = there.finished == there.standing.keys() < there.splits  # by an upload that had nothing to replace
    if there.standing and not overwrite and not is_begun:
        raise DataError(f"{target}: a table is already there; overwrite=true replaces it, or choose another directory")


def _check_names(tree: _Tree, there: _Place, target: "UPath") -> None:
    """Nothing that the standing table reads is overwritten, and nothing is missing."""
    standing = {path: entry for files in there.standing.values() for path, entry in files.items()}
    for path, entry in tree.files.items():
        if path in standing and standing[path] != entry:
            raise DataError(
                f"{target / path}: the table that stands there has another file of this name; number the parts from "
                f"{first_part(target)} (etl.publish.first_part)"
            )
        local = tree.built / path
        size = local.stat().st_size if local.is_file() else None
        if size is None and not there.holds(path, entry):
            raise DataError(f"{path}: the manifest names it, but it is neither in {tree.built} nor at {target}")
        if size not in (None, entry.num_bytes):
            raise DataError(f"{local}: {size} bytes, written were {entry.num_bytes}; make the table again")


def _upload(tree: _Tree, target: "UPath", done: set[str], progress: Callable[[int], None] | None) -> None:
    """Uploads what is not there yet, data files first, several at once."""
    sizes = {path: size for path, size in tree.sizes.items() if path not in done}
    logger.info(
        "%s: uploading %d files, %.1f MB%s",
        target,
        len(sizes),
        sum(sizes.values()) / 1e6,
        f"; {len(done)} are there already" if done else "",
    )

    def sent(path: str) -> None:
        with report_store_errors(target / path):
            target.fs.put_file(str(tree.built / path), (target / path).path)
        if progress is not None:
            progress(sizes[path])

    num_threads = min(_NUM_THREADS, max(1, _MEMORY_BYTES // max(1, *sizes.values(), 1)))
    _side_by_side(sent, (path for path in sizes if path in tree.files), num_threads)
    _side_by_side(sent, (path for path in sizes if path not in tree.files), num_threads)


def _side_by_side(work: Callable[[str], None], paths: Iterable[str], num_threads: int = _NUM_THREADS) -> None:
    """Does the work for each path in a few threads; the first error ends it, after what is under way."""
    with ThreadPoolExecutor(num_threads, thread_name_prefix="recd-upload") as pool:
        try:
            for _ in pool.map(work, paths):
                pass
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _check_sizes(sizes: Mapping[str, int], target: "UPath") -> None:
    """Everything has arrived whole: before that no manifest says so."""
    found = listing(target)
    for path, size in sizes.items():
        if found.get(path) != size:
            what = f"{found[path]} bytes arrived" if path in found else "not there"
            raise StoreError(f"{target / path}: {size} bytes were uploaded, {what}; publish again")


def _clear(tree: _Tree, there: _Place, target: "UPath") -> None:
    """Removes splits that are no more, files that no manifest names and the plan. The new table stands already."""
    gone = [f"{split}/{NAME}" for split in there.standing if split not in tree.manifests]
    old = [path for path in there.sizes if _DATA.fullmatch(path) and path not in tree.sizes]
    try:
        for paths in (gone, old, [_PLAN]):
            _delete(target, paths)
    except DataError as error:
        logger.warning("%s: the new table stands, but files of the old one could not be removed: %s", target, error)


def _delete(target: "UPath", paths: Iterable[str]) -> None:
    def removed(path: str) -> None:
        try:
            with report_store_errors(target / path):
                target.fs.rm_file((target / path).path)
        except FileNotFoundError:
            pass

    _side_by_side(removed, paths)
