"""The last step: a run writes manifests and puts its tables in place.

::

    new table     table/ is renamed                           readers see nothing, then everything
    overwrite     table/ and the old one are exchanged        readers see the old, then the new
    append        files are moved in, then the manifest       files that no manifest names are no part of a table
    a store       table/ is uploaded                          as publish.py says
"""

import logging
import shutil
import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from recd_dist.etl.place.base_tables import BaseTables
from recd_dist.etl.place.new_manifests import build_manifests, merge_ids, merge_statistics
from recd_dist.etl.place.publish import publish
from recd_dist.etl.place.run_output import RunOutput
from recd_dist.etl.place.sketches import SKETCHES, save_sketches
from recd_dist.etl.place.statistics import STATISTICS, save_statistics
from recd_dist.files.whole_directory import put_in_place
from recd_dist.screen.phase_progress import PhaseProgress
from recd_dist.table.location import Location
from recd_dist.table.manifest import NAME, FileEntry, Manifest

logger = logging.getLogger(__name__)


def finish_tables(
    work: Path, out: Location, output: RunOutput, base: BaseTables, bar: PhaseProgress | None = None
) -> dict[str, Manifest]:
    """Writes manifests and puts the tables in place.

    Args:
        work: directory of work; the new files lie in its ``table``.
        out: directory of the tables, local or in a store.
        output: what the run has written.
        base: the tables that the run adds to.
        bar: shows the bytes that have been uploaded.

    Returns:
        Per split its manifest.
    """
    table = work / "table"
    ids = merge_ids(output, base)
    statistics = merge_statistics(output, base)
    manifests = build_manifests(output, base, statistics, ids)
    for split in manifests:
        (table / split).mkdir(parents=True, exist_ok=True)
        save_sketches(table / split / SKETCHES, ids)
        save_statistics(table / split / STATISTICS, statistics[split])
        notes = tuple(_entry_of(table / split / name) for name in (SKETCHES, STATISTICS))
        manifests[split] = replace(manifests[split], notes=notes)
        manifests[split].save(table / split)
    if not isinstance(out, Path):
        if bar is not None:
            bar.start_uploading(sum(file.num_bytes for result in output.results for file in result.part.files))
        publish(table, out, overwrite=True, progress=bar.advance if bar is not None else None)
    elif base.kept_in is None:
        put_in_place(table, out)
    else:
        for split, manifest in manifests.items():
            _move_files(table / split, out / split)
            manifest.save(out / split)
            _remove_old_files(out / split, base.manifests[split], manifest)
    return manifests


def _entry_of(note: Path) -> FileEntry:
    """The size and the checksum of a small file beside the manifest, which counts no rows."""
    content = note.read_bytes()
    return FileEntry(note.name, (), len(content), zlib.crc32(content))


def _move_files(source: Path, target: Path) -> None:
    """Moves all files but the manifest from one table into another; no name of a data file is in both."""
    for path in sorted(source.rglob("*")):
        if path.is_file() and path.name != NAME:
            new_path = target / path.relative_to(source)
            new_path.parent.mkdir(exist_ok=True)
            shutil.move(path, new_path)


def _remove_old_files(table: Path, before: Manifest, now: Manifest) -> None:
    """Removes the files that the manifest no longer names; a reader that has one of them open can still read it."""
    kept = {file.path for part in now.parts for file in part.files}
    for file in (file for part in before.parts for file in part.files):
        if file.path not in kept:
            (table / file.path).unlink(missing_ok=True)


def report(out: Location, manifests: Mapping[str, Manifest]) -> None:
    """Says in the log which missing values were filled, and which samples were left out.

    Args:
        out: directory of the tables.
        manifests: the manifest of each split.
    """
    for split, manifest in manifests.items():
        filled = {name: stats.num_null for name, stats in manifest.features.items() if stats.num_null}
        if filled:
            shown = ", ".join(f"{name} {num}" for name, num in list(filled.items())[:20])
            logger.info("%s/%s: missing values were filled: %s", out, split, shown)
    dropped = next(iter(manifests.values())).dropped
    for reason, count in dropped.items():
        logger.info("%s: %s %s", out, f"{count:,}", _REASONS.get(reason, reason))


_REASONS = {
    "duplicate": "samples were left out, since they were there already",
    "duplicate_kept": "samples equal another sample in every value, and were kept",
    "late": "samples were left out, since they came late for their partition",
    "late_kept": "samples came late for their partition, and were kept",
    "time": "samples were left out, since their time cannot be right",
    "unlabelled": "samples lack a label, and were left out",
    "unlabelled_kept": "samples lack a label, and were kept: a task is trained on those that have its label",
    "time_kept": "samples have a time that cannot be right, and were kept",
    "sampled": "samples were left out, since their sessions are not in the sample",
    "session_cut": "sessions are longer than eight row groups, and were cut",
}
